// The frame of the page: views by the fragment of the address, and the state of the connection.

import { get, takeToken } from "./api.js";
import { el, empty, fill } from "./dom.js";
import { connect, subscribe } from "./live_stream.js";
import * as label from "./label.js";
import * as live from "./live.js";
import * as record from "./record.js";
import * as runs from "./runs.js";
import * as tune from "./tune.js";

const VIEWS = { live: ["Live", live], tune: ["Tune", tune], label: ["Label", label], record: ["Record", record], runs: ["Runs", runs] };
const CONNECTION = { on: "connected", off: "not connected", refused: "too many pages" };

const main = document.getElementById("main");
const links = {};
let leave = null;
let turn = 0;

function name() {
  const asked = location.hash.slice(1).split("/")[0];
  return asked in VIEWS ? asked : "live";
}

async function show() {
  const mine = ++turn;
  const shown = name();
  for (const [key, link] of Object.entries(links)) {
    if (key === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[shown][0]} – kws`;
  leave?.();
  leave = null;
  try {
    const state = await get("/api/state");
    if (mine !== turn) return;
    const root = el("div");
    fill(main, root);
    const left = await VIEWS[shown][1].show(root, state);
    if (mine === turn) leave = left;
    else left?.();
  } catch (error) {
    if (error.status !== 401) {
      fill(main, empty(error.message, el("p", {}, el("button", { onclick: show }, "Try again"))));
    }
  }
}

function connection(state) {
  const shown = document.getElementById("connection");
  if (shown.textContent === "not connected" && state === "on") show();  // kws was started again
  shown.textContent = CONNECTION[state];
  shown.className = `connection ${state === "on" ? "on" : "off"}`;
}

takeToken();
for (const [key, [title]] of Object.entries(VIEWS)) {
  links[key] = el("a", { href: `#${key}` }, title);
}
document.getElementById("views").append(...Object.values(links));
addEventListener("hashchange", () => {
  if (location.hash.includes("token=")) location.reload();
  else if (location.hash !== "#main") show();
});
addEventListener("kws-refused", ({ detail }) => {
  fill(main, empty("This page is locked", detail));
});
subscribe({
  onConnection: connection,
  onRefused: (text) => fill(main, empty("Too many pages", text)),
});
connect();
show();
