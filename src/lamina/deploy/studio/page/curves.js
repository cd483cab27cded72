// Curves over epochs. Runs differ in color, train and val also in dashes.

/* global uPlot */

import { Details, Note, Table, percent, plain, useKept } from "./parts.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";
import { state } from "./store.js";

// 3:1 on light and dark
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#c06c9c", "#a87300", "#2f8fc4"];
const HEIGHT_PX = 190;
const FONT = "12px system-ui";
const MOST_ROWS = 100; // of a table
const DARK = matchMedia("(prefers-color-scheme: dark)");
// of runs, by name; each keeps its color for as long as its curves are shown
const colors = new Map();

export function Curves({ run }) {
  const [smoothing, setSmoothing] = useState(0);
  const [zoom, setZoom] = useState(null); // [first epoch, last epoch] of both charts
  const { rows, steps, others } = run;
  const { loss, score, format, end } = useKept(() => listSeries(run), [rows, steps, others, state.runs]);
  if (!end) return html`<${Note}>The curves begin with the first step.</${Note}>`;
  const zoomIn = () => {
    const [from, to] = zoom ?? [0, end];
    setZoom([(from + to) / 2, to]);
  };
  const look = { smoothing, zoom, setZoom };
  return html`<div id="curves">
    <${Chart} title="Loss" series=${loss} format=${formatLoss} ...${look} />
    <${Chart} title="Score" series=${score} format=${format} ...${look} />
    <div class="row note">
      <label
        >Smooth
        <input
          type="range"
          min="0"
          max="0.95"
          step="0.05"
          value=${smoothing}
          onInput=${({ target }) => setSmoothing(Number(target.value))}
      /></label>
      <button type="button" class="small" onClick=${zoomIn}>Zoom in on the end</button>
      <button type="button" class="small" disabled=${!zoom} onClick=${() => setZoom(null)}>Show all epochs</button>
      <span>or drag over a chart; a double click shows all.</span>
    </div>
  </div>`;
}

// Series are {label, points: [[x, y], …], color (a number), isDashed, isThin}.
function Chart({ title, series, format, smoothing, zoom, setZoom }) {
  const place = useRef();
  const view = useRef({}); // of the plot, which outlives drawings of the page
  const [isDark, setDark] = useState(DARK.matches);
  const [isOpen, setOpen] = useState(false); // the table
  view.current.zoom = zoom;
  useEffect(() => {
    const recolor = () => setDark(DARK.matches);
    DARK.addEventListener("change", recolor);
    return () => {
      DARK.removeEventListener("change", recolor);
      view.current.sizes?.disconnect();
      view.current.plot?.destroy();
    };
  }, []);
  useLayoutEffect(() => {
    if (!series.length) return;
    const { current } = view;
    const values = align(smoothing ? series.map((curve) => ({ ...curve, points: smooth(curve, smoothing) })) : series);
    const kind = JSON.stringify([isDark, series.map(({ label, color }) => [label, color])]);
    if (current.kind === kind) return current.plot.setData(values);
    current.plot?.destroy();
    current.plot = new uPlot(choose(place.current, series, format, view, setZoom), values, place.current);
    current.kind = kind;
    const fit = () => current.plot.setSize({ width: place.current.clientWidth, height: HEIGHT_PX });
    current.sizes ??= new ResizeObserver(fit);
    current.sizes.observe(place.current);
  }, [series, smoothing, zoom, isDark]);
  const ends = series.map(
    ({ label, points }) => `${label} from ${format(points[0][1])} to ${format(points.at(-1)[1])}`,
  );
  return html`<figure hidden=${!series.length}>
    <figcaption>${title}</figcaption>
    <div class="chart" role="img" aria-label=${plain(`${title}: ${ends.join("; ")}`)} ref=${place}></div>
    <${Details} summary=${`${title} as a table`} onToggle=${({ target }) => setOpen(target.open)}>
      ${isOpen && html`<${Rows} title=${title} series=${series} format=${format} />`}
    </${Details}>
  </figure>`;
}

function Rows({ title, series, format }) {
  const rows = useKept(() => {
    const [epochs, ...columns] = align(series.filter(({ isThin }) => !isThin));
    const rest = Math.ceil(epochs.length / MOST_ROWS);
    const show = (epoch, place) => [
      String(Number(epoch.toFixed(2))),
      ...columns.map((column) => (column[place] === null ? "" : format(column[place]))),
    ];
    return epochs.map(show).filter((_, place) => (epochs.length - 1 - place) % rest === 0);
  }, [series]);
  const heads = ["epoch", ...series.filter(({ isThin }) => !isThin).map(({ label }) => label)];
  return html`<${Table} heads=${heads} rows=${rows} caption=${title} />`;
}

