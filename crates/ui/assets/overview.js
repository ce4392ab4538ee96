// The first page: is everything well, and if not, what.

import { data } from "./api.js";
import { ago, card, count, el, empty, labels, span, state, table } from "./dom.js";
import { graph } from "./graph.js";

const WINDOW = 3600;
const STEP = 30;

/// What a host shows of itself; a chart without data is left out.
const CHARTS = [
  ["CPU busy, %", '100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[2m])))'],
  ["Memory used, %", "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)"],
  ["Disk used, %", '100 * (1 - max by (instance, mountpoint) (node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs|ramfs"} / node_filesystem_size_bytes))'],
  ["Network received, B/s", 'sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[2m]))'],
];

async function charts() {
  const end = Math.floor(Date.now() / 1000 / STEP) * STEP;
  const range = { start: end - WINDOW, end, step: STEP };
  const loaded = await Promise.all(CHARTS.map(async ([title, query]) => {
    try {
      return { title, query, range, result: (await data("query_range", { query, ...range })).result };
    } catch {
      // While the server recovers there are no charts, and the rest of the page says why.
      return { title, query, range, result: [] };
    }
  }));
  return loaded.filter(({ result }) => result.length > 0);
}

/// Charts change slowly and cost queries: they are kept for a step.
let kept = { at: 0, charts: [] };

async function load() {
  if (Date.now() - kept.at > STEP * 1000) kept = { at: Date.now(), charts: await charts() };
  const [targets, alerts, notices, runtime] = await Promise.all([
    data("targets", { state: "active" }), data("alerts"), data("/api/tidewatch/notices"), data("status/runtimeinfo"),
  ]);
  return { targets: targets.activeTargets, alerts: alerts.alerts, notices, runtime, charts: kept.charts };
}

function draw({ targets, alerts, notices, runtime, charts }) {
  const firing = alerts.filter((alert) => alert.state === "firing");
  const pending = alerts.length - firing.length;
  const up = targets.filter((target) => target.health === "up").length;
  const down = targets.filter((target) => target.health === "down");
  const tile = (href, kind, value, text) => el("a", { class: `card tile ${kind}`, href }, el("b", {}, value), text);
  const running = (new Date(runtime.serverTime || Date.now()) - new Date(runtime.startTime)) / 1000;
  return [
    el("div", { class: "tiles" },
      tile("alerts", firing.length ? "bad" : "good", count(firing.length), firing.length === 1 ? "alert firing" : "alerts firing"),
      tile("alerts", pending ? "warn" : "", count(pending), "pending"),
      tile("targets", down.length ? "bad" : "good", `${up} / ${targets.length}`, "targets up"),
      tile("status", "", count(notices.series), "active series"),
      tile("status", "", span(running), "running")),
    notices.notices.length ? card("Good to know", notices.notices.map((text) => el("p", { class: "note warn" }, text))) : null,
    quickQuery(),
    alerts.length ? card("Alerts", alertTable([...firing, ...alerts.filter((alert) => alert.state !== "firing")].slice(0, 20))) : null,
    charts.length ? el("div", { class: "charts" }, charts.map(chart)) : null,
    card("Targets", targets.length ? targetTable([...down, ...targets.filter((target) => target.health !== "down")].slice(0, 50))
      : empty("No targets yet. Name some in the configuration under scrape_configs.")),
  ].filter(Boolean);
}

function quickQuery() {
  return el("form", { class: "row", action: "graph", method: "get" },
    el("input", { name: "expr", "aria-label": "PromQL query", placeholder: "Ask in PromQL, for example: rate(node_network_receive_bytes_total[5m])", spellcheck: "false", autocomplete: "off", class: "grow" }),
    el("button", { class: "main" }, "Query"));
}

function chart({ title, query, range, result }) {
  const name = (metric) => Object.values(metric).filter((value) => value !== metric.__name__).join(" ") || title;
  return el("section", { class: "card" },
    el("header", {}, el("h2", {}, el("a", { href: `graph?expr=${encodeURIComponent(query)}&tab=graph` }, title)), el("small", { class: "dim" }, "last hour")),
    graph(result, { ...range, height: 170, legend: result.length > 1, fromZero: true, name }));
}

export function alertTable(alerts) {
  const columns = ["State", "Alert", "Labels", "Active", "Value"].map((name) => ({ name, number: name === "Value" }));
  return table(columns, alerts.map((alert) => [
    state(alert.state),
    [el("b", {}, alert.labels.alertname || ""), el("div", { class: "dim" }, alert.annotations.summary || alert.annotations.description || "")],
    labels(alert.labels, ["alertname"]),
    ago(alert.activeAt),
    String(Number(alert.value)),
  ]));
}

export function targetTable(targets) {
  const columns = ["State", "Target", "Labels", "Last scrape", "Took"].map((name) => ({ name, number: name === "Took" }));
  return table(columns, targets.map((target) => [
    state(target.health),
    [target.scrapeUrl, target.lastError ? el("div", { class: "error" }, target.lastError) : null],
    labels(target.labels),
    ago(target.lastScrape),
    span(target.lastScrapeDuration),
  ]));
}

export const overview = { load, draw };
