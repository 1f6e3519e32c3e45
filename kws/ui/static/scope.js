// A scrolling scope: the level on top, below it a row for each keyword with its threshold.

import { el, number } from "./dom.js";

export const SPAN_S = 10;
const LEVEL_S = 0.02;
const LEVEL_HEIGHT = 58;
const AXIS_HEIGHT = 18;
const FLOOR_DB = -70;
const GAP_S = 0.35;

const rowHeight = (n) => (n === 1 ? 130 : n <= 3 ? 76 : 38);

export class Scope {
  // rows: [{ model, keyword, at, threshold }], `at` the place in the model's posteriors.
  constructor(rows, { label, height } = {}) {
    this.rows = rows.map((one) => ({ ...one, points: [], marks: [] }));
    this.height = height ?? rowHeight(rows.length);
    this.levels = [];
    this.newest = null;
    this.canvas = el("canvas", { role: "img", "aria-label": label ?? "Posteriors of the last ten seconds" });
    this.outputs = this.rows.map(() => el("span", { className: "value" }, "0.00"));
    const names = this.rows.map((row, i) =>
      el("div", {}, el("b", { title: row.keyword }, row.keyword), this.outputs[i]));
    names.forEach((one) => (one.style.height = `${this.height}px`));
    this.names = names;
    const level = el("div", {}, el("b", {}, "level"));
    level.style.height = `${LEVEL_HEIGHT}px`;
    this.element = el("div", { className: "scope" }, el("div", { className: "names" }, level, ...names), this.canvas);
    this.isSlow = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.readColours = () => (this.colours = null);
    this.scheme.addEventListener("change", this.readColours);
    this.drawnAt = 0;
    this.raf = requestAnimationFrame((now) => this.tick(now));
  }

  close() {
    cancelAnimationFrame(this.raf);
    this.scheme.removeEventListener("change", this.readColours);
  }

  get total() {
    return LEVEL_HEIGHT + this.rows.length * this.height + AXIS_HEIGHT;
  }

  push(frame) {
    const end = frame.start_s + frame.levels.length * LEVEL_S;
    if (this.newest !== null && end < this.newest - 1) {
      this.levels = [];  // the source began anew
      this.rows.forEach((row) => { row.points = []; row.marks = []; });
    }
    this.newest = end;
    this.arrived = performance.now();
    frame.levels.forEach((db, i) => this.levels.push([frame.start_s + i * LEVEL_S, db, frame.gate_open]));
    for (const [model, at, scores] of frame.posteriors) {
      for (const row of this.rows) if (row.model === model) row.points.push([at, scores[row.at]]);
    }
    const oldest = end - SPAN_S - 1;
    this.levels.splice(0, this.levels.findIndex(([at]) => at >= oldest));
    this.rows.forEach((row, i) => {
      const kept = row.points.findIndex(([at]) => at >= oldest);
      row.points.splice(0, kept < 0 ? row.points.length : kept);
      row.marks = row.marks.filter((mark) => mark.end_s >= oldest);
      const last = row.points.at(-1);
      const value = last && end - last[0] < GAP_S + 0.3 ? last[1] : 0;
      this.outputs[i].textContent = number(value);
      this.names[i].classList.toggle("over", value >= row.threshold);
    });
  }

  mark(event) {
    const row = this.rows.find((one) => one.model === event.model && one.keyword === event.keyword);
    row?.marks.push(event);
  }

  // The posterior at a height in the picture of a scope with one row; null outside of it.
  valueAt(offset) {
    if (offset < LEVEL_HEIGHT) return null;
    return Math.min(1, Math.max(0, (LEVEL_HEIGHT + this.height - 5 - offset) / (this.height - 11)));
  }

  tick(now) {
    this.raf = requestAnimationFrame((next) => this.tick(next));
    if (this.newest === null || (this.isSlow && now - this.drawnAt < 250)) {
      if (this.drawnAt) return;
    }
    this.drawnAt = now;
    this.draw(now);
  }

