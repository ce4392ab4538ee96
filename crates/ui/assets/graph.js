// A line graph on a canvas: axes, gaps, a pointer that reads values, a legend that hides lines.

import { el, seriesName, short } from "./dom.js";

const COLOURS = ["#0f9b8e", "#e07b39", "#5b7fd1", "#c94f7c", "#7a9e2f", "#8a63c9", "#d1a12b", "#3b9fc4", "#b4524a", "#5c8a6b"];
const MARGIN = { left: 62, right: 12, top: 10, bottom: 26 };
/// Lines beyond this are named in a note and not drawn: nobody could tell them apart.
const LINES_MAX = 200;

/// Makes a graph of the matrix `result` between `start` and `end`, in seconds.
/// `fromZero` keeps zero in sight; `onZoom(start, end)` is called when a stretch was dragged over.
export function graph(result, { start, end, step, height = 320, legend = true, fromZero = false, name = seriesName, onZoom = null }) {
  const lines = result.slice(0, LINES_MAX).map((series, index) => ({
    name: name(series.metric),
    colour: COLOURS[index % COLOURS.length],
    points: (series.values || []).map(([time, value]) => [time, Number(value)]),
    shown: true,
  }));
  const canvas = el("canvas", { role: "img", "aria-label": `Graph of ${lines.length} series` });
  const tooltip = el("div", { class: "tooltip", hidden: true });
  const frame = el("div", { class: "graph" }, canvas, tooltip);
  const view = { canvas, lines, start, end, step, height, fromZero, pointer: null, drag: null };
  const draw = () => drawAll(view);

  // Drawing within the observer would change the size that it observes.
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(frame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  canvas.addEventListener("pointermove", (event) => { view.pointer = position(event, canvas); draw(); showTooltip(view, tooltip); });
  canvas.addEventListener("pointerleave", () => { view.pointer = null; tooltip.hidden = true; draw(); });
  if (onZoom) zoomable(view, draw, onZoom);

  const more = result.length > LINES_MAX
    ? el("p", { class: "note warn" }, `${result.length - LINES_MAX} more series are not drawn; narrow the query.`) : null;
  return el("div", {}, frame, legend ? legendOf(lines, draw) : null, more);
}

function zoomable(view, draw, onZoom) {
  const { canvas } = view;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    canvas.setPointerCapture(event.pointerId);
    view.drag = position(event, canvas).x;
  });
  canvas.addEventListener("pointerup", (event) => {
    const from = view.drag;
    view.drag = null;
    if (from === null) return;
    const to = position(event, canvas).x;
    const [low, high] = [Math.min(from, to), Math.max(from, to)].map((x) => timeAt(view, x));
    if (Math.abs(to - from) > 8) onZoom(Math.max(view.start, low), Math.min(view.end, high));
    else draw();
  });
}

function position(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

const plotWidth = (view) => Math.max(10, view.canvas.clientWidth - MARGIN.left - MARGIN.right);
const timeAt = (view, x) => view.start + ((x - MARGIN.left) / plotWidth(view)) * (view.end - view.start);

function legendOf(lines, draw) {
  const buttons = lines.map((line) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = line.colour;
    return el("button", { type: "button", "aria-pressed": "true", title: "Click: only this one. Ctrl-click: hide or show it." }, swatch, line.name);
  });
  const update = () => {
    lines.forEach((line, index) => buttons[index].setAttribute("aria-pressed", String(line.shown)));
    draw();
  };
  lines.forEach((line, index) => buttons[index].addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey) {
      line.shown = !line.shown;
    } else {
      const alone = line.shown && lines.every((other) => other === line || !other.shown);
      for (const other of lines) other.shown = alone || other === line;
    }
    update();
  }));
  return el("div", { class: "legend" }, buttons);
}

function drawAll(view) {
  const { canvas, height } = view;
  const width = canvas.clientWidth;
  if (!width) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const paint = canvas.getContext("2d");
  paint.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const colours = { line: style.getPropertyValue("--line"), dim: style.getPropertyValue("--dim") };
  const scale = scaleOf(view);
  drawAxes(paint, view, scale, colours);
  for (const line of view.lines) if (line.shown) drawLine(paint, view, scale, line);
  drawPointer(paint, view, colours);
}

/// The range of the values that are shown, widened to round numbers.
function scaleOf(view) {
  let [low, high] = [Infinity, -Infinity];
  for (const line of view.lines) {
    if (!line.shown) continue;
    for (const [, value] of line.points) {
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) [low, high] = [0, 1];
  // What stays well above zero is shown from zero, unless that would flatten it.
  if (low > 0 && (view.fromZero || low < high * 0.6)) low = 0;
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const unit = roundUnit((high - low) / 5);
  const bottom = Math.floor(low / unit) * unit;
  const top = Math.ceil(high / unit) * unit;
  const plot = view.height - MARGIN.top - MARGIN.bottom;
  const y = (value) => MARGIN.top + plot * (1 - (value - bottom) / (top - bottom));
  const x = (time) => MARGIN.left + plotWidth(view) * ((time - view.start) / (view.end - view.start));
  return { bottom, top, unit, x, y };
}

/// 1, 2 or 5 times a power of ten.
function roundUnit(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 5, 10].map((n) => n * power).find((unit) => unit >= size * 0.999);
}

