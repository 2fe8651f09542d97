// Words, numbers and elements of the page.

export const $ = (id) => document.getElementById(id);
export const number = new Intl.NumberFormat("en-US");
export const say = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
export const counted = (count, what) => `${number.format(count)} ${what}${count === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 100) return `${seconds < 10 ? seconds.toFixed(1).replace(/\.0$/, "") : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60 ? ` ${String(minutes % 60).padStart(2, "0")} min` : "";
  return hours < 48 ? `${hours} h${rest}` : `${Math.round(hours / 24)} days`;
}

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function rows(table, values, numeric) {
  const body = table.querySelector("tbody");
  const text = JSON.stringify(values);
  if (body.dataset.text === text) return;
  body.dataset.text = text;
  body.replaceChildren(...values.map((row) => {
    const line = element("tr");
    line.append(...row.map((value, i) => element("td", value, numeric.includes(i) ? "number" : "")));
    return line;
  }));
}
