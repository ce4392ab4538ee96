// The query page: an expression, its values now as a table, its past as a graph.

import { ApiError, ask } from "./api.js";
import { count, el, empty, labels, span, table } from "./dom.js";
import { graph } from "./graph.js";
import { suggest } from "./suggest.js";

const RANGES = [["5m", 300], ["15m", 900], ["1h", 3600], ["3h", 10800], ["12h", 43200], ["1d", 86400], ["1w", 604800], ["4w", 2419200]];
/// Rows of a table; more would make a browser slow and nobody reads them.
const ROWS_MAX = 2000;
/// Points of a graph: about one for each few pixels.
const POINTS = 300;

/// The address holds what is asked, so that a query can be handed on; Prometheus' own
/// addresses (`g0.expr` and so on) are understood too.
function fromAddress() {
  const params = new URLSearchParams(location.search);
  const get = (...names) => names.map((name) => params.get(name)).find((value) => value !== null) ?? "";
  const tab = get("tab", "g0.tab");
  const range = get("range", "g0.range_input");
  return {
    expr: get("expr", "g0.expr"),
    tab: tab === "graph" || tab === "0" ? "graph" : "table",
    range: (RANGES.find(([name]) => name === range) || [null, Number(range)])[1] || 3600,
    end: Number(get("end")) || null,
  };
}

function toAddress(wanted) {
  const params = new URLSearchParams();
  if (wanted.expr) params.set("expr", wanted.expr);
  params.set("tab", wanted.tab);
  params.set("range", wanted.range);
  if (wanted.end) params.set("end", wanted.end);
  history.replaceState(null, "", `?${params}`);
}

function start(main, showError) {
  const wanted = fromAddress();
  const input = el("textarea", { "aria-label": "PromQL query", placeholder: "PromQL, for example: sum by (job) (up)", spellcheck: "false", autocapitalize: "off", rows: "2" });
  input.value = wanted.expr;
  const output = el("div", { "aria-live": "polite" });
  const note = el("span", { class: "dim" });
  const controls = el("div", { class: "row" });
  let running = null;

  const run = async () => {
    wanted.expr = input.value.trim();
    toAddress(wanted);
    drawControls();
    if (!wanted.expr) { output.replaceChildren(empty("Type a query above.")); return; }
    if (running) running.abort();
    const mine = (running = new AbortController());
    note.textContent = "running …";
    const began = performance.now();
    try {
      const content = await (wanted.tab === "graph" ? runRange : runInstant)(wanted, mine.signal, zoom);
      showError(null);
      if (mine !== running) return;
      output.replaceChildren(...content.nodes);
      note.textContent = `${count(content.size)} series, ${span((performance.now() - began) / 1000)}`;
    } catch (error) {
      if (error.name === "AbortError") return;
      note.textContent = "";
      if (!(error instanceof ApiError)) throw error;
      output.replaceChildren(el("p", { class: "note bad" }, error.message));
    }
  };
  const zoom = (from, to) => {
    wanted.range = Math.max(10, Math.round(to - from));
    wanted.end = Math.round(to);
    run();
  };
  const move = (change) => { change(); run(); };

  function drawControls() {
    const tab = (name, text) => el("button", { type: "button", role: "tab", "aria-selected": String(wanted.tab === name), click: () => move(() => { wanted.tab = name; }) }, text);
    const known = RANGES.some(([, seconds]) => seconds === wanted.range);
    const ranges = el("select", { "aria-label": "Range", change: () => move(() => { wanted.range = Number(ranges.value); }) },
      (known ? RANGES : [[span(wanted.range), wanted.range], ...RANGES]).map(([name, seconds]) => el("option", { value: seconds, selected: seconds === wanted.range }, name)));
    const shift = (factor) => () => move(() => {
      const end = (wanted.end || Date.now() / 1000) + factor * wanted.range;
      wanted.end = end >= Date.now() / 1000 ? null : Math.round(end);
    });
    controls.replaceChildren(...[
      el("span", { class: "row", role: "tablist" }, tab("table", "Table"), tab("graph", "Graph")),
      wanted.tab === "graph" ? ranges : null,
      el("button", { type: "button", title: "Earlier", "aria-label": "Earlier", click: shift(-0.5) }, "‹"),
      el("span", { class: "dim" }, wanted.end ? `until ${new Date(wanted.end * 1000).toLocaleString()}` : "until now"),
      wanted.end ? el("button", { type: "button", title: "Later", "aria-label": "Later", click: shift(0.5) }, "›") : null,
      wanted.end ? el("button", { type: "button", click: () => move(() => { wanted.end = null; }) }, "Now") : null,
      note,
    ].filter(Boolean));
  }

  const editor = el("form", { class: "editor", submit: (event) => { event.preventDefault(); run(); } }, input);
  // Registered first: a suggestion that takes the Enter key keeps it from the query.
  suggest(editor, input);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.defaultPrevented) { event.preventDefault(); run(); }
  });
  const button = el("button", { type: "button", class: "main", click: run }, "Run");
  main.replaceChildren(
    el("section", { class: "card" }, el("div", { class: "pad editor-pad" }, editor, el("div", { class: "row apart" }, controls, button))),
    el("section", { class: "card" }, output));
  input.focus();
  run();
}

