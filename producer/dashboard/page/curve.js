// The curves of the last while, as SVG.

import { number, duration, $ } from "./words.js";

export const MINUTES = 30;

const SMOOTHED = 3;      // points, of ten seconds each: a chunk ends at once, and its documents with it
const AHEAD = 6;

export function curves(samples) {
  const last = samples.length ? samples[samples.length - 1][0] : Date.now() / 1000;
  const rates = samples.map(([when], i) => [when, mean(samples, i, SMOOTHED)]);
  const etas = samples.map(([when, , left], i) => [when, eta(left, mean(samples, i, AHEAD))]);
  curve($("rate-curve"), rates, last, (value) => number.format(Math.round(10 * value) / 10), (most) => roundedUp(most, 1));
  curve($("eta-curve"), etas, last, duration, (most) => roundedUp(most, most > 7200 ? 3600 : most > 120 ? 60 : 1));
}

function mean(samples, i, count) {
  const some = samples.slice(Math.max(0, i + 1 - count), i + 1);
  return some.reduce((sum, [, rate]) => sum + rate, 0) / some.length;
}

function eta(left, rate) {
  if (!left) return 0;
  return rate > 0 ? left / rate : null;
}

// Not the very highest: while a run begins, an ETA may be many times what it is afterwards.
function highest(points) {
  const values = points.map(([, value]) => value ?? 0).filter((value) => value > 0).sort((a, b) => a - b);
  const median = values[Math.floor(values.length / 2)] || 0;
  return Math.max(1, Math.min(values[values.length - 1] || 0, 4 * median));
}

function roundedUp(value, unit) {
  const units = Math.max(value / unit, 1), power = 10 ** Math.floor(Math.log10(units));
  return unit * [1, 2, 4, 6, 10].map((step) => step * power).find((step) => step >= units);
}

function curve(svg, points, last, words, rounded) {
  const width = Math.max(60, svg.clientWidth), height = 130, left = 62, bottom = 18, top = 8;
  const most = rounded(highest(points));
  const x = (when) => left + (width - left) * (1 - (last - when) / (60 * MINUTES));
  const y = (value) => top + (height - top - bottom) * (1 - Math.min(value, most) / most);
  const made = [];
  const draw = (name, attributes, text) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text !== undefined) one.textContent = text;
    made.push(one);
  };
  for (const value of [0, most / 2, most]) {
    draw("line", { class: "rule", x1: left, x2: width, y1: y(value), y2: y(value) });
    draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, words(value));
  }
  for (const minutes of [30, 20, 10, 0]) {
    const anchor = minutes === 0 ? "end" : minutes === 30 ? "start" : "middle";
    draw("text", { x: x(last - 60 * minutes), y: height - 2, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now");
  }
  for (const part of pieces(points)) {
    const line = part.map(([when, value], i) => `${i ? "L" : "M"}${x(when).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    draw("path", { class: "area", d: `${line}L${x(part[part.length - 1][0]).toFixed(1)} ${y(0)}L${x(part[0][0]).toFixed(1)} ${y(0)}Z` });
    draw("path", { class: "trace", d: line });
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...made);
}

function pieces(points) {
  const found = [];
  let part = null;
  for (const point of points) {
    if (point[1] === null) { part = null; continue; }
    if (!part) found.push(part = []);
    part.push(point);
  }
  return found;
}
