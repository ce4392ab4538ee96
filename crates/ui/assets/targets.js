// Targets by scrape pool.

import { data } from "./api.js";
import { card, count, el, empty, state } from "./dom.js";
import { targetTable } from "./overview.js";

/// What a person asked to see; kept while the view refreshes itself.
const wanted = { text: "", unhealthy: false };

const load = () => data("targets");

function draw({ activeTargets, droppedTargetCounts }, redraw) {
  const pools = Map.groupBy ? Map.groupBy(activeTargets, (target) => target.scrapePool) : group(activeTargets);
  for (const pool of Object.keys(droppedTargetCounts || {})) if (!pools.has(pool)) pools.set(pool, []);
  const sections = [...pools].map(([pool, targets]) => section(pool, targets, (droppedTargetCounts || {})[pool] || 0));
  return [controls(redraw), ...(sections.length ? sections : [card(null, empty("No targets yet. Name some in the configuration under scrape_configs."))])];
}

function group(targets) {
  const pools = new Map();
  for (const target of targets) pools.set(target.scrapePool, [...(pools.get(target.scrapePool) || []), target]);
  return pools;
}

function controls(redraw) {
  const search = el("input", { type: "search", placeholder: "Filter by address or label", "aria-label": "Filter targets", value: wanted.text, change: () => { wanted.text = search.value; redraw(); } });
  const toggle = () => { wanted.unhealthy = !wanted.unhealthy; redraw(); };
  return el("div", { class: "row" }, search, el("button", { type: "button", "aria-pressed": String(wanted.unhealthy), click: toggle }, "Only unhealthy"));
}

function matches(target) {
  const text = wanted.text.toLowerCase();
  const words = [target.scrapeUrl, target.lastError, ...Object.entries(target.labels).map((pair) => pair.join("="))];
  return (!wanted.unhealthy || target.health !== "up") && words.some((word) => word.toLowerCase().includes(text));
}

function section(pool, targets, dropped) {
  const up = targets.filter((target) => target.health === "up").length;
  const visible = targets.filter(matches);
  return el("section", { class: "card" },
    el("header", {}, el("h2", {}, pool, state(up === targets.length ? "up" : "down"), el("small", {}, `${count(up)} of ${count(targets.length)} up${dropped ? `, ${count(dropped)} dropped by relabelling` : ""}`))),
    visible.length ? targetTable(visible) : empty(targets.length ? "No target matches the filter." : "No targets."));
}

export const targets = { load, draw };
