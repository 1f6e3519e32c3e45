// Runs in the audio thread of the browser: hands on blocks of samples as int16.

const BLOCK = 1024;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(BLOCK);
    this.n = 0;
  }

  process([[channel]]) {
    for (const sample of channel ?? []) {
      this.block[this.n++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.n === BLOCK) {
        this.port.postMessage(this.block.slice().buffer);
        this.n = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
