// Listen and label: the recorded clips, one key for each label.

import { ApiError, get, post } from "./api.js";
import { attempt, chip, el, empty, fill, notice, number, shortName } from "./dom.js";
import { Player } from "./player.js";
import { UNKNOWN, UNSURE } from "./tune_math.js";

const KINDS = { detection: "detected", near_miss: "near miss" };

export async function show(root, state) {
  const view = new Labeller(root, state);
  await view.refresh();
  return () => view.close();
}

class Labeller {
  constructor(root) {
    this.filter = { day: "", source: "", kind: "", keyword: "", label: "", least: 0, most: 1 };
    this.clips = [];
    this.given = [];
    this.at = -1;
    this.player = new Player();
    this.list = el("ol", { className: "clips", role: "listbox", "aria-label": "Clips", tabIndex: 0 });
    this.count = el("p", { className: "muted small" });
    this.filters = el("form", { className: "filters", "aria-label": "Filter", onsubmit: (event) => event.preventDefault() });
    this.title = el("header");
    this.buttons = el("div", { className: "bar labels", role: "group", "aria-label": "Label" });
    this.detail = el("section", { className: "card", "aria-label": "Clip" }, this.title, this.player.element, this.buttons);
    this.side = el("section", { className: "card", "aria-label": "Recorded clips" }, this.filters, this.count, this.list);
    this.nothing = el("div");
    this.root = el("div", { className: "columns wide-left" }, this.side, el("div", { className: "stack" }, this.detail, this.nothing));
    root.append(this.root);
    this.onKey = (event) => this.press(event);
    addEventListener("keydown", this.onKey);
    this.onSize = () => this.player.draw();
    addEventListener("resize", this.onSize);
  }

  close() {
    removeEventListener("keydown", this.onKey);
    removeEventListener("resize", this.onSize);
    this.player.close();
  }

  get current() {
    return this.clips[this.at];
  }

  // The chosen clip stays, if it fits the filter: it may have been clicked before the answer came.
  async refresh() {
    this.listed?.abort(); // the answer to an earlier filter may come after that to this one
    this.listed = new AbortController();
    const { signal } = this.listed;
    const listing = await get(`/api/clips?${new URLSearchParams(this.filter)}`, { signal });
    const chosen = this.current?.clip.id;
    this.listing = listing;
    this.clips = listing.clips;
    this.side.hidden = !listing.n;
    if (!this.filters.children.length || listing.n !== this.n) this.drawFilters();
    this.n = listing.n;
    const rest = listing.n_found > this.clips.length ? `, the newest ${this.clips.length} shown` : "";
    this.count.textContent = `${listing.n_found} of ${listing.n} clips${rest}`;
    this.drawList();
    const kept = this.clips.findIndex((one) => one.clip.id === chosen);
    await this.choose(kept >= 0 ? kept : this.clips.length ? 0 : -1);
  }

  drawFilters() {
    const { listing } = this;
    const choice = (name, title, options) => el("label", { className: "field" }, title,
      el("select", { "aria-label": title, onchange: (event) => this.narrow(name, event.target.value) },
        el("option", { value: "" }, "all"),
        ...options.map(([value, text]) => el("option", { value, selected: this.filter[name] === value }, text))));
    const bound = (name, title) => el("label", { className: "field" }, title,
      el("input", { type: "number", "aria-label": title, min: 0, max: 1, step: 0.05, value: this.filter[name],
        onchange: (event) => this.narrow(name, event.target.value || (name === "most" ? 1 : 0)) }));
    fill(this.filters,
      choice("day", "Day", listing.days.map((day) => [day, day])),
      choice("source", "Source", listing.sources.map((one) => [one, shortName(one)])),
      choice("keyword", "Keyword", listing.keywords.map((one) => [one, one])),
      choice("kind", "Kind", Object.entries(KINDS)),
      choice("label", "Label", [["none", "not labelled"], ["any", "labelled"], [UNKNOWN, "wrong"], [UNSURE, "unsure"]]),
      el("div", { className: "pair" }, bound("least", "Score from"), bound("most", "to")));
  }

  narrow = attempt(async (name, value) => {
    this.filter[name] = value;
    await this.refresh();
  });

  drawList() {
    fill(this.list, ...this.clips.map((one, i) => {
      const { clip } = one;
      return el("li", { role: "option", id: `clip-${i}`, "aria-selected": i === this.at, onclick: () => this.choose(i) },
        el("b", {}, clip.keyword), el("span", { className: "num muted" }, number(clip.score)),
        el("span", { className: "mark" }, labelChip(one)),
        el("span", { className: "muted small num" },
          `${when(clip.time)} · ${KINDS[clip.kind]} · ${shortName(clip.source)}`));
    }));
  }

