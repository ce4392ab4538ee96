// What this server is, holds and was told.

import { data } from "./api.js";
import { ago, badge, card, count, el, short, table } from "./dom.js";

async function load() {
  const [build, runtime, tsdb, flags, config, managers] = await Promise.all([
    data("status/buildinfo"), data("status/runtimeinfo"), data("status/tsdb"),
    data("status/flags"), data("status/config"), data("alertmanagers"),
  ]);
  return { build, runtime, tsdb, flags, config, managers };
}

function list(entries) {
  const shown = entries.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return el("dl", {}, shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function draw({ build, runtime, tsdb, flags, config, managers }) {
  const head = tsdb.headStats;
  const time = (ms) => (ms > 0 && ms < 8e15 ? new Date(ms).toLocaleString() : "");
  return [
    card("Server", list([
      ["Version", build.version], ["Revision", build.revision], ["Compiler", build.goVersion],
      ["Started", ago(runtime.startTime)], ["Host", runtime.hostname], ["Directory", runtime.CWD],
      ["Configuration", el("span", {}, runtime.reloadConfigSuccess ? badge("loaded", "good") : badge("last reload failed", "bad"), " ", ago(runtime.lastConfigTime))],
      ["Retention", runtime.storageRetention], ["Cores", String(runtime.GOMAXPROCS)],
      ["Damage found", runtime.corruptionCount ? badge(String(runtime.corruptionCount), "bad") : "none"],
      ["Alertmanagers", managers.activeAlertmanagers.map(({ url }) => el("div", {}, url)).concat(managers.activeAlertmanagers.length ? [] : ["none"])],
    ])),
    card("Data in memory", list([
      ["Series", count(head.numSeries)], ["Chunks", count(head.chunkCount)], ["Label pairs", count(head.numLabelPairs)],
      ["Bytes per series", count(tsdb.memoryInBytesPerSeries)], ["Series that have ended", count(tsdb.storage.staleSeries)],
      ["From", time(head.minTime)], ["Until", time(head.maxTime)],
    ])),
    el("div", { class: "charts" },
      statistics("Series by metric", "Series", tsdb.seriesCountByMetricName),
      statistics("Values by label", "Values", tsdb.labelValueCountByLabelName),
      statistics("Series by label pair", "Series", tsdb.seriesCountByLabelValuePair),
      statistics("Memory by label", "Bytes", tsdb.memoryInBytesByLabelName),
      statistics("Memory by part", "Bytes", tsdb.memoryInBytesByPart),
      statistics("Metrics that grew", "New series", tsdb.growth.seriesCountByMetricName),
      statistics("Labels that grew", "New values", tsdb.growth.labelValueCountByLabelName)),
    tsdb.damage.found.length ? card("Damage", table([{ name: "File" }, { name: "Offset", number: true }, { name: "What" }],
      tsdb.damage.found.map(({ file, offset, reason }) => [file, String(offset), reason]))) : null,
    el("section", { class: "card" }, el("details", { id: "config", open: location.pathname.endsWith("/config") },
      el("summary", {}, el("b", {}, "Configuration")), el("pre", {}, config.yaml))),
    el("section", { class: "card" }, el("details", { id: "flags", open: location.pathname.endsWith("/flags") },
      el("summary", {}, el("b", {}, "Flags")), list(Object.entries(flags).sort()))),
  ].filter(Boolean);
}

function statistics(title, unit, rows) {
  if (!rows.length) return null;
  return card(title, table([{ name: "Name" }, { name: unit, number: true }], rows.map(({ name, value }) => [name, short(value)])));
}

export const status = { load, draw };
