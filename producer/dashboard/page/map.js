// The chunk map: a cell for each chunk in the colour of its state, and the facts of the chosen one.

import { $, counted, number, say } from "./words.js";

const KINDS = { p: "pending", c: "claimed", m: "migrated", v: "verified", f: "failed", r: "rolled_back", x: "mismatches" };
export const LEGEND = [
  ["pending", "pending"], ["claimed", "claimed"], ["migrated", "migrated"], ["verified", "verified"],
  ["failed", "failed"], ["rolled_back", "rolled back"],
  ["mismatches", "with mismatches"], ["quarantined", "with quarantined documents"],
];
const HINT = "Point at a chunk, tap it, or walk with the arrow keys.";
const TALLEST = 340, SHARE = .38, WIDEST_CELL = 26;

let cells = [];          // a letter for each chunk, from chunk 1 on
let grid = { cell: 1, columns: 1, rows: 1, ratio: 1 };
let colours = {};
let run = null;
let chosen = 0;          // the chunk whose facts are shown

export function begin(of) {
  if (of === run) return;
  run = of;
  cells = [];
  chosen = 0;
  say("chunk", HINT);
}

export function whole(short) {
  cells = expand(short);
  redraw();
}

export function change(spans) {
  for (const [first, letter, count] of spans) cells.fill(letter, first - 1, first - 1 + count);
  if (!spans.length) return;
  draw(spans);
  if (chosen && spans.some(([first, , count]) => first <= chosen && chosen < first + count)) ask(chosen);
}

export function redraw() {
  measure();
  draw();
}

function expand(short) {
  const found = [];
  for (const [, count, letter] of short.matchAll(/(\d*)(\D)/g)) {
    for (let i = 0; i < (count ? Number(count) : 1); i++) found.push(letter);
  }
  return found;
}

function measure() {
  const canvas = $("map"), ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth), count = Math.max(1, cells.length);
  const tallest = Math.max(TALLEST, SHARE * window.innerHeight);
  let cell = WIDEST_CELL;
  while (cell > 1 && Math.ceil(count / Math.floor(width / cell)) * cell > tallest) cell--;
  const columns = Math.max(1, Math.min(Math.floor(width / cell), count));
  grid = { cell, columns, rows: Math.ceil(count / columns), ratio };
  canvas.style.height = `${grid.rows * cell}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(grid.rows * cell * ratio);
  const style = getComputedStyle(document.documentElement);
  colours = Object.fromEntries(LEGEND.map(([kind]) => [kind, style.getPropertyValue(`--${kind}`).trim()]));
  colours.text = style.getPropertyValue("--text").trim();
}

function paint(context, i) {
  const { cell, columns } = grid, letter = cells[i];
  const gap = cell >= 12 ? 2 : cell >= 5 ? 1 : 0, size = cell - gap;
  const x = (i % columns) * cell, y = Math.floor(i / columns) * cell;
  context.clearRect(x, y, cell, cell);
  if (letter === "-") return;
  const kind = KINDS[letter.toLowerCase()], marked = letter !== letter.toLowerCase();
  context.fillStyle = colours[marked && cell < 7 && kind !== "mismatches" ? "quarantined" : kind];
  context.fillRect(x, y, size, size);
  if (marked && cell >= 7) {
    const half = Math.max(3, Math.round(size / 2));
    context.fillStyle = "#16181b";
    context.fillRect(x + size - half - 1, y + size - half - 1, half + 1, half + 1);
    context.fillStyle = colours.quarantined;
    context.fillRect(x + size - half, y + size - half, half, half);
  }
}

function draw(spans) {
  const context = $("map").getContext("2d");
  context.setTransform(grid.ratio, 0, 0, grid.ratio, 0, 0);
  if (spans) {
    for (const [first, , count] of spans) for (let i = first - 1; i < first - 1 + count; i++) paint(context, i);
  } else {
    context.clearRect(0, 0, $("map").clientWidth, grid.rows * grid.cell);
    for (let i = 0; i < cells.length; i++) paint(context, i);
  }
  if (chosen && grid.cell >= 5) {
    context.strokeStyle = colours.text;
    context.lineWidth = 1.5;
    const i = chosen - 1, size = grid.cell - (grid.cell >= 12 ? 2 : 1);
    context.strokeRect((i % grid.columns) * grid.cell + .75, Math.floor(i / grid.columns) * grid.cell + .75, size - 1.5, size - 1.5);
  }
}

let asking = 0;
function choose(n) {
  if (n < 1 || n > cells.length || cells[n - 1] === "-" || n === chosen) return;
  const before = chosen;
  chosen = n;
  draw(before ? [[before, "", 1]] : []);
  say("chunk", `Chunk ${number.format(n)}`);
  clearTimeout(asking);
  asking = setTimeout(() => ask(n), 120);
}

async function ask(n) {
  const of = run;
  let text;
  try {
    const answer = await fetch(`/api/chunk?${new URLSearchParams({ run: of, n })}`);
    text = answer.ok ? chunkWords(await answer.json()) : `Chunk ${number.format(n)}: ${(await answer.text()).trim()}`;
  } catch {
    text = `Chunk ${number.format(n)}: the dashboard does not answer`;
  }
  if (n === chosen && run === of) say("chunk", text);
}

function chunkWords(chunk) {
  const said = [chunk.state.replace("_", " ") + (chunk.tail ? " (tail chunk)" : "")];
  if (chunk.claimed_by.length) said.push(`claimed by ${chunk.claimed_by.join(", ")}`);
  said.push(`${number.format(chunk.documents)} of ${number.format(chunk.planned)} planned documents`);
  if (chunk.quarantined) said.push(`${number.format(chunk.quarantined)} in quarantine`);
  if (chunk.mismatches) said.push(`${number.format(chunk.mismatches)} mismatches`);
  said.push(counted(chunk.attempts, "attempt"));
  if (chunk.milliseconds !== null) said.push(`took ${number.format(chunk.milliseconds)} ms`);
  if (chunk.finished) said.push(`ended ${chunk.finished.replace("T", " ").replace("Z", " UTC")}`);
  if (chunk.error) said.push(chunk.error);
  return `Chunk ${number.format(chunk.n)}: ${said.join(" · ")}`;
}

function at(event) {
  const box = $("map").getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / grid.cell);
  if (column >= grid.columns || column < 0) return 0;
  return Math.floor((event.clientY - box.top) / grid.cell) * grid.columns + column + 1;
}

$("map").addEventListener("pointermove", (event) => choose(at(event)));
$("map").addEventListener("click", (event) => choose(at(event)));
$("map").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns }[event.key];
  if (!step) return;
  event.preventDefault();
  choose(Math.min(cells.length, Math.max(1, chosen ? chosen + step : 1)));
});