  choose = attempt(async (at) => {
    this.at = at;
    [...this.list.children].forEach((one, i) => one.setAttribute("aria-selected", i === at));
    this.list.setAttribute("aria-activedescendant", at >= 0 ? `clip-${at}` : "");
    this.list.children[at]?.scrollIntoView({ block: "nearest" });
    this.detail.hidden = at < 0;
    this.drawNothing();
    this.loading?.abort();
    if (at < 0) {
      this.player.audio.pause();
      return;
    }
    this.loading = new AbortController();
    this.drawDetail();
    const { clip } = this.current;
    try {
      await this.player.load(`/api/clips/${clip.id}.${clip.format}`, clip.word_s, this.loading);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      this.lose(clip, error.message);
    }
  });

  // A clip that is gone leaves the list; the others stay.
  lose(clip, text) {
    notice(text, "bad");
    const at = this.clips.findIndex((one) => one.clip.id === clip.id);
    if (at < 0) return;
    this.clips.splice(at, 1);
    this.drawList();
    this.choose(Math.min(at, this.clips.length - 1));
  }

  drawDetail() {
    const one = this.current;
    const { clip } = one;
    fill(this.title, el("h2", {}, `${clip.keyword}?`),
      chip(KINDS[clip.kind], clip.kind === "detection" ? "good" : "warn"), labelChip(one),
      el("span", { className: "muted small end num" }, `score ${number(clip.score)} · ${when(clip.time)} · ${shortName(clip.source)}`));
    const others = one.choices.filter((word) => word !== clip.keyword);
    fill(this.buttons,
      this.button("Right", "y", clip.keyword), this.button("Wrong", "n", UNKNOWN), this.button("Unsure", "u", UNSURE),
      others.length ? el("select", { "aria-label": "Other word", onchange: (event) => this.give(event.target.value) },
        el("option", { value: "" }, "Other word…"),
        ...others.map((word) => el("option", { value: word, selected: one.label === word }, `${keyOf(one, word)} ${word}`))) : null,
      el("button", { className: "quiet end", onclick: () => this.undo(), disabled: !this.given.length }, "Undo ", el("kbd", {}, "b")));
  }

  button(text, key, label) {
    return el("button", { "aria-pressed": this.current.label === label, "aria-keyshortcuts": key, onclick: () => this.give(label) },
      text, el("kbd", {}, key));
  }

  drawNothing() {
    const { listing } = this;
    let shown = [];
    if (!listing.folder) {
      shown = [empty("Nothing is recorded yet", "To keep detections and near misses, write into kws.toml:",
        el("pre", {}, '[recording]\nfolder = "clips"\nmin_score = 0.3'), "then say a keyword, and come back.")];
    } else if (!listing.n) {
      shown = [empty("No clips yet", `Say a keyword: its clip comes to ${listing.folder}.`)];
    } else if (!this.clips.length) {
      shown = [empty("No clip fits the filter", "Choose “all” above.")];
    }
    this.root.classList.toggle("single", !listing.n);
    fill(this.nothing, ...shown);
    this.nothing.className = shown.length ? "card" : "";
  }

  give = attempt(async (label) => {
    const one = this.current;
    if (!one || !label) return;
    try {
      await post("/api/labels", { clip: one.clip.id, label });
    } catch (error) {
      if (error.status !== 404) throw error;
      this.lose(one.clip, error.message);
      return;
    }
    one.label = label;
    this.given.push(one.clip.id);
    this.drawList();
    const next = this.clips.findIndex((other, i) => i > this.at && other.label === null);
    if (next < 0) {
      await this.choose(this.at);
      return;
    }
    await this.choose(next);
    await this.player.toggle();
  });

  undo = attempt(async () => {
    const id = this.given.pop();
    if (!id) return;
    await post("/api/labels", { clip: id, label: null });
    const at = this.clips.findIndex((one) => one.clip.id === id);
    if (at >= 0) this.clips[at].label = null;
    this.drawList();
    await this.choose(at >= 0 ? at : this.at);
  });

  press(event) {
    const isTyping = /^(INPUT|SELECT|TEXTAREA|AUDIO)$/.test(event.target.tagName);
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !this.current) return;
    const one = this.current;
    const move = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    const label = { y: one.clip.keyword, n: UNKNOWN, u: UNSURE }[event.key] ?? one.choices["1234567890".indexOf(event.key)];
    if (move) this.choose(Math.min(this.clips.length - 1, Math.max(0, this.at + move)));
    else if (label) this.give(label);
    else if (event.key === "b") this.undo();
    else if (event.key === " " && event.target.tagName !== "BUTTON") this.player.toggle();
    else return;
    event.preventDefault();
  }
}

const keyOf = (one, word) => "1234567890"[one.choices.indexOf(word)] ?? "";

function labelChip({ clip, label }) {
  if (label === null) return "";
  if (label === clip.keyword) return chip("right", "good");
  if (label === UNKNOWN) return chip("wrong", "bad");
  return label === UNSURE ? chip("unsure") : chip(label, "accent");
}

function when(time) {
  const at = new Date(time);
  return `${at.toLocaleDateString([], { month: "short", day: "numeric" })} ${at.toLocaleTimeString([], { hour12: false })}`;
}
