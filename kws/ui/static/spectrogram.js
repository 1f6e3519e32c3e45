// Waveform and spectrogram of a clip on one canvas, computed here: the server only sends the file.

import { colours } from "./scope.js";

const N = 512;
const HOP = 128;
const TOP_HZ = 8000;
const WAVE_HEIGHT = 64;
const PICTURE_HEIGHT = 190;
const AXIS_HEIGHT = 18;
const LEAST_RANGE_DB = 30;

export const RATE_HZ = 16000;

export async function decode(content) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  return (await context.decodeAudioData(content)).getChannelData(0);
}

function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let size = 2; size <= n; size <<= 1) {
    const half = size >> 1;
    for (let k = 0; k < half; k++) {
      const angle = (-2 * Math.PI * k) / size;
      const wr = Math.cos(angle);
      const wi = Math.sin(angle);
      for (let i = k; i < n; i += size) {
        const tr = wr * re[i + half] - wi * im[i + half];
        const ti = wr * im[i + half] + wi * re[i + half];
        re[i + half] = re[i] - tr;
        im[i + half] = im[i] - ti;
        re[i] += tr;
        im[i] += ti;
      }
    }
  }
}

// Levels in dB re full scale: one array of N / 2 bins for each hop.
export function spectrogram(samples) {
  const window = Float32Array.from({ length: N }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / N));
  const columns = [];
  for (let start = 0; start + N <= samples.length; start += HOP) {
    const re = new Float32Array(N);
    const im = new Float32Array(N);
    for (let i = 0; i < N; i++) re[i] = samples[start + i] * window[i];
    fft(re, im);
    columns.push(Float32Array.from({ length: N / 2 }, (_, i) =>
      10 * Math.log10((re[i] ** 2 + im[i] ** 2) / (N / 4) ** 2 + 1e-10)));
  }
  return columns;
}

// Draws a clip; word: [start, end] in seconds. Returns what draws the place that is played.
export function drawClip(canvas, samples, word) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = WAVE_HEIGHT + PICTURE_HEIGHT + AXIS_HEIGHT;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const c = colours(canvas);
  const seconds = samples.length / RATE_HZ;
  const x = (at) => (at / seconds) * width;
  pen.fillStyle = c.voice;
  pen.fillRect(x(word[0]), 0, x(word[1]) - x(word[0]), WAVE_HEIGHT);
  drawWave(pen, samples, width, c);
  drawPicture(pen, spectrogram(samples), width, c, seconds);
  pen.strokeStyle = c.warn;
  pen.setLineDash([4, 3]);
  for (const at of word) stroke(pen, x(at), 0, x(at), WAVE_HEIGHT + PICTURE_HEIGHT);
  pen.setLineDash([]);
  drawTimes(pen, seconds, x, c);
  const still = new OffscreenCanvas(canvas.width, canvas.height);
  still.getContext("2d").drawImage(canvas, 0, 0);
  return (at) => {
    pen.clearRect(0, 0, width, height);
    pen.drawImage(still, 0, 0, width, height);
    if (at === null) return;
    pen.strokeStyle = c.accent;
    pen.lineWidth = 2;
    stroke(pen, x(at), 0, x(at), WAVE_HEIGHT + PICTURE_HEIGHT);
    pen.lineWidth = 1;
  };
}

function drawWave(pen, samples, width, c) {
  const each = samples.length / width;
  let most = 0.02;
  for (const sample of samples) most = Math.max(most, Math.abs(sample));
  pen.fillStyle = c.wave;
  for (let i = 0; i < width; i++) {
    let low = 0;
    let high = 0;
    for (let k = Math.floor(i * each); k < (i + 1) * each && k < samples.length; k++) {
      low = Math.min(low, samples[k]);
      high = Math.max(high, samples[k]);
    }
    const half = (WAVE_HEIGHT - 10) / 2 / most;
    pen.fillRect(i, WAVE_HEIGHT / 2 - high * half - 0.5, 1, (high - low) * half + 1);
  }
}

function drawPicture(pen, columns, width, c, seconds) {
  if (!columns.length) return;
  const bins = Math.round((N * TOP_HZ) / RATE_HZ);
  const image = new ImageData(columns.length, bins);
  const [low, high] = [rgb(pen, c.sunken), rgb(pen, c.text)];
  const middle = rgb(pen, c.accent);
  // From a little above the noise to the loudest: what stands out is seen in quiet rooms, too.
  const levels = columns.flatMap((column) => [...column.slice(0, bins)]).sort((a, b) => a - b);
  const floor = levels[Math.floor(levels.length / 2)];
  const range = Math.max(LEAST_RANGE_DB, levels.at(-1) - 6 - floor);
  columns.forEach((column, i) => {
    for (let k = 0; k < bins; k++) {
      const share = Math.min(1, Math.max(0, (column[k] - floor) / range));
      const [from, to, part] = share < 0.6 ? [low, middle, share / 0.6] : [middle, high, (share - 0.6) / 0.4];
      const at = 4 * ((bins - 1 - k) * columns.length + i);
      for (let n = 0; n < 3; n++) image.data[at + n] = from[n] + (to[n] - from[n]) * part;
      image.data[at + 3] = 255;
    }
  });
  const small = new OffscreenCanvas(columns.length, bins);
  small.getContext("2d").putImageData(image, 0, 0);
  const lead = (N / 2 / RATE_HZ / seconds) * width;
  pen.fillStyle = c.sunken;
  pen.fillRect(0, WAVE_HEIGHT, width, PICTURE_HEIGHT);
  pen.drawImage(small, lead, WAVE_HEIGHT, width - 2 * lead, PICTURE_HEIGHT);
  pen.fillStyle = c.text;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  for (const khz of [2, 4, 6]) {
    pen.globalAlpha = 0.75;
    pen.fillText(`${khz} kHz`, 4, WAVE_HEIGHT + PICTURE_HEIGHT * (1 - (khz * 1000) / TOP_HZ) + 4);
    pen.globalAlpha = 1;
  }
}

function drawTimes(pen, seconds, x, c) {
  pen.fillStyle = c.muted;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  const step = seconds > 6 ? 2 : seconds > 2 ? 0.5 : 0.25;
  for (let at = step; at < seconds - step / 3; at += step) {
    pen.fillText(`${at.toFixed(step < 1 ? 2 : 0)} s`, x(at), WAVE_HEIGHT + PICTURE_HEIGHT + 13);
  }
}

function rgb(pen, colour) {
  pen.fillStyle = colour;
  return [1, 3, 5].map((at) => parseInt(pen.fillStyle.slice(at, at + 2), 16));
}

function stroke(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}
