// The one stream of frames and events; views subscribe to it.

import { openSocket } from "./api.js";

const listeners = new Set();
const recent = [];
const frames = new Map();
const N_FRAMES = 200;
let socket = null;
let retry = 0;

export const N_RECENT = 50;

export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const recentEvents = () => recent;

// What a scope that opens now shows of the seconds before.
export const recentFrames = (source) => frames.get(source) ?? [];

function keep(frame) {
  const kept = frames.get(frame.name) ?? [];
  kept.push(frame);
  if (kept.length > N_FRAMES) kept.shift();
  frames.set(frame.name, kept);
}

const tell = (name, value) => listeners.forEach((one) => one[name]?.(value));

function remember(shown) {
  if (shown.event.event !== "peak") recent.push(shown);
  recent.splice(0, recent.length - N_RECENT);
}

export function connect() {
  let refusal = null;
  socket = openSocket("/api/live");
  socket.onopen = () => {
    retry = 0;
    tell("onConnection", "on");
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.kind === "recent") {
      recent.splice(0, recent.length, ...message.events);
      tell("onRecent", recent);
    } else if (message.kind === "refused") {
      refusal = message.error;
      tell("onRefused", refusal);
    } else {
      for (const shown of message.events) {
        remember(shown);
        tell("onEvent", shown);
      }
      for (const frame of message.sources) {
        keep(frame);
        tell("onFrame", frame);
      }
    }
  };
  socket.onclose = () => {
    tell("onConnection", refusal ? "refused" : "off");
    retry = Math.min(8000, refusal ? 8000 : 500 + retry * 2);
    setTimeout(connect, retry);
  };
}
