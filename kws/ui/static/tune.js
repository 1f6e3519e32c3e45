// Tune: a threshold on the scope, what it means, and its way into kws.toml.

import { get, post } from "./api.js";
import { attempt, chip, el, empty, fill, notice, number, shortName } from "./dom.js";
import { recentFrames, subscribe } from "./live_stream.js";
import { Scope, colours, rowsOf } from "./scope.js";
import { falseAlarms, inRoom, missRate, verdict } from "./tune_math.js";

const HEIGHT = 230;
const STRIP_HEIGHT = 120;

export async function show(root, state) {
  const days = 7;
  const tuning = await get(`/api/tuning?days=${days}`);
  const rows = rowsOf(state.models);
  if (!rows.length) {
    root.append(empty("No model", "kws.toml names no model with keywords."));
    return null;
  }
  const view = new Tuner(root, state, tuning, rows, days);
  return () => view.close();
}

class Tuner {
  constructor(root, state, tuning, rows, days) {
    Object.assign(this, { state, tuning, rows, days });
    this.wanted = new Map(rows.map((row) => [row, row.threshold]));
    this.source = state.sources[0]?.name;
    this.row = rows[0];
    this.main = el("section", { className: "card", "aria-label": "Threshold" });
    this.list = el("div", { className: "choices", role: "radiogroup", "aria-label": "Keyword" });
    this.changes = el("section", { className: "card changes", "aria-label": "Changes" });
    this.meaning = el("div", { className: "meanings", "aria-live": "polite" });
    root.append(el("div", { className: "columns narrow-left" },
      el("section", { className: "card", "aria-label": "Keywords" },
        el("header", {}, el("h2", {}, "Keywords")), this.list),
      el("div", { className: "stack" }, this.main, this.changes, this.meaning)));
    this.stop = subscribe({
      onFrame: (frame) => frame.name === this.source && this.scope.push(frame),
      onEvent: ({ event }) => event.source === this.source && "keyword" in event && event.event !== "peak"
        && this.scope.mark(event),
    });
    this.choose(this.row);
  }

  close() {
    this.stop();
    this.scope?.close();
  }

  choose(row) {
    this.row = row;
    this.scope?.close();
    this.scope = new Scope([{ ...row, threshold: this.wanted.get(row) }],
      { label: `Posterior of ${row.keyword}; drag to move its threshold`, height: HEIGHT });
    recentFrames(this.source).forEach((frame) => this.scope.push(frame));
    this.scope.canvas.classList.add("drag");
    this.slider = el("input", {
      type: "range", min: 0, max: 1, step: 0.005, value: this.wanted.get(row),
      "aria-label": `Threshold of ${row.keyword}`,
      oninput: () => this.set(Number(this.slider.value)),
    });
    this.value = el("output", { className: "num big" });
    const drag = (event) => {
      const at = this.scope.valueAt(event.offsetY);
      if (at !== null) this.set(at);
    };
    this.scope.canvas.addEventListener("pointerdown", (event) => {
      this.scope.canvas.setPointerCapture(event.pointerId);
      drag(event);
    });
    this.scope.canvas.addEventListener("pointermove", (event) => event.buttons && drag(event));
    fill(this.main,
      el("header", {}, el("h2", {}, row.keyword), this.several ? chip(row.model) : null, this.sources()),
      this.scope.element,
      el("div", { className: "threshold" }, el("span", { className: "muted" }, "Threshold"), this.slider, this.value));
    this.drawList();
    this.tell();
  }

  get several() {
    return this.state.models.length > 1;
  }

  sources() {
    if (this.state.sources.length < 2) return null;
    return el("select", { className: "end", "aria-label": "Source", onchange: (event) => {
      this.source = event.target.value;
      this.choose(this.row);
    } }, ...this.state.sources.map(({ name }) =>
      el("option", { value: name, selected: name === this.source }, shortName(name))));
  }

