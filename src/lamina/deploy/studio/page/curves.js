// Curves over epochs. Runs differ in color, train and val also in dashes.

/* global uPlot */

import { make, percent, tabulate } from "./elements.js";
import { state } from "./shared.js";

// 3:1 on light and dark
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#c06c9c", "#a87300", "#2f8fc4"];
const HEIGHT_PX = 190;

export class Curves {
  // `format` turns a value into text.
  constructor(place, title, format) {
    this.title = title;
    this.format = format;
    this.drawing = make("div", { className: "drawing", role: "img" });
    this.table = make("details", {}, make("summary", {}, `${title} as a table`));
    this.table.addEventListener("toggle", () => this.table.open && this.fillTable());
    this.figure = make(
      "figure",
      { className: "curves", hidden: true },
      make("figcaption", {}, title),
      this.drawing,
      this.table,
    );
    place.append(this.figure);
    this.plot = null;
    this.series = [];
    new ResizeObserver(() => this.plot?.setSize({ width: this.drawing.clientWidth, height: HEIGHT_PX })).observe(
      this.drawing,
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  // Series are {label, points: [[x, y], …], color (a number), isDashed, isThin}.
  show(series) {
    const shown = series.filter(({ points }) => points.length);
    this.figure.hidden = !shown.length;
    if (!shown.length) return;
    const isSame =
      this.plot &&
      shown.length === this.series.length &&
      shown.every(
        ({ label, color }, place) => label === this.series[place].label && color === this.series[place].color,
      );
    this.series = shown;
    this.drawing.setAttribute("aria-label", this.describe());
    if (isSame) this.plot.setData(align(shown));
    else this.rebuild();
    if (this.table.open) this.fillTable();
  }

  describe() {
    const ends = this.series.map(
      ({ label, points }) => `${label} from ${this.format(points[0][1])} to ${this.format(points.at(-1)[1])}`,
    );
    return `${this.title}: ${ends.join("; ")}`;
  }

  fillTable() {
    const shown = this.series.filter(({ isThin }) => !isThin);
    const [x, ...columns] = align(shown);
    const rows = x.map((epoch, place) => [
      String(Number(epoch.toFixed(2))),
      ...columns.map((column) => (column[place] == null ? "" : this.format(column[place]))),
    ]);
    const key = JSON.stringify([shown.map(({ label }) => label), rows]);
    if (key === this.filled) return; // single steps are not in the table
    this.filled = key;
    const made = tabulate(["epoch", ...shown.map(({ label }) => label)], rows, this.title),
      before = this.table.querySelector(".scroll");
    if (before)
      before.replaceChildren(...made.children); // the focus and the scrolling stay
    else this.table.append(made);
  }

  rebuild() {
    if (!this.series.length) return;
    this.plot?.destroy();
    const { color: ink, borderTopColor: line } = getComputedStyle(this.drawing);
    const axis = {
      stroke: ink,
      grid: { stroke: line, width: 0.5 },
      ticks: { stroke: line, width: 0.5 },
      font: "12px system-ui",
    };
    this.plot = new uPlot(
      {
        width: this.drawing.clientWidth || 320,
        height: HEIGHT_PX,
        scales: { x: { time: false } },
        cursor: { y: false, drag: { setScale: false } },
        legend: { live: false },
        axes: [
          { ...axis, size: 32, label: "epoch", labelSize: 16, labelFont: "12px system-ui" },
          { ...axis, size: 66, values: (_, ticks) => ticks.map(this.format) },
        ],
        series: [
          {
            label: "epoch",
            value: (_, value) => (value == null ? "" : String(Number(value.toFixed(2)))),
          },
          ...this.series.map(({ label, color, isDashed, isThin }) => ({
            label,
            stroke: isThin ? `${COLORS[color % COLORS.length]}99` : COLORS[color % COLORS.length],
            width: isThin ? 1 : 2,
            dash: isDashed ? [6, 4] : undefined,
            points: { show: !isThin, size: 5 },
            spanGaps: true,
            value: (_, value) => (value == null ? "" : this.format(value)),
          })),
        ],
      },
      align(this.series),
      this.drawing,
    );
  }
}

// of runs, by name; each keeps its color for as long as its curves are shown
const colors = new Map();

// The losses and scores of runs over their epochs, for `show`, the format of the scores, and the
// colors of the runs.
export function listSeries(runs) {
  const loss = [],
    score = [];
  let metric = "";
  const isMany = runs.length > 1;
  for (const name of colors.keys()) if (runs.every((run) => run.name !== name)) colors.delete(name);
  for (const { name, rows = [] } of runs) {
    const free = COLORS.findIndex((_, color) => ![...colors.values()].includes(color));
    if (!colors.has(name)) colors.set(name, free < 0 ? colors.size % COLORS.length : free);
    const own = colors.get(name),
      begin = isMany ? `${name}: ` : "";
    const add = (list, text, key, isDashed, color = 0) =>
      list.push({
        label: `${begin}${text}${isDashed ? " (dashed)" : ""}`,
        color: isMany ? own : color,
        isDashed,
        points: rows.filter((row) => row[key] != null).map((row) => [row.epoch, row[key]]),
      });
    add(loss, "train", "train_loss", false);
    add(loss, "val", "val_loss", true, 1);
    add(score, "train accuracy", "train_accuracy", false);
    metric ||= Object.keys(rows.at(-1) ?? {}).find((key) => key.startsWith("val_") && key !== "val_loss") ?? "";
    if (metric) add(score, metric.replaceAll("_", " "), metric, true, 1);
  }
  const isFraction = !metric || state.fractions.includes(metric.slice("val_".length));
  return {
    loss,
    score,
    colors,
    format: (value) => (value == null ? "" : isFraction ? percent(value) : value.toPrecision(4)),
  };
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
