// Live: a scope for each source, and the events as they come.

import { get } from "./api.js";
import { chip, clock, el, empty, fill, number, shortName } from "./dom.js";
import { N_RECENT, recentEvents, recentFrames, subscribe } from "./live_stream.js";
import { Scope, rowsOf } from "./scope.js";

const STATES = {
  opening: ["opening", ""], listening: ["listening", "good"], silent: ["silent", "warn"],
  stalled: ["stalled", "bad"], ended: ["ended", ""],
};
const FLOOR_DB = -70;

export async function show(root, state) {
  const panels = new Map(state.sources.map((source) => [source.name, new Panel(source, state)]));
  const log = new EventLog();
  root.append(el("div", { className: "columns" },
    el("div", { className: "stack" }, ...[...panels.values()].map((one) => one.element)),
    el("section", { className: "card", "aria-label": "Events" },
      el("header", {}, el("h2", {}, "Events")), log.element)));
  log.fill(recentEvents());
  const refresh = async () => {
    const now = await get("/api/state").catch(() => null);
    if (!now) return;
    now.sources.forEach((source) => panels.get(source.name)?.tell(source));
    const names = now.sources.map(({ name }) => name);
    if (names.join() !== [...panels.keys()].join()) dispatchEvent(new Event("hashchange"));  // a reload
  };
  const stop = subscribe({
    onFrame: (frame) => panels.get(frame.name)?.push(frame),
    onRecent: (events) => log.fill(events),
    onEvent: ({ time, event }) => {
      if (event.event === "peak") return;
      log.add({ time, event });
      panels.get(event.source)?.scope.mark(event);
      if (!("keyword" in event)) refresh();
    },
  });
  return () => {
    stop();
    panels.forEach((one) => one.scope.close());
  };
}

class Panel {
  constructor(source, state) {
    this.scope = new Scope(rowsOf(state.models), { label: `Posteriors of ${source.name}, the last ten seconds` });
    this.state = el("span");
    this.gate = chip("quiet");
    this.fill = el("div", { className: "fill" });
    this.track = el("div", {
      className: "track", role: "meter", "aria-label": `Level of ${source.name}`,
      "aria-valuemin": FLOOR_DB, "aria-valuemax": 0, "aria-valuenow": FLOOR_DB,
    }, this.fill);
    this.level = el("span", { className: "num muted small" }, "–");
    this.error = el("p", { className: "small muted" });
    this.about = el("span", { className: "muted small" });
    this.element = el("section", { className: "card", "aria-label": `Source ${source.name}` },
      el("header", {}, el("h2", { title: source.name }, shortName(source.name)), this.state, this.about),
      el("div", { className: "level" }, this.track, this.level, this.gate),
      this.error, this.scope.element);
    this.tell(source);
    recentFrames(source.name).forEach((frame) => this.push(frame));
  }

  tell(source) {
    const [text, kind] = STATES[source.state] ?? [source.state, ""];
    fill(this.state, chip(text, kind));
    this.about.textContent = shortName(source.description === source.name ? "" : source.description);
    const isBroken = source.state === "stalled" || source.state === "silent";
    this.error.textContent = isBroken ? source.last_error ?? "No sound from it." : "";
    this.error.hidden = !isBroken;
  }

  push(frame) {
    this.scope.push(frame);
    const db = Math.max(...frame.levels);
    this.fill.style.transform = `scaleX(${Math.max(0, 1 - db / FLOOR_DB)})`;
    this.fill.classList.toggle("loud", db > -3);
    this.track.setAttribute("aria-valuenow", Math.round(Math.max(FLOOR_DB, db)));
    this.level.textContent = `${number(db, 0)} dBFS`;
    this.gate.textContent = frame.gate_open ? "voice" : "quiet";
    this.gate.className = `chip ${frame.gate_open ? "accent" : ""}`;
  }
}

class EventLog {
  constructor() {
    this.list = el("ol", { className: "events", role: "log", "aria-label": "Detections and near misses", tabIndex: 0 });
    this.element = el("div", {}, this.list);
  }

  fill(events) {
    fill(this.list, ...events.map(({ time, event }) => item(time, event)).reverse());
    this.check();
  }

  add({ time, event }) {
    const made = item(time, event);
    made.classList.add("new");
    this.list.prepend(made);
    while (this.list.children.length > N_RECENT) this.list.lastChild.remove();
    this.check();
  }

  check() {
    this.empty?.remove();
    if (this.list.children.length) return;
    this.empty = empty("Nothing yet", "Say a keyword. Detections and near misses come here.");
    this.element.append(this.empty);
  }
}

function item(time, event) {
  const isWord = "keyword" in event;
  const [text, kind] = { detection: ["detected", "good"], near_miss: ["near miss", "warn"] }[event.event]
    ?? [event.event, event.event === "error" || event.event === "stalled" ? "bad" : ""];
  return el("li", { className: event.event },
    el("time", { dateTime: time }, clock(time)),
    el("span", { className: "what" }, isWord ? event.keyword : shortName(event.source ?? "kws")),
    chip(text, kind),
    el("span", { className: "detail" }, detail(event)));
}

function detail(event) {
  if ("keyword" in event) return `score ${number(event.score)} · ${shortName(event.source ?? "")}`;
  return event.detail === event.source ? "" : event.detail ?? "";
}
