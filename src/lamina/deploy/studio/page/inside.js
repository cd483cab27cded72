// Inside the net while it trains: filters, outputs of units, and statistics of the layers.

import { ask } from "./api.js";
import { find, make, percent, picture, redraw, tabulate } from "./elements.js";
import { chosen } from "./shared.js";

const LOOK_MS = 2000; // least time between two looks at the weights
let looking = { run: null, at: 0, row: 0, timer: 0 };

// Shows filters and outputs of units with the weights that were saved last, at most every two seconds.
export function look(run) {
  if (!run?.rows?.length || document.hidden) return;
  clearTimeout(looking.timer);
  const wait = Math.max(0, looking.run === run.name ? looking.at + LOOK_MS - performance.now() : 0);
  looking.timer = setTimeout(async () => {
    looking = { ...looking, run: run.name, at: performance.now() };
    try {
      const found = await ask("look", { run: run.name, split: "", row: looking.row });
      if (chosen.run?.name === run.name) showLook(run, found);
    } catch {
      // The weights are saved after the first epochs; the next epoch looks again.
    }
  }, wait);
}

function showLook(run, { image, target, filters, layers }) {
  const again = make("button", { type: "button", className: "small", data: { key: "again" }, on: { click: () => {
    looking.row += 1;
    looking.at = 0;
    look(run);
  } } }, "Another image");
  redraw(find("live"),
    make("h3", {}, "Inside the net, now"),
    make("div", { className: "looks" },
      part("an image", picture(image, `image of ${target}`, "pixels one"), make("span", { className: "note" }, target, " ", again)),
      ...drawLayers(filters, layers.slice(0, 5))),
    showLayers(run.rows.findLast((row) => row.layers)?.layers));
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
  return make("div", { className: "bars", role: "img", ariaLabel: `${values.length} units; the largest output is ${Math.max(...values).toPrecision(2)}` },
    ...values.map((value) => {
      const bar = make("i");
      bar.style.height = `${Math.round(100 * Math.abs(value) / limit)}%`;
      return bar;
    }));
}

// The filters of the first layer and the outputs of units of the layers, from `draw_inside`.
export function drawLayers(filters, layers) {
  const layer = (one) => part(one.name, one.maps ? sheet(one.maps, `outputs of ${one.units} units of ${one.name}, brighter is stronger`) : bars(one.values));
  return [...(filters ? [part("filters of the first layer", sheet(filters, "filters of the first layer"))] : []), ...layers.map(layer)];
}

function showLayers(layers) {
  if (!layers) return "";
  const format = (value) => (value == null ? "" : Number(value.toPrecision(3)).toString());
  const rows = layers.names.map((name, place) => [name, format(layers.gradient_norms[place]),
    layers.update_norms[place] && layers.weight_norms[place] ? (layers.update_norms[place] / layers.weight_norms[place]).toExponential(1) : "",
    layers.inactive_fractions[place] == null ? "" : percent(layers.inactive_fractions[place])]);
  return make("details", { data: { key: "layers" } }, make("summary", {}, "Gradients and dead units of each layer"),
    tabulate(["layer", "gradient norm", "update ÷ weights", "dead or saturated units"], rows, "Statistics after the last measured epoch"));
}
