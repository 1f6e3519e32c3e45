// The DET curve: misses over false alarms an hour, with intervals, as SVG.

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 520;
const HEIGHT = 280;
const LEFT = 58;
const BOTTOM = 36;
const LOWEST = 0.05;

function svg(tag, attributes, text) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function detCurve(points) {
  const all = Object.values(points).flat();
  const most = Math.max(0.1, ...all.map((one) => one.miss_high));
  const top = [0.1, 0.2, 0.3, 0.5, 1].find((one) => one >= Math.min(most, 1)) ?? 1;
  const highest = Math.max(2, ...all.map((one) => one.fa_per_hour));
  const x = (rate) => LEFT + (WIDTH - LEFT - 14) * Math.log(Math.max(rate, LOWEST) / LOWEST) / Math.log(highest / LOWEST);
  const y = (rate) => 12 + (HEIGHT - BOTTOM - 12) * (1 - Math.min(rate, top) / top);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "det",
    "aria-label": `Detection error tradeoff: ${describe(points)}` });
  for (let i = 0; i <= 4; i++) {
    const rate = (top * i) / 4;
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 14, y1: y(rate), y2: y(rate) }),
      svg("text", { x: LEFT - 8, y: y(rate) + 4, "text-anchor": "end" }, `${Math.round(1000 * rate) / 10} %`));
  }
  for (const rate of [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20].filter((one) => one <= highest)) {
    root.append(svg("line", { class: "grid", x1: x(rate), x2: x(rate), y1: 12, y2: HEIGHT - BOTTOM }),
      svg("text", { x: x(rate), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, rate === LOWEST ? "≤0.05" : rate));
  }
  root.append(svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "false alarms an hour"));
  Object.entries(points).forEach(([name, list], i) => curve(root, name, list, i, x, y));
  return root;
}

function curve(root, name, list, i, x, y) {
  const budgets = list.filter((one) => one.budget !== null).sort((a, b) => a.fa_per_hour - b.fa_per_hour);
  const group = svg("g", { class: `curve c${i % 3}` });
  group.append(svg("polyline", { points: budgets.map((one) => `${x(one.fa_per_hour)},${y(one.miss_rate)}`).join(" ") }));
  for (const one of budgets) {
    group.append(
      svg("line", { class: "interval", x1: x(one.fa_per_hour), x2: x(one.fa_per_hour), y1: y(one.miss_low), y2: y(one.miss_high) }),
      svg("circle", { cx: x(one.fa_per_hour), cy: y(one.miss_rate), r: 3.5 }));
  }
  for (const one of list.filter(({ budget }) => budget === null)) {
    const [cx, cy] = [x(one.fa_per_hour), y(one.miss_rate)];
    group.append(svg("path", { class: "own", d: `M${cx} ${cy - 7} l7 7 l-7 7 l-7 -7 z` }));
  }
  const last = budgets.at(-1) ?? list.at(-1);
  if (last) {
    group.append(svg("text", { x: x(last.fa_per_hour) - 6, y: y(last.miss_rate) - 8, "text-anchor": "end", class: "name" }, name));
  }
  root.append(group);
}

function describe(points) {
  return Object.entries(points).map(([name, list]) => {
    const at = list.find((one) => one.budget === 0.5) ?? list[0];
    return at ? `${name}, ${Math.round(1000 * at.miss_rate) / 10} % missed at ${at.fa_per_hour.toFixed(2)} an hour` : name;
  }).join("; ");
}
