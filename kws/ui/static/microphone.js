// A WebSocket with audio: from the microphone of this browser, or of the machine that kws runs on.

import { openSocket } from "./api.js";

export const BROWSER = "browser";

export class Microphone {
  // Opens the path; `request` says what for. `onMessage` gets what the server tells.
  async open(path, request, onMessage) {
    let rate = 16000;
    if (request.input === BROWSER) rate = await this.capture();
    this.socket = openSocket(path);
    this.socket.onmessage = ({ data }) => onMessage(JSON.parse(data));
    this.socket.onclose = () => {
      this.close();
      onMessage({ kind: "closed" });
    };
    await new Promise((resume, refuse) => {
      this.socket.onopen = resume;
      this.socket.onerror = () => refuse(new Error("kws does not answer. Is it still running?"));
    });
    this.socket.send(JSON.stringify({ ...request, rate_hz: rate }));
    if (this.node) {
      this.node.port.onmessage = ({ data }) => {
        // What the server does not take in time is lost here, not piled up.
        if (this.socket.readyState === WebSocket.OPEN && this.socket.bufferedAmount < 200000) this.socket.send(data);
      };
    }
  }

  async capture() {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give pages their microphone only by https or at 127.0.0.1. Choose a microphone of the machine.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
      });
    } catch (error) {
      throw new Error(`The browser gives no microphone (${error.message}). Allow it beside the address, or choose one of the machine.`);
    }
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("capture_worklet.js");
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    await this.context.resume();
    return this.context.sampleRate;
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close().catch(() => {});
    this.stream = this.context = this.node = null;
    if (this.socket?.readyState <= WebSocket.OPEN) this.socket.close();
  }
}
