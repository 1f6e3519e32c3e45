// What a threshold means: by the calibration table of a model, and by the clips of this room.

// Interpolates a value over rows [[threshold, value]]; outside of them the nearest one holds.
function interpolated(rows, threshold) {
  const sorted = [...rows].sort((a, b) => a[0] - b[0]);
  if (threshold <= sorted[0][0]) return sorted[0][1];
  for (let i = 1; i < sorted.length; i++) {
    const [t0, v0] = sorted[i - 1];
    const [t1, v1] = sorted[i];
    if (threshold <= t1) return t1 === t0 ? v1 : v0 + ((v1 - v0) * (threshold - t0)) / (t1 - t0);
  }
  return sorted.at(-1)[1];
}

// A row of the table is for all keywords together; each is taken to have an equal share of it.
export function falseAlarms(points, keyword, threshold, nKeywords) {
  const rows = points
    .filter((one) => keyword in one.thresholds)
    .map((one) => [one.thresholds[keyword], Math.log(one.false_alarms_per_hour / nKeywords)]);
  if (!rows.length) return null;
  const thresholds = rows.map(([at]) => at);
  const bound = threshold > Math.max(...thresholds) ? "less"
    : threshold < Math.min(...thresholds) ? "more" : "";
  return { perHour: Math.exp(interpolated(rows, threshold)), bound };
}

export function missRate(points, keyword, threshold) {
  const rows = points
    .filter((one) => keyword in one.thresholds && one.miss_rate !== null && one.miss_rate !== undefined)
    .map((one) => [one.thresholds[keyword], one.miss_rate]);
  return rows.length ? interpolated(rows, threshold) : null;
}

export const UNKNOWN = "_unknown_";
export const UNSURE = "_unsure_";

// right: said; wrong: a false alarm; null: nobody has listened yet.
export function verdict(clip) {
  if (clip.label === null || clip.label === UNSURE) return null;
  return clip.label === clip.keyword ? "right" : "wrong";
}

export function inRoom(room, model, keyword, threshold) {
  const clips = room.clips.filter((one) => one.model === model && one.keyword === keyword);
  const over = clips.filter((one) => one.score >= threshold);
  const right = clips.filter((one) => verdict(one) === "right");
  const count = (list, wanted) => list.filter((one) => verdict(one) === wanted).length;
  return {
    clips,
    nDetected: over.length,
    nFalse: count(over, "wrong"),
    nRight: count(over, "right"),
    nOpen: over.filter((one) => verdict(one) === null).length,
    nMissed: right.filter((one) => one.score < threshold).length,
    nSaid: right.length,
    falsePerHour: room.hours ? count(over, "wrong") / room.hours : null,
    openPerHour: room.hours ? over.filter((one) => verdict(one) === null).length / room.hours : null,
  };
}
