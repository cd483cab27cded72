// Curves over epochs. Runs differ in color, train and val also in dashes.

import { Button, Details, Note, Table, percent, plain } from "../parts.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../preact.js";
import { load, save } from "../request.js";
import { change, findJob, isActive, state } from "../state.js";
import { Term } from "./term.js";

/* global uPlot */

const COLORS = ["#0072b2", "#d55e00", "#009e73", "#c06c9c", "#a87300", "#2f8fc4"]; // 3:1 on light and dark
const HEIGHT_PX = 190;
const PADDED = { pad: 0.1, soft: 0, mode: 3 }; // an end of the y axis, as uPlot has it
const FONT = "12px system-ui";
const MOST_ROWS = 100; // of a table
const LONG = 24; // for the name of a run in a legend
const DARK = matchMedia("(prefers-color-scheme: dark)");
const colors = new Map(load("colors") ?? []); // of runs, by name

DARK.addEventListener("change", () => change({}));

export function Curves({ run }) {
  const [smoothing, setSmoothing] = useState(0);
  const [zoom, setZoom] = useState(null); // [first epoch, last epoch] of both charts
  const { loss, score, most, format, end } = useMemo(() => listSeries(run), [run, state.runs]);
  if (run.rows.length === 1 && !run.others?.length && !isActive(findJob(run.name)))
    return html`<${Note}>Trained for 1 epoch. Curves need more.</${Note}>`;
  if (!end) return html`<${Note}>The curves begin with the first step.</${Note}>`;
  const [from, to] = zoom ?? [0, end];
  const smooth = ({ target }) => setSmoothing(Number(target.value));
  const look = { smoothing, zoom, setZoom };
  return html`<div id="curves">
    <${Chart} title="Loss" series=${loss} format=${(value) => value?.toPrecision(3) ?? ""} ...${look} />
    <${Chart} title="Score" series=${score} format=${format} most=${most} ...${look} />
    <div class="row note">
      <label>
        Smooth <input type="range" min="0" max="0.95" step="0.05" value=${smoothing} onInput=${smooth} />
      </label>
      <${Button} small onClick=${() => setZoom([(from + to) / 2, to])}>Zoom in on the end</${Button}>
      <${Button} small disabled=${!zoom} onClick=${() => setZoom(null)}>Show all epochs</${Button}>
      <span>or drag over a chart; a double click shows all.</span>
    </div>
  </div>`;
}

// Series are {label, points: [[x, y], …], color (a number), isDashed, isThin}.
function Chart({ title, series, format, most = Infinity, smoothing, zoom, setZoom }) {
  const place = useRef();
  const { current: view } = useRef({}); // the plot, which outlives drawings of the page
  const [isOpen, setOpen] = useState(false); // the table
  Object.assign(view, { zoom, setZoom, format });
  useEffect(() => {
    const fit = () => view.plot?.setSize({ width: place.current.clientWidth, height: HEIGHT_PX });
    const sizes = new ResizeObserver(fit);
    sizes.observe(place.current);
    return () => sizes.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (!series.length) return;
    view.plot = new uPlot(choose(place.current, series, view, most), [], place.current);
    return () => {
      view.plot.destroy();
      view.plot = null;
    };
  }, [DARK.matches, JSON.stringify(series.map(({ label, color }) => [label, color]))]);
  useLayoutEffect(() => {
    const shown = smoothing ? series.map((curve) => ({ ...curve, points: smoothen(curve, smoothing) })) : series;
    view.plot?.setData(align(shown));
  }, [series, smoothing, zoom, DARK.matches]);
  const tell = ({ label, points }) => `${label} from ${format(points[0][1])} to ${format(points.at(-1)[1])}`;
  const label = plain(`${title}: ${series.map(tell).join("; ")}`);
  return html`<figure hidden=${!series.length}>
    <figcaption>${title} <${Term} name=${title} /></figcaption>
    <div class="chart" role="img" aria-label=${label} ref=${place}></div>
    <${Details} summary=${`${title} as a table`} onToggle=${({ target }) => setOpen(target.open)}>
      ${isOpen && html`<${Rows} title=${title} series=${series.filter(({ isThin }) => !isThin)} format=${format} />`}
    </${Details}>
  </figure>`;
}

function Rows({ title, series, format }) {
  const [epochs, ...columns] = align(series);
  const rest = Math.ceil(epochs.length / MOST_ROWS);
  const places = [...epochs.keys()].filter((place) => (epochs.length - 1 - place) % rest === 0);
  const rows = places.map((place) => [epochs[place], ...columns.map((column) => format(column[place]))]);
  return html`<${Table} heads=${["epoch", ...series.map(({ label }) => label)]} rows=${rows} caption=${title} />`;
}

