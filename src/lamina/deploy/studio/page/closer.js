// A closer look at one image: the prediction, the outputs of the layers, and more on request.

import { askLast } from "./api.js";
import { button, div, make, paragraph, percent, picture, problem as warn, tabulate } from "./elements.js";
import { drawLayers, part } from "./inside.js";
import { offerMore, settle } from "./try-form.js";

// Thumbnails from `show_tiles`, which open the closer look; `describe` gives the lines below an
// image.
export function gallery(run, { split, problem, images }, describe) {
  const show = (one) => {
    const lines = make("span", {}, ...describe(one).map((line) => make("span", {}, line.replaceAll(" %", "\u00a0%"))));
    const file = make("span", { className: "note" }, one.name.split("/").at(-1));
    if (!one.png) return make("li", { className: "tile" }, lines, file);
    const open = () => openImage(run, split, one.row, one.name);
    const tile = button("", open, { className: "tile" });
    tile.append(picture(one.png, "", "pixels"), lines, file);
    return make("li", {}, tile);
  };
  return [problem ? warn(problem) : "", make("ul", { className: "gallery" }, ...images.map(show))];
}

export function openImage(run, split, row, name) {
  document.querySelector("dialog")?.close();
  const place = div("");
  const title = make("h3", { id: "closer-title" }, `${name} (${split})`);
  const dialog = make("dialog", { attributes: { "aria-labelledby": "closer-title" } });
  dialog.addEventListener("close", () => dialog.remove());
  dialog.append(
    div(
      "row",
      title,
      button("Close", () => dialog.close()),
    ),
    place,
  );
  document.body.append(dialog);
  dialog.showModal();
  const send = (action) => askLast(action, { run: run.name, image: [split, row] });
  settle(place, "Computing the layers …", send("look"), (found) => [...showInside(found), ...offerMore(send)]);
}

export function showInside({ image, predicted, values, target, kind, filters, layers }) {
  const isNumber = kind === "regression";
  const show = (value) => {
    if (isNumber) return Number(value.toPrecision(5)).toString();
    const bar = div("bar");
    bar.style.width = `${100 * value}%`;
    return div("share", bar, make("span", {}, percent(value)));
  };
  const rows = values.map(([name, value]) => [name, show(value)]);
  const names = { regression: "number", "multi-label": "label" };
  const heads = [names[kind] ?? "class", isNumber ? "predicted" : "probability"];
  return [
    paragraph("Prediction: ", make("strong", {}, predicted), target === null ? "" : `; target: ${target}`),
    div(
      "looks",
      part("input of the net", picture(image, "the image as the net receives it", "pixels large")),
      div("look", tabulate(heads, rows)),
      ...drawLayers(filters, layers),
    ),
  ];
}
