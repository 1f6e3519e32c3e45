// A clip with waveform, spectrogram and player.

import { request } from "./api.js";
import { el } from "./dom.js";
import { RATE_HZ, decode, drawClip } from "./spectrogram.js";

export class Player {
  constructor() {
    this.canvas = el("canvas", { className: "clip", role: "img", "aria-label": "Waveform and spectrogram" });
    this.audio = el("audio", { controls: true });
    this.element = el("div", { className: "player" }, this.canvas, this.audio);
    this.canvas.addEventListener("click", (event) => {
      if (this.seconds) this.audio.currentTime = (event.offsetX / this.canvas.clientWidth) * this.seconds;
      this.moved();
    });
    this.audio.addEventListener("play", () => this.follow());
    this.audio.addEventListener("seeked", () => this.moved());
  }

  // Loads a clip; the whole of it, so that it plays on if its file is removed meanwhile.
  async load(path, word, { signal } = {}) {
    this.audio.pause();
    delete this.element.dataset.loaded;
    const answer = await request(path, { signal });
    const content = await answer.blob();
    URL.revokeObjectURL(this.audio.src);
    this.audio.src = URL.createObjectURL(content);
    const samples = await decode(await content.arrayBuffer());
    this.seconds = samples.length / RATE_HZ;
    this.drawn = { samples, word: word ?? [0, 0] };
    this.draw();
    this.element.dataset.loaded = path;
  }

  draw() {
    if (this.drawn) this.mark = drawClip(this.canvas, this.drawn.samples, this.drawn.word);
  }

  async toggle() {
    if (this.audio.paused) {
      if (this.audio.ended) this.audio.currentTime = 0;
      await this.audio.play().catch(() => {});  // a browser may want a click first
    } else {
      this.audio.pause();
    }
  }

  moved() {
    this.mark?.(this.audio.currentTime || null);
  }

  follow() {
    this.moved();
    if (!this.audio.paused) requestAnimationFrame(() => this.follow());
  }

  close() {
    this.audio.pause();
    URL.revokeObjectURL(this.audio.src);
  }
}