/// Warnings and infos of an answer.
function notes({ warnings = [], infos = [] }) {
  return [...warnings.map((text) => el("p", { class: "note warn" }, text)), ...infos.map((text) => el("p", { class: "note dim" }, text))];
}

async function runInstant(wanted, signal) {
  const time = wanted.end || Date.now() / 1000;
  const answer = await ask("query", { query: wanted.expr, time, limit: ROWS_MAX }, signal);
  const { resultType, result } = answer.data;
  const single = resultType === "scalar" || resultType === "string";
  const rows = single ? [[resultType, result[1]]] : result.map((series) => [labels(series.metric), instantValue(series)]);
  const columns = [{ name: single ? "Type" : "Series" }, { name: "Value", number: resultType !== "matrix" }];
  const content = rows.length ? table(columns, rows) : empty("The query has no result at this time.");
  return { size: rows.length, nodes: [...notes(answer), content] };
}

function instantValue(series) {
  if (series.value) return series.value[1];
  if (series.histogram) return histogram(series.histogram[1]);
  const at = (time) => new Date(time * 1000).toLocaleString();
  return el("span", {},
    (series.values || []).map(([time, value]) => el("div", {}, `${value} @ ${at(time)}`)),
    (series.histograms || []).map(([time, value]) => el("div", {}, histogram(value), ` @ ${at(time)}`)));
}

function histogram({ count: number, sum, buckets = [] }) {
  const brackets = [["(", "]"], ["[", ")"], ["(", ")"], ["[", "]"]];
  const text = buckets.map(([kind, low, high, value]) => `${brackets[kind][0]}${low}, ${high}${brackets[kind][1]}: ${value}`);
  return el("span", { title: text.join("\n") }, `count ${number}, sum ${sum}, ${buckets.length} buckets`);
}

async function runRange(wanted, signal, onZoom) {
  const end = wanted.end || Math.floor(Date.now() / 1000);
  const step = Math.max(1, Math.ceil(wanted.range / POINTS));
  const start = end - wanted.range;
  const answer = await ask("query_range", { query: wanted.expr, start, end, step }, signal);
  const { result } = answer.data;
  const onlyHistograms = result.length > 0 && result.every((series) => !series.values);
  const content = onlyHistograms ? empty("Native histograms are shown in the table only.")
    : result.length ? graph(result, { start, end, step, height: 380, onZoom }) : empty("The query has no result in this range.");
  return { size: result.length, nodes: [...notes(answer), content] };
}

export const query = { start };
