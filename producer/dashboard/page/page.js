// The page of `mongosplit dashboard`: it shows what the server tells, and asks for nothing else but
// the facts of one chunk at a time.

import { MINUTES, curves } from "./curve.js";
import * as map from "./map.js";
import { $, counted, duration, element, number, rows, say } from "./words.js";

const SILENT_MS = 25000;

let samples = [];        // [seconds since 1970, documents/s, how many are pending]
let source = null, heard = 0;

function show(facts) {
  $("nothing").hidden = facts.run !== null;
  $("run").hidden = facts.run === null;
  choices(facts.runs);
  if (facts.run === null) {
    map.begin(null);
    say("state", "");
    say("source", "");
    document.title = "mongosplit";
    return;
  }
  map.begin(facts.run);
  document.title = `${facts.run}: ${facts.state}`;
  say("state", `${facts.run}: ${facts.state}`);
  say("source", [`splits ${facts.source}`, facts.selected].filter(Boolean).join(" · "));
  tiles(facts);
  legend(facts);
  cards(facts);
}

function choices(runs) {
  const select = $("runs"), text = JSON.stringify(runs);
  if (select.dataset.text === text) return;
  select.dataset.text = text;
  const before = select.value || wanted();
  select.replaceChildren(new Option("newest run", ""), ...runs.map(({ run, state }) => new Option(`${run} (${state})`, run)));
  if (before && !runs.some(({ run }) => run === before)) select.append(new Option(before, before));
  select.value = before;
}

function tiles(facts) {
  const { documents, chunks } = facts;
  const done = documents.migrated + documents.quarantined;
  const share = documents.source ? Math.min(100, 100 * done / documents.source) : 0;
  say("migrated", number.format(documents.migrated));
  say("whole", number.format(documents.source));
  $("bar").firstElementChild.style.width = `${share}%`;
  $("bar").setAttribute("aria-valuenow", share.toFixed(0));
  say("rate", number.format(Math.round(facts.rate)));
  say("why", facts.pace.held_back_by ? `held back by ${facts.pace.held_back_by}` : "");
  $("why").classList.toggle("warn", Boolean(facts.pace.held_back_by));
  const eta = facts.eta_seconds;
  say("eta", eta === 0 ? "done" : duration(eta));
  say("eta-at", eta ? `at ${new Date(Date.now() + 1000 * eta).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}` : "");
  const follower = facts.follower;
  say("lag", follower ? duration(follower.lag_seconds) : "–");
  $("lag").classList.toggle("warn", Boolean(follower && follower.unwell));
  say("backlog", follower ? `${counted(follower.backlog, "document")} to sync` : "not followed");
  say("verified", number.format(chunks.verified));
  say("chunks", number.format(Object.values(chunks).reduce((sum, count) => sum + count, 0)));
  say("mismatches", facts.mismatches ? counted(facts.mismatches, "mismatch").replace("mismatchs", "mismatches") : "no mismatch");
  $("mismatches").className = facts.mismatches ? "bad" : "quiet";
}

function legend(facts) {
  const list = $("legend"), counts = { ...facts.chunks, ...facts.marked };
  if (!list.children.length) {
    for (const [kind, words] of map.LEGEND) {
      const item = element("li"), swatch = element("i");
      swatch.style.setProperty("--of", `var(--${kind})`);
      item.dataset.kind = kind;
      item.append(swatch, element("span", words), element("b"));
      list.append(item);
    }
  }
  for (const item of list.children) {
    const count = counts[item.dataset.kind];
    item.lastElementChild.textContent = number.format(count);
    item.classList.toggle("none", !count);
  }
  const said = map.LEGEND.filter(([kind]) => counts[kind]).map(([kind, words]) => `${number.format(counts[kind])} ${words}`);
  $("map").setAttribute("aria-label", `Chunk map: ${said.join(", ") || "no chunk"}`);
}