  drawList() {
    fill(this.list, ...this.rows.map((row) => {
      const wanted = this.wanted.get(row);
      const isChanged = wanted !== row.threshold;
      return el("label", { className: "choice" },
        el("input", { type: "radio", name: "keyword", checked: row === this.row, onchange: () => {
          this.choose(row);
          this.list.querySelector(":checked").focus();
        } }),
        el("span", { className: "name" }, row.keyword,
          this.several ? el("span", { className: "muted small model" }, row.model) : null),
        isChanged ? el("s", { className: "muted num small" }, number(row.threshold)) : null,
        el("span", { className: `num ${isChanged ? "changed" : "muted"}` }, number(wanted)));
    }));
  }

  set(value) {
    const rounded = Math.round(Math.min(1, Math.max(0, value)) * 200) / 200;
    this.wanted.set(this.row, Math.abs(rounded - this.row.threshold) < 0.0026 ? this.row.threshold : rounded);
    this.drawList();
    this.tell();
  }

  tell() {
    const threshold = this.wanted.get(this.row);
    this.slider.value = threshold;
    this.value.textContent = number(threshold, 3);
    this.scope.rows[0].threshold = threshold;
    fill(this.meaning, this.byCalibration(threshold), this.byRoom(threshold));
    this.drawChanges();
  }

  byCalibration(threshold) {
    const model = this.tuning.models.find((one) => one.name === this.row.model);
    const n = this.rows.filter((one) => one.model === this.row.model).length;
    const found = falseAlarms(model?.points ?? [], this.row.keyword, threshold, n);
    const missed = missRate(model?.points ?? [], this.row.keyword, threshold);
    const basis = model?.basis;
    const body = found
      ? [
        figure("False alarms an hour", `${{ less: "under ", more: "over ", "": "about " }[found.bound]}${rate(found.perHour)}`),
        figure("Words missed", missed === null ? "not measured" : `about ${Math.round(100 * missed)} %`),
        el("p", { className: "muted small" }, [
          basis ? `Measured on ${number(basis.hours, 1)} h of other people's speech.` : "",
          n > 1 ? ` The table is for all ${n} keywords; an equal share is shown.` : "",
          missed === null ? " This model's table holds no misses; `kws eval stream` measures them." : "",
        ].join("")),
      ]
      : [el("p", { className: "muted" }, "This model has no calibration table. Record this room, and label clips.")];
    return el("section", { className: "card", "aria-label": "By the model's calibration" },
      el("header", {}, el("h3", {}, "By the model's calibration")), ...body);
  }

  byRoom(threshold) {
    const { room } = this.tuning;
    const card = el("section", { className: "card", "aria-label": "In this room" },
      el("header", {}, el("h3", {}, "In this room"),
        el("span", { className: "muted small" }, `the last ${this.days} days`)));
    if (!room.folder) {
      card.append(el("p", { className: "muted" }, "Nothing is recorded. Set ",
        el("code", {}, "[recording] folder"), " and ", el("code", {}, "min_score"),
        " in kws.toml to keep detections and near misses."));
      return card;
    }
    const found = inRoom(room, this.row.model, this.row.keyword, threshold);
    if (!found.clips.length) {
      card.append(el("p", { className: "muted" }, `No clip of “${this.row.keyword}” in these days. Say it, and come back.`));
      return card;
    }
    card.append(
      figure("False alarms an hour", found.nFalse || !found.nOpen
        ? rate(found.falsePerHour) : `up to ${rate(found.openPerHour)}`),
      figure("Words missed", found.nSaid ? `${found.nMissed} of ${found.nSaid}` : "label clips to know"),
      this.strip(found.clips, threshold),
      el("p", { className: "muted small" },
        `${found.nDetected} of ${found.clips.length} clips reach ${number(threshold, 3)}: ${found.nRight} right, `
        + `${found.nFalse} wrong, ${found.nOpen} not labelled; ${number(room.hours, 1)} h since the first clip. `,
        room.min_score === null || threshold < room.min_score
          ? `Near misses below ${number(room.min_score ?? this.row.threshold)} are not recorded. ` : "",
        el("a", { href: "#label" }, "Label them")));
    return card;
  }

  strip(clips, threshold) {
    const canvas = el("canvas", { className: "strip", role: "img",
      "aria-label": `Scores of ${clips.length} clips from 0 to 1, with the threshold` });
    requestAnimationFrame(() => drawStrip(canvas, clips, threshold));
    return canvas;
  }