  draw(now) {
    const { canvas } = this;
    const width = canvas.clientWidth;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(this.total * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(this.total * ratio);
      canvas.style.height = `${this.total}px`;
    }
    this.colours ??= colours(canvas);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, this.total);
    // Between two frames the time goes on, so that the picture moves evenly.
    const ahead = this.isSlow ? 0 : Math.min(0.1, (now - (this.arrived ?? now)) / 1000);
    const end = (this.newest ?? 0) + ahead;
    const x = (at) => width * (1 - (end - at) / SPAN_S);
    this.drawLevel(pen, x, width);
    this.rows.forEach((row, i) => this.drawRow(pen, x, width, row, LEVEL_HEIGHT + i * this.height));
    drawAxis(pen, this.colours, width, this.total - AXIS_HEIGHT);
  }

  drawLevel(pen, x, width) {
    const { levels, colours: c } = this;
    const step = (width * LEVEL_S) / SPAN_S + 0.5;
    pen.fillStyle = c.voice;
    for (const [at, , open] of levels) if (open) pen.fillRect(x(at), 0, step, this.total - AXIS_HEIGHT);
    pen.fillStyle = c.wave;
    const middle = LEVEL_HEIGHT / 2;
    for (const [at, db] of levels) {
      const half = Math.max(0.5, (Math.max(0, 1 - db / FLOOR_DB) * (LEVEL_HEIGHT - 10)) / 2);
      pen.fillRect(x(at), middle - half, Math.max(1, step - 0.4), 2 * half);
    }
  }

  drawRow(pen, x, width, row, top) {
    const c = this.colours;
    const y = (value) => top + this.height - 5 - value * (this.height - 11);
    pen.strokeStyle = c.line;
    pen.lineWidth = 1;
    line(pen, 0, Math.round(top) + 0.5, width, Math.round(top) + 0.5);
    pen.strokeStyle = c.warn;
    pen.setLineDash([4, 4]);
    const at = Math.round(y(row.threshold)) + 0.5;
    line(pen, 0, at, width, at);
    pen.setLineDash([]);
    if (this.canvas.classList.contains("drag")) {
      pen.fillStyle = c.warn;
      pen.beginPath();
      pen.roundRect(width - 26, at - 7, 24, 14, 7);
      pen.fill();
    }
    trace(pen, row.points, x, y, c.accent);
    for (const mark of row.marks) {
      const found = mark.event === "detection";
      pen.beginPath();
      pen.arc(x(mark.end_s), y(Math.min(1, mark.score)), 4.5, 0, 7);
      pen.fillStyle = found ? c.good : c.surface;
      pen.strokeStyle = found ? c.surface : c.warn;
      pen.lineWidth = 2;
      pen.fill();
      pen.stroke();
    }
  }
}

function trace(pen, points, x, y, colour) {
  const parts = [];
  for (const [at, value] of points) {
    const part = parts.at(-1);
    if (part && at - part.at(-1)[0] < GAP_S) part.push([at, value]);
    else parts.push([[at, value]]);
  }
  pen.strokeStyle = colour;
  pen.fillStyle = colour;
  pen.lineWidth = 1.6;
  pen.lineJoin = "round";
  for (const part of parts) {
    pen.beginPath();
    part.forEach(([at, value], i) => (i ? pen.lineTo(x(at), y(value)) : pen.moveTo(x(at), y(value))));
    pen.stroke();
    pen.lineTo(x(part.at(-1)[0]), y(0));
    pen.lineTo(x(part[0][0]), y(0));
    pen.globalAlpha = 0.14;
    pen.fill();
    pen.globalAlpha = 1;
  }
}

function drawAxis(pen, c, width, top) {
  pen.strokeStyle = c.line;
  line(pen, 0, top + 0.5, width, top + 0.5);
  pen.fillStyle = c.muted;
  pen.font = "11px system-ui, sans-serif";
  for (let s = 2; s < SPAN_S; s += 2) {
    const at = width * (1 - s / SPAN_S);
    pen.textAlign = "center";
    pen.fillText(`−${s} s`, at, top + 13);
  }
  pen.textAlign = "right";
  pen.fillText("now", width - 2, top + 13);
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

export function colours(element) {
  const style = getComputedStyle(element);
  const names = ["accent", "good", "warn", "bad", "line", "muted", "wave", "voice", "surface", "text", "sunken"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export function rowsOf(models) {
  return models.flatMap((model) => model.keywords.map((keyword, at) => ({
    model: model.name, keyword, at, threshold: model.thresholds[keyword] ?? 1,
  })));
}