// The options of a plot; `view` has the zoom of the moment.
function choose(place, series, format, view, setZoom) {
  const { color: ink, borderTopColor: stroke } = getComputedStyle(place);
  const lines = { stroke, width: 0.5 };
  const axis = { stroke: ink, grid: lines, ticks: lines, font: FONT };
  const select = (plot) => {
    const { left, width } = plot.select;
    if (width) setZoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  };
  const showAll = () => () => setZoom(null);
  return {
    width: place.clientWidth || 320,
    height: HEIGHT_PX,
    scales: { x: { time: false, range: (_, low, high) => view.current.zoom ?? [low, high] } },
    cursor: { y: false, drag: { setScale: false, x: true, y: false, dist: 5 }, bind: { dblclick: showAll } },
    hooks: { setSelect: [select] },
    legend: { live: false },
    axes: [
      { ...axis, size: 32, label: "epoch", labelSize: 16, labelFont: FONT },
      { ...axis, size: 66, values: (_, ticks) => ticks.map(format) },
    ],
    series: [{ label: "epoch" }, ...series.map(style)],
  };
}

function style({ label, color, isDashed, isThin }) {
  const stroke = COLORS[color % COLORS.length];
  return {
    label: plain(label),
    stroke: isThin ? `${stroke}99` : stroke,
    width: isThin ? 1 : 2,
    dash: isDashed ? [6, 4] : undefined,
    points: { show: !isThin, size: 5 },
    spanGaps: true,
  };
}

// The losses and scores of a run, of the one that it came from and of those that it is compared
// with, in the order of the list; the format of the scores, and the last epoch.
function listSeries(run) {
  const places = state.runs.map(({ name }) => name);
  const runs = [run, ...(run.others ?? [])].sort((a, b) => places.indexOf(a.name) - places.indexOf(b.name));
  const isMany = runs.length > 1;
  const loss = [];
  const score = [];
  let metric = "";
  for (const name of colors.keys()) if (runs.every((shown) => shown.name !== name)) colors.delete(name);
  for (const { name, rows = [], steps = [] } of runs) {
    const free = COLORS.findIndex((_, color) => ![...colors.values()].includes(color));
    if (!colors.has(name)) colors.set(name, free < 0 ? colors.size % COLORS.length : free);
    const begin = isMany ? `${name}: ` : "";
    const add = (list, text, key, isDashed) => {
      const points = rows.filter((row) => row[key] != null).map((row) => [row.epoch, row[key]]);
      const color = isMany ? colors.get(name) : Number(isDashed);
      if (points.length) list.push({ label: `${begin}${text}${isDashed ? " (dashed)" : ""}`, color, isDashed, points });
    };
    add(loss, "train", "train_loss", false);
    add(loss, "val", "val_loss", true);
    add(score, "train accuracy", "train_accuracy", false);
    metric ||= Object.keys(rows.at(-1) ?? {}).find((key) => key.startsWith("val_") && key !== "val_loss") ?? "";
    if (metric) add(score, metric.replaceAll("_", " "), metric, true);
    const points = steps.map(({ at, loss: value }) => [at, value]);
    const thin = { label: `${begin}train, single steps`, color: isMany ? colors.get(name) : 0, isThin: true, points };
    if (points.length) loss.push(thin);
  }
  const isFraction = !metric || state.fractions.includes(metric.slice("val_".length));
  const format = (value) => (value == null ? "" : isFraction ? percent(value) : value.toPrecision(4));
  const end = Math.max(0, ...[...loss, ...score].map(({ points }) => points.at(-1)[0]));
  return { loss: loss.reverse(), score: score.reverse(), format, end };
}

function formatLoss(value) {
  return value == null ? "" : value.toPrecision(3);
}

// A running mean of the values; the first ones count as much as the later ones.
function smooth({ points }, weight) {
  let [sum, size] = [0, 0];
  return points.map(([at, value]) => {
    sum = weight * sum + value;
    size = weight * size + 1;
    return [at, sum / size];
  });
}

// The points of all series over all their x values, `null` where a series has none.
function align(series) {
  const x = [...new Set(series.flatMap(({ points }) => points.map(([at]) => at)))].sort((a, b) => a - b);
  return [
    x,
    ...series.map(({ points }) => {
      const known = new Map(points);
      return x.map((at) => known.get(at) ?? null);
    }),
  ];
}
