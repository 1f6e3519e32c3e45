// Runs of kws new: stages, time left, the DET curve, and the report in a tab of its own.

import { get, post } from "./api.js";
import { attempt, chip, el, empty, fill, number } from "./dom.js";
import { detCurve } from "./det_curve.js";

const STATES = { running: ["running", "accent"], finished: ["finished", "good"], failed: ["failed", "bad"], stopped: ["stopped", "warn"] };
const EVERY_MS = 2000;

export async function show(root) {
  const list = el("div", { className: "stack" });
  root.append(list);
  let timer = null;
  let shown = "";
  const refresh = async () => {
    const found = await get("/api/runs");
    const text = JSON.stringify(found);
    if (text !== shown) {
      shown = text;
      fill(list, ...(found.runs.length ? found.runs.map(card) : [nothing(found.folders)]));
    }
    clearTimeout(timer);
    timer = setTimeout(attempt(refresh), EVERY_MS);
  };
  await refresh();
  return () => clearTimeout(timer);
}

function nothing(folders) {
  return el("div", { className: "card" }, empty("No run of kws new",
    el("span", {}, "Make a model of your own word:"),
    el("pre", {}, 'kws new "hey computer" --out hey_computer.tflite'),
    el("p", { className: "small" }, `Its working folder is looked for in ${folders.join(", ")}; “[ui] runs” names others.`)));
}

function card(run) {
  const [text, kind] = STATES[run.state];
  const left = run.minutes_left === null ? "" : run.minutes_left < 1 ? "less than a minute left" : `about ${Math.round(run.minutes_left)} min left`;
  return el("section", { className: "card run", "aria-label": `Run ${run.phrases.join(", ")}` },
    el("header", {}, el("h2", {}, run.phrases.map((one) => `“${one}”`).join(", ")), chip(text, kind),
      el("span", { className: "muted end num" }, left)),
    run.stages.length ? stages(run.stages) : null,
    run.text && run.state !== "finished" ? el("p", { className: run.state === "failed" ? "remark" : "muted small" }, run.text) : null,
    run.state === "stopped" ? el("p", { className: "muted small" }, "Run the same command again to continue.") : null,
    run.figures ? figures(run.figures) : null,
    el("div", { className: "bar centre" },
      run.has_report ? el("button", { className: run.state === "finished" ? "primary" : "", onclick: attempt(() => openReport(run)) }, "Open the report") : null,
      el("span", { className: "muted small mono path" }, run.folder)));
}

function stages(all) {
  const total = all.reduce((sum, one) => sum + Math.max(one.minutes, 0.5), 0);
  const done = all.filter((one) => one.state === "done").length;
  return el("ol", { className: "stages", "aria-label": `Stage ${Math.min(done + 1, all.length)} of ${all.length}` },
    ...all.map((one) => {
      const made = el("li", { className: one.state, "aria-current": one.state === "now" ? "step" : null }, el("span", {}, one.name));
      made.style.flexGrow = Math.max(one.minutes, 0.5) / total * 100;
      return made;
    }));
}

function figures(found) {
  const own = Object.entries(found.points).flatMap(([name, points]) =>
    points.filter((one) => one.budget === null).map((one) => [name, one]));
  return el("div", { className: "figures" },
    el("figure", {}, detCurve(found.points),
      el("figcaption", { className: "muted small" }, `Misses of ${found.n_words} words (${found.tested_on}), ${number(found.hours, 1)} h of audio; 95 % intervals.`)),
    el("table", {},
      el("caption", {}, "At the model's own threshold"),
      el("thead", {}, el("tr", {}, ...["", "missed", "false alarms an hour"].map((one) => el("th", { scope: "col" }, one)))),
      el("tbody", {}, ...own.map(([name, one]) => el("tr", {}, el("th", { scope: "row" }, name),
        el("td", { className: "num" }, `${number(100 * one.miss_rate, 1)} %`),
        el("td", { className: "num" }, number(one.fa_per_hour, 2)))))));
}

async function openReport(run) {
  const { url } = await post("/api/runs/report", { run: run.id });
  open(url, "_blank", "noopener");
}