function drawAxes(paint, view, scale, colours) {
  const right = MARGIN.left + plotWidth(view);
  paint.font = "11px system-ui, sans-serif";
  paint.fillStyle = colours.dim;
  paint.strokeStyle = colours.line;
  paint.lineWidth = 1;
  paint.textAlign = "right";
  paint.textBaseline = "middle";
  for (let index = 0; index <= Math.round((scale.top - scale.bottom) / scale.unit); index++) {
    const value = scale.bottom + index * scale.unit;
    const y = Math.round(scale.y(value)) + 0.5;
    paint.beginPath();
    paint.moveTo(MARGIN.left, y);
    paint.lineTo(right, y);
    paint.stroke();
    paint.fillText(short(Math.abs(value) < scale.unit / 1e6 ? 0 : value), MARGIN.left - 8, y);
  }
  paint.textAlign = "center";
  paint.textBaseline = "top";
  for (const [time, text] of timeTicks(view)) {
    paint.fillText(text, scale.x(time), view.height - MARGIN.bottom + 8);
  }
}

/// Round local times, as many as have room.
function timeTicks(view) {
  const lengths = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];
  const range = view.end - view.start;
  const room = Math.max(2, Math.floor(plotWidth(view) / 90));
  const length = lengths.find((one) => range / one <= room) || range / room;
  const offset = new Date(view.start * 1000).getTimezoneOffset() * 60;
  const format = (time) => {
    const date = new Date(time * 1000);
    if (length >= 86400) return date.toLocaleDateString([], { month: "short", day: "numeric" });
    const clock = { hour: "2-digit", minute: "2-digit", second: length < 60 ? "2-digit" : undefined };
    const text = date.toLocaleTimeString([], clock);
    return range > 86400 ? `${date.toLocaleDateString([], { month: "short", day: "numeric" })} ${text}` : text;
  };
  const ticks = [];
  const first = Math.ceil((view.start - offset) / length) * length + offset;
  for (let time = first; time <= view.end; time += length) ticks.push([time, format(time)]);
  return ticks;
}

function drawLine(paint, view, scale, line) {
  paint.strokeStyle = line.colour;
  paint.fillStyle = line.colour;
  paint.lineWidth = 1.6;
  paint.lineJoin = "round";
  paint.beginPath();
  let previous = null;
  const lonely = [];
  line.points.forEach(([time, value], index) => {
    if (!Number.isFinite(value)) { previous = null; return; }
    // More than one step without a value is a gap.
    const joined = previous !== null && time - previous < view.step * 1.5;
    const next = line.points[index + 1];
    if (joined) paint.lineTo(scale.x(time), scale.y(value));
    else paint.moveTo(scale.x(time), scale.y(value));
    if (!joined && !(next && Number.isFinite(next[1]) && next[0] - time < view.step * 1.5)) lonely.push([time, value]);
    previous = time;
  });
  paint.stroke();
  for (const [time, value] of lonely) {
    paint.beginPath();
    paint.arc(scale.x(time), scale.y(value), 2, 0, 7);
    paint.fill();
  }
}

function drawPointer(paint, view, colours) {
  if (!view.pointer || view.pointer.x < MARGIN.left) return;
  paint.strokeStyle = colours.dim;
  paint.fillStyle = colours.dim;
  if (view.drag !== null) {
    paint.globalAlpha = 0.15;
    paint.fillRect(view.drag, MARGIN.top, view.pointer.x - view.drag, view.height - MARGIN.top - MARGIN.bottom);
    paint.globalAlpha = 1;
  }
  paint.beginPath();
  paint.moveTo(Math.round(view.pointer.x) + 0.5, MARGIN.top);
  paint.lineTo(Math.round(view.pointer.x) + 0.5, view.height - MARGIN.bottom);
  paint.stroke();
}

/// Values at the pointer: of the lines nearest to it, nearest first.
function showTooltip(view, tooltip) {
  const time = timeAt(view, view.pointer.x);
  const scale = scaleOf(view);
  const near = view.lines
    .filter((line) => line.shown)
    .map((line) => ({ line, point: nearest(line.points, time) }))
    .filter(({ point }) => point && Math.abs(point[0] - time) <= view.step && Number.isFinite(point[1]))
    .sort((a, b) => Math.abs(scale.y(a.point[1]) - view.pointer.y) - Math.abs(scale.y(b.point[1]) - view.pointer.y))
    .slice(0, 6);
  tooltip.hidden = near.length === 0 || view.pointer.x < MARGIN.left;
  if (tooltip.hidden) return;
  tooltip.replaceChildren(
    el("div", { class: "dim" }, new Date(near[0].point[0] * 1000).toLocaleString()),
    ...near.map(({ line, point }) => {
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = line.colour;
      return el("div", { class: "row" }, swatch, el("b", {}, short(point[1])), el("span", {}, line.name));
    }));
  const right = view.pointer.x > view.canvas.clientWidth / 2;
  tooltip.style.top = `${Math.max(8, view.pointer.y - 30)}px`;
  tooltip.style.left = right ? "auto" : `${view.pointer.x + 34}px`;
  tooltip.style.right = right ? `${view.canvas.clientWidth - view.pointer.x + 34}px` : "auto";
}

/// The point nearest in time, by halving.
function nearest(points, time) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < time) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [points[low - 1], points[low]];
  return before && (!after || time - before[0] < after[0] - time) ? before : after;
}
