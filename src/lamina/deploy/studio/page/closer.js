// A closer look at one image: the prediction, the outputs of the layers, and more on request.

import { askLast } from "./api.js";
import { make, paragraph, percent, picture, tabulate } from "./elements.js";
import { drawLayers } from "./inside.js";
import { offerMore, settle } from "./try-form.js";

// Thumbnails from `show_tiles`, which open the closer look; `describe` gives the lines below an
// image.
export function gallery(run, { split, problem, images }, describe) {
  const show = (one) => {
    const lines = make("span", {}, ...describe(one).map((line) => make("span", {}, line.replaceAll(" %", "\u00a0%"))));
    const file = make("span", { className: "note" }, one.name.split("/").at(-1));
    if (!one.png) return make("li", { className: "tile" }, lines, file);
    const open = () => openImage(run, split, one.row, one.name);
    return make(
      "li",
      {},
      make(
        "button",
        { type: "button", className: "tile", on: { click: open } },
        picture(one.png, "", "pixels"),
        lines,
        file,
      ),
    );
  };
  return [
    problem ? make("p", { className: "problem" }, problem) : "",
    make("ul", { className: "gallery" }, ...images.map(show)),
  ];
}

export function openImage(run, split, row, name) {
  document.querySelector("dialog")?.close();
  const place = make("div");
  const title = make("h3", { id: "closer-title" }, `${name} (${split})`);
  const dialog = make(
    "dialog",
    { attributes: { "aria-labelledby": "closer-title" }, on: { close: () => dialog.remove() } },
    make(
      "div",
      { className: "row" },
      title,
      make("button", { type: "button", on: { click: () => dialog.close() } }, "Close"),
    ),
    place,
  );
  document.body.append(dialog);
  dialog.showModal();
  const send = (action) => askLast(action, { run: run.name, split, row });
  settle(place, "Computing the layers …", send("look"), (found) => [...showInside(found), ...offerMore(send)]);
}

export function showInside({ image, predicted, values, target, kind, filters, layers }) {
  const rows = values.map(([name, value]) => {
    const bar = make("div", { className: "bar" });
    bar.style.width = `${kind === "regression" ? 0 : 100 * value}%`;
    return [
      name,
      kind === "regression"
        ? Number(value.toPrecision(5)).toString()
        : make("div", { className: "share" }, bar, make("span", {}, percent(value))),
    ];
  });
  return [
    paragraph("Prediction: ", make("strong", {}, predicted), target === null ? "" : `; target: ${target}`),
    make(
      "div",
      { className: "looks" },
      make(
        "div",
        { className: "look" },
        make("h4", {}, "input of the net"),
        picture(image, "the image as the net receives it", "pixels large"),
      ),
      make(
        "div",
        { className: "look" },
        tabulate(
          [
            kind === "regression" ? "number" : kind === "multi-label" ? "label" : "class",
            kind === "regression" ? "predicted" : "probability",
          ],
          rows,
        ),
      ),
      ...drawLayers(filters, layers),
    ),
  ];
}
