// Record takes of a word, enrol it, and try it live.

import { get, post } from "./api.js";
import { attempt, chip, el, empty, fill, notice, number, shortName } from "./dom.js";
import { BROWSER, Microphone } from "./microphone.js";
import { Player } from "./player.js";
import { Scope, rowsOf } from "./scope.js";

const FEWEST = 3;
const FLOOR_DB = -60;

export async function show(root, state) {
  const view = new Recorder(root, state);
  await view.refresh();
  return () => view.close();
}

class Recorder {
  constructor(root, state) {
    this.state = state;
    this.word = "";
    this.form = el("form", { className: "card stack", "aria-label": "Record a word", onsubmit: (event) => {
      event.preventDefault();
      this.record();
    } });
    this.field = el("input", { type: "text", required: true, maxLength: 64, autocomplete: "off", spellcheck: false,
      "aria-label": "Word", placeholder: "hey computer", oninput: () => this.choose(this.field.value.trim()) });
    this.speaker = el("input", { type: "text", required: true, maxLength: 64, value: "me", "aria-label": "Speaker" });
    this.n = el("input", { type: "number", min: FEWEST, max: 50, value: 5, "aria-label": "Number of takes" });
    this.input = el("select", { "aria-label": "Microphone" },
      el("option", { value: BROWSER }, "this browser"),
      ...state.sources.map(({ name }) => el("option", { value: name }, `${shortName(name)} (of kws)`)));
    this.button = el("button", { className: "primary" }, "Record");
    this.words = el("div", { className: "bar" });
    this.onlyMe = el("input", { type: "checkbox" });
    this.live = el("section", { className: "card", "aria-label": "Recording", hidden: true });
    this.takes = el("section", { className: "card", "aria-label": "Takes" });
    this.result = el("section", { className: "card", "aria-label": "Enrolment", hidden: true });
    this.trial = el("section", { className: "card", "aria-label": "Trial", hidden: true });
    this.player = new Player();
    this.form.append(el("h2", {}, "Record a word"),
      el("label", { className: "field" }, "Word", this.field),
      el("label", { className: "field" }, "Speaker", this.speaker),
      el("label", { className: "field" }, "Takes", this.n),
      el("label", { className: "field" }, "Microphone", this.input),
      el("div", { className: "bar" }, this.button), this.words);
    root.append(el("div", { className: "columns form-left" }, this.form,
      el("div", { className: "stack" }, this.live, this.takes, this.result, this.trial)));
  }

  close() {
    this.stop();
    this.player.close();
  }

  async refresh() {
    this.known = await get("/api/takes");
    if (!this.word && this.known.words.length) this.choose(this.known.words[0].word, true);
    fill(this.words, ...this.known.words.map(({ word }) =>
      el("button", { type: "button", "aria-pressed": word === this.word, onclick: () => this.choose(word, true) }, word)));
    this.drawTakes();
  }

  choose(word, isFilled) {
    if (word !== this.word) {
      this.stop();
      this.result.hidden = true;
    }
    this.word = word;
    if (isFilled) this.field.value = word;
    [...this.words.children].forEach((one) => one.setAttribute("aria-pressed", one.textContent === word));
    this.drawTakes();
  }

  get own() {
    return this.known?.words.find((one) => one.word === this.word) ?? { word: this.word, takes: [], model: null };
  }

  record = attempt(async () => {
    if (this.microphone) {
      this.stop();
      return;
    }
    const wanted = Number(this.n.value);
    this.told = el("p", { className: "prompt", role: "status" }, "Opening the microphone…");
    this.problem = el("p", { className: "remark", role: "alert", hidden: true });
    this.fill = el("div", { className: "fill" });
    this.db = el("span", { className: "muted num small" }, "–");
    this.speech = chip("quiet");
    this.dots = el("div", { className: "dots", "aria-hidden": "true" });
    fill(this.live, this.told, el("div", { className: "level" },
      el("div", { className: "track", role: "meter", "aria-label": "Level", "aria-valuemin": FLOOR_DB, "aria-valuemax": 0 }, this.fill),
      this.db, this.speech), this.dots, this.problem);
    this.live.hidden = false;
    this.button.textContent = "Stop";
    await this.listen("/api/record", { n_takes: wanted, speaker: this.speaker.value }, (message) => {
      const next = (n) => `Say “${this.word}”, then wait. Take ${Math.min(n + 1, wanted)} of ${wanted}.`;
      if (message.kind === "ready") this.tell(next(message.n), message.n, wanted);
      else if (message.kind === "level") this.level(message);
      else if (message.kind === "problem") this.warn(`Not kept, ${message.text}.`);
      else if (message.kind === "take") {
        this.warn("");
        this.tell(next(message.n), message.n, wanted);
        this.refresh();
      } else if (message.kind === "done") {
        this.tell(`${message.n} takes. Now enrol the word.`, message.n, wanted);
        this.stop({ isShown: true });
      }
    });
  });

