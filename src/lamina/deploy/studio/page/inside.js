// Inside the net: filters, outputs of units, and statistics of the layers; while it trains, again
// and again.

import { askLast } from "./api.js";
import { find, make, percent, picture, redraw, tabulate } from "./elements.js";
import { chosen, findJob, isActive } from "./shared.js";

const LOOK_MS = 2000,
  REST = 20; // least time between two looks at the weights, also as a multiple of the last look's
const looking = { run: "", isTraining: false, rows: -1, next: 0, row: 0, timer: 0, isBusy: false };

find("live").addEventListener("toggle", () => look(chosen.run));
document.addEventListener("visibilitychange", () => look(chosen.run));

// Shows the weights that were saved last, if they are new and the panel is open.
export function look(run) {
  if (!run) return;
  const live = find("live"),
    isTraining = isActive(findJob(run.name));
  live.hidden = !run.rows.length;
  find("live-title").textContent = `Inside the net${isTraining ? ", now" : ""}`;
  if (looking.run !== run.name) live.lastElementChild.replaceChildren();
  if (looking.run !== run.name || looking.isTraining !== isTraining)
    Object.assign(looking, { run: run.name, isTraining, rows: -1 });
  clearTimeout(looking.timer);
  if (!live.open || document.hidden || looking.isBusy || looking.rows === run.rows.length) return;
  // only the next epochs wait
  const rest = isTraining && looking.rows >= 0 ? looking.next - performance.now() : 0;
  looking.timer = setTimeout(async () => {
    const began = performance.now();
    Object.assign(looking, { rows: run.rows.length, isBusy: true });
    try {
      const found = await askLast("look", { run: run.name, row: looking.row }, "live");
      if (chosen.run.name === run.name) showLook(run, found);
    } catch (error) {
      // the weights are saved after the first epochs; the next epoch looks again
      if (!isTraining && chosen.run.name === run.name) live.lastElementChild.textContent = error.message;
    }
    const end = performance.now();
    Object.assign(looking, { next: end + Math.max(LOOK_MS, REST * (end - began)), isBusy: false });
    look(chosen.run);
  }, rest);
}

function showLook(run, { image, target, filters, layers }) {
  const again = make(
    "button",
    {
      type: "button",
      className: "small",
      data: { key: "again" },
      on: {
        click: () => {
          Object.assign(looking, { row: looking.row + 1, rows: -1 });
          look(chosen.run);
        },
      },
    },
    "Another image",
  );
  redraw(
    find("live").lastElementChild,
    make(
      "div",
      { className: "looks" },
      part(
        "an image",
        picture(image, `image of ${target}`, "pixels one"),
        make("span", { className: "note" }, target, " ", again),
      ),
      ...drawLayers(filters, layers.slice(0, 5)),
    ),
    showLayers(run.rows.findLast((row) => row.layers)?.layers),
  );
}

function part(title, ...children) {
  return make("div", { className: "look" }, make("h4", {}, title), ...children);
}

// Pictures side by side, from `draw_tiles`.
export function sheet(tiles, alt) {
  const shown = picture(tiles.png, alt, "pixels");
  shown.style.setProperty("--columns", tiles.columns);
  return shown;
}

function bars(values) {
  const limit = Math.max(...values.map(Math.abs), 1e-9);
  const largest = Math.max(...values).toPrecision(2);
  return make(
    "div",
    {
      className: "bars",
      role: "img",
      ariaLabel: `${values.length} units; the largest output is ${largest}`,
    },
    ...values.map((value) => {
      const bar = make("i");
      bar.style.height = `${Math.round((100 * Math.abs(value)) / limit)}%`;
      return bar;
    }),
  );
}

// The filters of the first layer and the outputs of units of the layers, from `draw_inside`.
export function drawLayers(filters, layers) {
  const layer = (one) =>
    part(
      one.name,
      one.maps
        ? sheet(one.maps, `outputs of ${one.units} units of ${one.name}, brighter is stronger`)
        : bars(one.values),
    );
  return [
    ...(filters ? [part("filters of the first layer", sheet(filters, "filters of the first layer"))] : []),
    ...layers.map(layer),
  ];
}

function showLayers(layers) {
  if (!layers) return "";
  const format = (value) => (value == null ? "" : Number(value.toPrecision(3)).toString());
  const rows = layers.names.map((name, place) => [
    name,
    format(layers.gradient_norms[place]),
    layers.update_norms[place] && layers.weight_norms[place]
      ? (layers.update_norms[place] / layers.weight_norms[place]).toExponential(1)
      : "",
    layers.dead_fractions[place] == null ? "" : percent(layers.dead_fractions[place]),
  ]);
  return make(
    "details",
    { data: { key: "layers" } },
    make("summary", {}, "Gradients and dead units of each layer"),
    tabulate(
      ["layer", "gradient norm", "update ÷ weights", "dead units"],
      rows,
      "Statistics after the last measured epoch",
    ),
  );
}