function cards(facts) {
  say("next", facts.next.split("   ")[0]);
  say("next-why", [facts.why, (facts.next.split("   ")[1] || "").replace(/^\(|\)$/g, "")].filter(Boolean).join(" · "));
  const pace = facts.pace;
  say("pace", pace.sentence);
  $("pace").className = pace.held_back_by ? "warn" : "";
  const known = pace.limit === pace.sentence ? [] : [["limit", pace.limit]];
  if (pace.schedule) known.push(["schedule", pace.schedule]);
  known.push(["signals", pace.signals], ...Object.entries(pace.observed).map(([name, value]) => [name, number.format(value)]));
  const list = $("pace-facts"), text = JSON.stringify(known);
  if (list.dataset.text !== text) {
    list.dataset.text = text;
    list.replaceChildren(...known.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  }
  const follower = facts.follower;
  say("follower", follower ? follower.sentence : "The source of this run is not followed.");
  $("follower").className = !follower ? "quiet" : follower.unwell ? "warn" : "";
  $("foreign").replaceChildren(...(follower ? follower.foreign : []).map((sentence) => element("li", sentence, "warn")));
  const { quarantined } = facts.documents;
  const released = facts.released ? `, ${number.format(facts.released)} of them released` : "";
  say("quarantined", quarantined ? `${counted(quarantined, "document")} cannot be split${released}; the source still has them.` : "No document is in quarantine.");
  $("quarantined").className = quarantined ? "" : "quiet";
  $("quarantine").hidden = !facts.quarantine.length;
  rows($("quarantine"), facts.quarantine.map((row) => [row.reason, row.path || "–", number.format(row.count)]), [2]);
  $("failures").hidden = !facts.failures.length;
  rows($("failures").querySelector("table"), facts.failures.map((row) => [number.format(row.chunk), row.sentence]), [0]);
  $("no-history").hidden = facts.history.length > 0;
  $("history").hidden = !facts.history.length;
  rows($("history"), facts.history.map((row) => [row.at.replace("T", " ").replace("Z", ""), row.actor, row.sentence]), []);
}

const wanted = () => new URLSearchParams(location.search).get("run") || "";

function live(is, words) { $("live").dataset.is = is; say("live", words); }

function trouble(sentence) {
  $("trouble").hidden = !sentence;
  say("trouble", sentence);
  $("run").classList.toggle("old", Boolean(sentence));
}

function connect() {
  if (source) source.close();
  live("waiting", "connecting");
  source = new EventSource(`/api/looks?${new URLSearchParams({ run: wanted() })}`);
  source.addEventListener("look", (event) => {
    heard = Date.now();
    const told = JSON.parse(event.data);
    show(told.facts);
    if (told.cells !== undefined) {
      map.whole(told.cells);
      samples = told.samples;
    } else {
      map.change(told.changes);
      for (const sample of told.samples) {
        while (samples.length && samples[samples.length - 1][0] >= sample[0]) samples.pop();
        samples.push(sample);
      }
      while (samples.length && samples[0][0] < samples[samples.length - 1][0] - 60 * MINUTES) samples.shift();
    }
    if (told.facts.run !== null) curves(samples);
    trouble("");
    live("live", `live · ${new Date().toLocaleTimeString()}`);
  });
  source.addEventListener("trouble", (event) => {
    heard = Date.now();
    const told = JSON.parse(event.data);
    trouble([told.sentence, told.hint].filter(Boolean).join(" — "));
    live("away", "nothing new");
  });
  source.onopen = () => { heard = Date.now(); };
  source.onerror = () => {
    live("away", "reconnecting");
    trouble("The dashboard does not answer: it has ended, or the way to it is cut. What is shown is old.");
    // A browser gives up for good when it was refused, as after a restart with another token.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  };
}

setInterval(() => {
  if (heard && Date.now() - heard > SILENT_MS && $("live").dataset.is === "live") live("away", "nothing new");
}, 5000);

$("runs").addEventListener("change", () => {
  const run = $("runs").value;
  history.replaceState(null, "", run ? `/?${new URLSearchParams({ run })}` : "/");
  map.begin(null);
  samples = [];
  connect();
});
function redraw() {
  map.redraw();
  curves(samples);
}

let resizing = 0;
window.addEventListener("resize", () => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(redraw); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
connect();