  // Opens the microphone for one purpose; it is closed by `stop`, an error, or the server.
  async listen(path, request, onMessage) {
    const microphone = new Microphone();
    this.microphone = microphone;
    try {
      await microphone.open(path, { word: this.word, input: this.input.value, ...request }, (message) => {
        if (microphone !== this.microphone) return;
        if (message.kind === "error") notice(message.text, "bad");
        if (message.kind === "error" || message.kind === "closed") this.stop();
        else onMessage(message);
      });
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  stop({ isShown = false } = {}) {
    this.microphone?.close();
    this.microphone = null;
    this.button.textContent = "Record";
    if (!isShown) this.live.hidden = true;
    this.endTrial();
  }

  tell(text, n, wanted) {
    this.told.textContent = text;
    fill(this.dots, ...Array.from({ length: wanted }, (_, i) => el("span", { className: i < n ? "on" : "" })));
  }

  warn(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  level({ db, speaking }) {
    this.fill.style.transform = `scaleX(${Math.max(0, 1 - db / FLOOR_DB)})`;
    this.fill.classList.toggle("loud", db > -3);
    this.fill.parentElement.setAttribute("aria-valuenow", Math.round(db));
    this.db.textContent = `${number(db, 0)} dBFS`;
    this.speech.textContent = speaking ? "speech" : "quiet";
    this.speech.className = `chip ${speaking ? "accent" : ""}`;
  }

  drawTakes() {
    const { takes, model } = this.own;
    if (!takes.length) {
      fill(this.takes, this.word
        ? empty(`No take of “${this.word}” yet`, "Press Record, say the word, wait, and say it again.")
        : empty("Your own word, by your own voice", "Type a word, and record it three times or more. It is enrolled here, without training."));
      return;
    }
    fill(this.takes,
      el("header", {}, el("h2", {}, this.word), chip(takes.length === 1 ? "1 take" : `${takes.length} takes`)),
      el("ol", { className: "takes" }, ...takes.map((take) => this.takeRow(take))),
      el("div", { className: "player-box", hidden: true }, this.player.element),
      el("div", { className: "bar" },
        el("button", { className: model ? "" : "primary", disabled: takes.length < FEWEST, onclick: () => this.enrol() }, "Enrol"),
        el("label", { className: "check" }, this.onlyMe, "Only my voice"),
        model ? el("button", { className: "primary", onclick: () => this.tryIt() }, "Try it live") : null,
        takes.length < FEWEST ? el("span", { className: "muted small" }, `${FEWEST - takes.length} more to enrol`) : null));
  }

  takeRow(take) {
    const score = this.scores?.[`${this.word}/${take}`];
    return el("li", {},
      el("button", { className: "quiet", "aria-label": `Play ${take}`, onclick: attempt(async () => {
        this.takes.querySelector(".player-box").hidden = false;
        await this.player.load(`/api/takes/${encodeURIComponent(this.word)}/${encodeURIComponent(take)}.wav`, null);
        await this.player.toggle();
      }) }, "▶"),
      el("span", { className: "name" }, take.replace("_nohash_", " ")),
      score === undefined ? null : chip(score >= 0.5 ? number(score) : `${number(score)}, record it again`, score >= 0.5 ? "good" : "bad"),
      el("button", { className: "quiet", "aria-label": `Delete ${take}`, onclick: attempt(async () => {
        await post("/api/takes/delete", { word: this.word, take });
        await this.refresh();
      }) }, "✕"));
  }

  enrol = attempt(async () => {
    this.result.hidden = false;
    fill(this.result, el("p", { role: "status" }, "Enrolling…"));
    let done;
    try {
      done = await post("/api/enroll", { word: this.word, only_me: this.onlyMe.checked });
    } catch (error) {
      this.result.hidden = true;
      throw error;
    }
    this.scores = Object.fromEntries(Object.entries(done.scores).map(([take, score]) => [`${this.word}/${take}`, score]));
    const weak = Object.values(done.scores).filter((score) => score < 0.5).length;
    fill(this.result,
      el("header", {}, el("h2", {}, `“${this.word}” is enrolled`),
        weak ? chip(`${weak} weak`, "warn") : chip("every take found by the others", "good")),
      ...Object.entries(done.refused).map(([take, reason]) => el("p", { className: "remark" }, `Not used: ${take}, ${reason}`)),
      el("p", { className: "muted small" }, "To listen for it from now on, in kws.toml:"),
      el("pre", { className: "diff", tabIndex: 0 }, `[[models]]\nname = "${done.model}"`));
    await this.refresh();
  });

  tryIt = attempt(async () => {
    this.stop();
    this.trial.hidden = false;
    fill(this.trial, el("p", { role: "status" }, "Opening the microphone…"));
    const log = el("ol", { className: "events", role: "log", "aria-label": "Detections" });
    await this.listen("/api/try", {}, (message) => {
      if (message.kind === "model") {
        this.scope = new Scope(rowsOf([message.model]), { label: `Posterior of ${this.word}` });
        fill(this.trial, el("header", {}, el("h2", {}, `Say “${this.word}”`),
          el("button", { className: "end", onclick: () => this.stop() }, "Stop")), this.scope.element, log);
      } else if (message.kind === "frame" && this.scope) {
        this.scope.push(message.frame);
        for (const event of message.events) {
          this.scope.mark(event);
          log.prepend(el("li", { className: event.event }, el("span", { className: "num muted" }, `${number(event.end_s, 1)} s`),
            el("span", { className: "what" }, event.keyword),
            event.event === "detection" ? chip(`detected, ${number(event.score)}`, "good")
              : chip(event.speaker === undefined ? `near miss, ${number(event.score)}` : `another voice, ${number(event.speaker)}`, "warn")));
        }
      }
    });
  });

  endTrial() {
    this.scope?.close();
    this.scope = null;
    this.trial.hidden = true;
  }
}
