// The frame of the page: which view the address means, when it is refreshed, what went wrong.

import { data } from "./api.js";
import { el, span } from "./dom.js";
import { alerts } from "./alerts.js";
import { overview } from "./overview.js";
import { query } from "./query.js";
import { rules } from "./rules.js";
import { status } from "./status.js";
import { targets } from "./targets.js";

/// Every view: where it is, and how it is made. `load` fetches what `draw` shows, again every
/// `refresh` seconds; a view with `start` looks after itself.
const VIEWS = [
  { name: "Overview", path: "./", match: ["", "service-discovery"], refresh: 5, ...overview },
  { name: "Query", path: "graph", match: ["graph", "query"], ...query },
  { name: "Alerts", path: "alerts", match: ["alerts"], refresh: 5, ...alerts },
  { name: "Targets", path: "targets", match: ["targets"], refresh: 5, ...targets },
  { name: "Rules", path: "rules", match: ["rules"], refresh: 15, ...rules },
  { name: "Status", path: "status", match: ["status", "config", "flags", "tsdb-status"], refresh: 15, ...status },
];

const page = location.pathname.split("/").pop();
const view = VIEWS.find(({ match }) => match.includes(page)) || VIEWS[0];
const main = document.getElementById("view");
const banner = document.getElementById("banner");
const freshness = document.getElementById("freshness");

document.getElementById("nav").append(...VIEWS.map((one) =>
  el("a", { href: one.path, "aria-current": one === view ? "page" : null }, one.name)));

function showError(error) {
  banner.hidden = !error;
  banner.textContent = error ? error.message : "";
}

/// Which parts a person has opened, so that drawing anew leaves them open.
const opened = new Map();
main.addEventListener("toggle", (event) => {
  if (event.target.id) opened.set(event.target.id, event.target.open);
}, true);

function replace(nodes) {
  main.replaceChildren(...nodes);
  for (const details of main.querySelectorAll("details[id]")) {
    if (opened.has(details.id)) details.open = opened.get(details.id);
  }
}

/// Whether drawing now would disturb: text is being selected or typed.
function busy() {
  const typing = main.contains(document.activeElement) && /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  return typing || String(getSelection()).length > 0;
}

let updated = 0;
async function refresh(force) {
  try {
    const loaded = await view.load();
    showError(null);
    updated = Date.now();
    if (force || !busy()) replace(view.draw(loaded, () => refresh(true)));
  } catch (error) {
    showError(error);
    if (!updated) replace([el("p", { class: "empty" }, "Nothing to show yet.")]);
  }
}

function tick() {
  const seconds = (Date.now() - updated) / 1000;
  freshness.textContent = updated ? (seconds < 2 ? "up to date" : `updated ${span(seconds)} ago`) : "";
}

async function names() {
  try {
    const { title, phase } = await data("/api/tidewatch/notices");
    document.getElementById("title").textContent = title;
    document.title = `${view.name} – ${title}`;
    if (phase === "recovering") showError(new Error("The server is still reading its data: queries wait until it is complete."));
  } catch {
    // The view says what is wrong.
  }
}

if (view.start) {
  view.start(main, showError);
} else {
  refresh(true);
  setInterval(() => { if (!document.hidden) refresh(false); }, view.refresh * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(false); });
  setInterval(tick, 1000);
}
names();
