// Rule groups and how their evaluations went.

import { data } from "./api.js";
import { ago, card, el, empty, queryLink, span, state, table } from "./dom.js";

const load = async () => (await data("rules", { exclude_alerts: "true" })).groups;

function draw(groups) {
  if (!groups.length) return [card("Rules", empty("No rules are loaded. Name rule files in the configuration under rule_files."))];
  return groups.map((group) => el("section", { class: "card" },
    el("header", {}, el("h2", {}, group.name, el("small", {}, group.file)),
      el("span", { class: "dim" }, `every ${span(group.interval)}, took ${span(group.evaluationTime)}, `, ago(group.lastEvaluation))),
    ruleTable(group.rules)));
}

function ruleTable(rules) {
  const columns = ["Health", "Rule", "Query", "Took"].map((name) => ({ name, number: name === "Took" }));
  return table(columns, rules.map((rule) => [
    state(rule.health),
    [el("b", {}, rule.name), el("div", { class: "dim" }, rule.type === "alerting" ? `alert, for ${span(rule.duration)}` : "record")],
    [queryLink(rule.query), rule.lastError ? el("div", { class: "error" }, rule.lastError) : null],
    span(rule.evaluationTime),
  ]));
}

export const rules = { load, draw };
