// Names while typing: metrics that the server has, functions that PromQL has.

import { data } from "./api.js";
import { el } from "./dom.js";

const WORDS = "abs absent absent_over_time avg avg_over_time bottomk by ceil changes clamp clamp_max clamp_min count count_over_time count_values day_of_month day_of_week day_of_year days_in_month delta deriv exp floor group group_left group_right histogram_avg histogram_count histogram_fraction histogram_quantile histogram_sum hour idelta ignoring increase irate label_join label_replace last_over_time ln log10 log2 max max_over_time min min_over_time minute month offset on or pi predict_linear present_over_time quantile quantile_over_time rate resets round scalar sgn sort sort_desc sqrt stddev stddev_over_time stdvar sum sum_over_time time timestamp topk unless vector without year".split(" ");
const SHOWN_MAX = 20;

/// The identifier before the caret, if it is one.
function wordBefore(input) {
  const match = /[a-zA-Z_:][a-zA-Z0-9_:]*$/.exec(input.value.slice(0, input.selectionStart));
  return match ? match[0] : "";
}

/// Prefixes before parts of names, short before long.
function matching(names, word) {
  const found = names.filter((name) => name.includes(word) && name !== word);
  const rank = (name) => (name.startsWith(word) ? 0 : 1);
  return found.sort((a, b) => rank(a) - rank(b) || a.length - b.length || (a < b ? -1 : 1)).slice(0, SHOWN_MAX);
}

/// Offers names below `input`, inside `editor`.
export function suggest(editor, input) {
  let names = WORDS;
  let chosen = 0;
  const list = el("ul", { class: "suggestions", role: "listbox", hidden: true });
  editor.append(list);
  data("label/__name__/values", { limit: 20000 }).then((metrics) => { names = [...metrics, ...WORDS]; }, () => {});

  const close = () => { list.hidden = true; };
  const mark = () => [...list.children].forEach((item, index) => {
    item.setAttribute("aria-selected", String(index === chosen));
    if (index === chosen) item.scrollIntoView({ block: "nearest" });
  });
  const take = (name) => {
    const end = input.selectionStart;
    input.setRangeText(name, end - wordBefore(input).length, end, "end");
    close();
    input.focus();
  };
  const open = () => {
    const word = wordBefore(input);
    const found = word.length >= 2 ? matching(names, word) : [];
    chosen = 0;
    list.hidden = found.length === 0;
    list.replaceChildren(...found.map((name) => el("li", { role: "option", pointerdown: (event) => { event.preventDefault(); take(name); } }, name)));
    mark();
  };

  input.addEventListener("input", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) chosen = (chosen + step + list.children.length) % list.children.length;
    else if (event.key === "Tab") take(list.children[chosen].textContent);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter") { close(); return; }
    else return;
    event.preventDefault();
    mark();
  });
}