// The options of a plot; `view` has what may change, and `most` is the upper limit of a score.
function choose(place, series, view, most) {
  const { color: ink, borderTopColor: stroke } = getComputedStyle(place);
  const lines = { stroke, width: 0.5 };
  const showWhole = (epoch) => (Number.isInteger(epoch) ? epoch : "");
  const axis = { stroke: ink, grid: lines, ticks: lines, font: FONT };
  const select = (plot) => {
    const { left, width } = plot.select;
    if (width) view.setZoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  };
  const showAll = () => () => view.setZoom(null);
  return {
    width: place.clientWidth || 320,
    height: HEIGHT_PX,
    scales: {
      x: { time: false, range: (_, low, high) => view.zoom ?? [low, high] },
      y: { range: { min: PADDED, max: { ...PADDED, hard: most } } },
    },
    cursor: { y: false, drag: { setScale: false, x: true, y: false, dist: 5 }, bind: { dblclick: showAll } },
    hooks: { setSelect: [select] },
    legend: { live: false },
    axes: [
      { ...axis, size: 32, label: "epoch", labelSize: 16, labelFont: FONT, values: (_, ticks) => ticks.map(showWhole) },
      { ...axis, size: 66, values: (_, ticks) => ticks.map(view.format) },
    ],
    series: [{ label: "epoch" }, ...series.map(style)],
  };
}

function style({ label, color, isDashed, isThin }) {
  const stroke = COLORS[color] + (isThin && !DARK.matches ? "99" : ""); // faint, but 3:1 on dark
  const [width, points] = [isThin ? 1 : 2, { show: !isThin, size: 5, fill: stroke }];
  return { label: plain(label), stroke, width, dash: isDashed ? [6, 4] : undefined, points, spanGaps: true };
}

// The name of the score on val in a row of an epoch, such as val_accuracy; "" without val.
export function findMetric(row = {}) {
  const isMetric = (key) => key.startsWith("val_") && key !== "val_loss" && row[key] !== null;
  return Object.keys(row).find(isMetric) ?? "";
}

const isFraction = (metric) => !metric || state.fractions.includes(metric.slice("val_".length));

export function formatScore(metric, value) {
  if (value == null) return "";
  return isFraction(metric) ? percent(value) : value.toPrecision(4);
}

// The losses and scores of a run and its `others`, in the order of the list, and how to draw them.
export function listSeries(run) {
  const places = state.runs.map(({ name }) => name);
  const runs = [run, ...(run.others ?? [])].sort((a, b) => places.indexOf(a.name) - places.indexOf(b.name));
  if (runs.length > 1) chooseColors(runs.map(({ name }) => name));
  const metric = runs.map(({ rows = [] }) => findMetric(rows.findLast(findMetric))).find(Boolean) ?? "";
  const [loss, score] = [[], []];
  for (const { name, rows = [], steps = [] } of runs) {
    const title = name.length > LONG ? `${name.slice(0, LONG / 2)}…${name.slice(-LONG / 2)}` : name;
    const add = (list, what, points, { isDashed = false, isThin = false } = {}) => {
      const label = `${runs.length > 1 ? `${title}: ` : ""}${what}${isDashed ? " (dashed)" : ""}`;
      const color = runs.length > 1 ? colors.get(name) : Number(isDashed);
      if (points.length) list.push({ label, color, points, isDashed, isThin });
    };
    const read = (key) => rows.filter((row) => row[key] != null).map((row) => [row.epoch, row[key]]);
    const stepLosses = steps.map((step) => [step.at, step.loss]);
    add(loss, "train, single steps", stepLosses, { isThin: true });
    add(loss, "val", read("val_loss"), { isDashed: true });
    add(loss, "train", read("train_loss"));
    add(score, metric.replaceAll("_", " "), read(metric), { isDashed: true });
    add(score, "train accuracy", read("train_accuracy"));
  }
  const end = Math.max(0, ...[...loss, ...score].map(({ points }) => points.at(-1)[0]));
  return { loss, score, most: isFraction(metric) ? 1 : Infinity, format: (value) => formatScore(metric, value), end };
}

// Runs keep their colors, also after a reload, unless two of one chart have the same.
function chooseColors(names) {
  const used = names.map((name) => colors.get(name));
  for (const [place, name] of names.entries()) {
    if (colors.has(name) && used.indexOf(used[place]) === place) continue;
    const rank = (color) => [...colors.values()].filter((other) => other === color).length;
    const free = [...COLORS.keys()].filter((color) => !used.includes(color)).sort((a, b) => rank(a) - rank(b));
    colors.set(name, (used[place] = free[0] ?? place % COLORS.length));
  }
  save("colors", [...colors]);
}

// A running mean of the values; the first ones count as much as the later ones.
function smoothen({ points }, weight) {
  let [sum, size] = [0, 0];
  return points.map(([at, value]) => {
    [sum, size] = [weight * sum + value, weight * size + 1];
    return [at, sum / size];
  });
}

// The points of all series over all their x values, `null` where a series has none.
function align(series) {
  const x = [...new Set(series.flatMap(({ points }) => points.map(([at]) => at)))].sort((a, b) => a - b);
  const values = series.map(({ points }) => new Map(points));
  return [x, ...values.map((known) => x.map((at) => known.get(at) ?? null))];
}
