// Elements, texts and times. Whatever comes from outside becomes a text node here, never markup.

/// Makes an element. Attributes that are functions become listeners, `class` and the like are set
/// as they are; children are nodes or texts, and what is null or false is left out.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const badge = (text, kind) => el("span", { class: `badge ${kind}` }, text);

/// Health and states, each in its colour.
const KINDS = { up: "good", ok: "good", inactive: "good", down: "bad", err: "bad", firing: "bad", pending: "warn" };
export const state = (text) => badge(text, KINDS[text] || "");

/// A label set, without the names in `hidden`.
export function labels(set, hidden = []) {
  const pairs = Object.entries(set).filter(([name]) => !hidden.includes(name));
  return el("span", { class: "labels" }, pairs.map(([name, value]) => el("span", { class: "label" }, `${name}="${value}"`)));
}

/// A series' name as PromQL writes it.
export function seriesName(metric) {
  const { __name__: name = "", ...rest } = metric;
  const pairs = Object.entries(rest).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return pairs.length || !name ? `${name}{${pairs.join(", ")}}` : name;
}

/// A table whose cells know their column's name, for screens too narrow for columns.
export function table(columns, rows) {
  const kind = (column) => (column.number ? { class: "number" } : {});
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col", ...kind(column) }, column.name)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) =>
      el("td", { "data-name": columns[index].name, ...kind(columns[index]) }, el("span", {}, cell))))))));
}

export function card(title, ...content) {
  return el("section", { class: "card" }, title ? el("header", {}, el("h2", {}, title)) : null, content);
}

export const empty = (text) => el("p", { class: "empty" }, text);

/// A link that opens an expression on the query page.
export const queryLink = (expression) =>
  el("a", { class: "query-link", href: `graph?expr=${encodeURIComponent(expression)}` }, el("code", {}, expression));

/// Whether a time was ever set: Go's zero time is in the year 1.
const isSet = (text) => text && !text.startsWith("0001-");

/// `12 s ago`, with the exact time when pointed at.
export function ago(text) {
  if (!isSet(text)) return el("span", { class: "dim" }, "never");
  const time = new Date(text);
  return el("time", { datetime: text, title: time.toLocaleString() }, `${span((Date.now() - time) / 1000)} ago`);
}

/// A length of time in its two largest units.
export function span(seconds) {
  seconds = Math.max(0, seconds) || 0;
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => seconds >= length);
  const [name, length] = units[first];
  const next = units[first + 1];
  const rest = next ? Math.floor((seconds % length) / next[1]) : 0;
  return `${Math.floor(seconds / length)} ${name}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

/// A number short enough to read: `1.25 M`, `0.0031`.
export function short(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
  for (const [unit, factor] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= factor) return `${trim(value / factor)} ${unit}`;
  }
  return size !== 0 && size < 0.001 ? value.toExponential(2) : trim(value);
}

const trim = (value) => String(Number(value.toPrecision(4)));

export const count = (value) => Number(value).toLocaleString("en");
