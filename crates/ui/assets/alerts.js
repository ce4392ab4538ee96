// Alerting rules with their alerts: firing first.

import { data } from "./api.js";
import { ago, card, count, el, empty, labels, queryLink, span, state } from "./dom.js";

const STATES = ["firing", "pending", "inactive"];
const shown = new Set(STATES);

async function load() {
  return (await data("rules", { type: "alert" })).groups;
}

function draw(groups, redraw) {
  const rules = groups.flatMap((group) => group.rules.map((rule) => ({ ...rule, group })));
  if (!rules.length) return [card("Alerts", empty("No alerting rules are loaded. Name rule files in the configuration under rule_files."))];
  const visible = STATES.filter((name) => shown.has(name)).flatMap((name) => rules.filter((rule) => rule.state === name));
  return [
    el("div", { class: "row" }, STATES.map((name) => filter(name, rules, redraw))),
    visible.length ? el("section", { class: "card" }, visible.map(ruleDetails)) : card(null, empty("Nothing in the chosen states.")),
  ];
}

function filter(name, rules, redraw) {
  const toggle = () => {
    if (!shown.delete(name)) shown.add(name);
    redraw();
  };
  const number = rules.filter((rule) => rule.state === name).length;
  return el("button", { type: "button", "aria-pressed": String(shown.has(name)), click: toggle }, `${name} ${count(number)}`);
}

function ruleDetails(rule) {
  const id = `rule:${rule.group.file}:${rule.group.name}:${rule.name}:${rule.query}`;
  return el("details", { id, open: rule.state === "firing" },
    el("summary", {}, state(rule.state), el("b", {}, rule.name),
      rule.alerts.length ? el("span", { class: "dim" }, `${count(rule.alerts.length)} active`) : null,
      rule.health === "err" ? state("err") : null),
    el("div", { class: "alert" }, queryLink(rule.query),
      el("div", { class: "dim" }, [`for ${span(rule.duration)}`, rule.keepFiringFor ? `kept firing for ${span(rule.keepFiringFor)}` : "",
        `group ${rule.group.name} in ${rule.group.file}`].filter(Boolean).join(" · ")),
      labels(rule.labels),
      rule.lastError ? el("div", { class: "error" }, rule.lastError) : null),
    rule.alerts.map((alert) => el("div", { class: "alert" },
      el("div", { class: "row apart" }, el("span", { class: "row" }, state(alert.state), labels(alert.labels, ["alertname"])),
        el("span", { class: "dim" }, "active since ", ago(alert.activeAt), `, value ${Number(alert.value)}`)),
      Object.entries(alert.annotations).map(([name, text]) => el("div", {}, el("span", { class: "dim" }, `${name}: `), text)))));
}

export const alerts = { load, draw };