  changed() {
    return this.rows.filter((row) => this.wanted.get(row) !== row.threshold).map((row) => ({
      model: this.state.models.findIndex((one) => one.name === row.model),
      keyword: row.keyword, value: this.wanted.get(row), old: row.threshold,
    }));
  }

  drawChanges() {
    const changes = this.changed();
    this.changes.hidden = !changes.length;
    fill(this.changes, el("div", { className: "bar centre" },
      el("span", {}, changes.map((one) => `${one.keyword} ${number(one.old)} → ${number(one.value, 3)}`).join(", ")),
      el("button", { className: "primary", onclick: attempt(() => this.propose()) }, "Write to kws.toml…"),
      el("button", { onclick: () => this.reset() }, "Reset")));
  }

  reset() {
    this.rows.forEach((row) => this.wanted.set(row, row.threshold));
    this.choose(this.row);
  }

  async propose() {
    const changes = this.changed();
    const dialog = el("dialog", { "aria-label": "Change of kws.toml" });
    const draw = async (remark) => {
      const proposal = await post("/api/tuning/proposal", { changes });
      fill(dialog,
        el("h2", {}, "Change of kws.toml"), el("p", { className: "muted small mono" }, proposal.path),
        remark ? el("p", { className: "remark" }, remark) : null,
        el("pre", { className: "diff", tabIndex: 0, "aria-label": "Difference" }, ...proposal.diff.map((line) =>
          el("span", { className: { "+": "add", "-": "del", "@": "at" }[line[0]] ?? "" }, `${line}\n`))),
        el("div", { className: "bar" },
          el("button", { className: "primary", onclick: () => apply(proposal.digest) }, "Write"),
          el("button", { onclick: () => dialog.close() }, "Cancel")));
    };
    const apply = attempt(async (digest) => {
      try {
        await post("/api/tuning/write", { changes, digest });
      } catch (error) {
        if (error.status !== 409) throw error;
        await draw(error.message);
        return;
      }
      dialog.close();
      notice("Written to kws.toml; kws reads it again.");
      this.rows.forEach((row) => (row.threshold = this.wanted.get(row)));
      this.choose(this.row);
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    await draw("").catch((error) => {
      dialog.remove();
      throw error;
    });
    dialog.showModal();
  }
}

function figure(name, value) {
  return el("p", { className: "figure" }, el("span", { className: "muted" }, name), el("b", { className: "num" }, value));
}

function rate(perHour) {
  if (perHour === null) return "–";
  return perHour === 0 ? "0" : perHour < 0.1 ? number(perHour, 3) : perHour < 10 ? number(perHour, 2) : number(perHour, 0);
}

function drawStrip(canvas, clips, threshold) {
  const width = canvas.clientWidth;
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = STRIP_HEIGHT * ratio;
  const pen = canvas.getContext("2d");
  const c = colours(canvas);
  pen.scale(ratio, ratio);
  const base = STRIP_HEIGHT - 20;
  const x = (score) => 6 + score * (width - 12);
  const heights = new Map();
  for (const clip of [...clips].sort((a, b) => String(verdict(a)).localeCompare(String(verdict(b))))) {
    const bin = Math.round(clip.score * 50);
    const level = heights.get(bin) ?? 0;
    heights.set(bin, level + 1);
    if (level > 10) continue;
    pen.fillStyle = { right: c.good, wrong: c.bad, null: c.wave }[verdict(clip)];
    pen.beginPath();
    pen.arc(x(bin / 50), base - 6 - level * 8.5, 3.6, 0, 7);
    pen.fill();
  }
  pen.strokeStyle = c.line;
  pen.beginPath();
  pen.moveTo(0, base + 0.5);
  pen.lineTo(width, base + 0.5);
  pen.stroke();
  pen.strokeStyle = c.warn;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.moveTo(x(threshold), 0);
  pen.lineTo(x(threshold), base);
  pen.stroke();
  pen.fillStyle = c.muted;
  pen.font = "11px system-ui, sans-serif";
  for (const at of [0, 0.25, 0.5, 0.75, 1]) {
    pen.textAlign = at === 0 ? "left" : at === 1 ? "right" : "center";
    pen.fillText(number(at), x(at), base + 15);
  }
}
