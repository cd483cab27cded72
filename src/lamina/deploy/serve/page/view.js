// The page's content. Names from models and data sets become text, never markup.

const SHOWN = 5;
const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

// Control characters, line ends, direction marks and surrogates are shown as code points.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

export function plain(text) {
  return text.replace(UNSAFE, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.map((child) => (typeof child === "string" ? plain(child) : child)));
  return element;
}

function image(base64, alt) {
  return make("img", { src: `data:image/png;base64,${base64}`, alt: plain(alt) });
}

// Shows a prediction in the card of its model; calls `look` with a task when its button is pressed.
export function showPrediction(card, model, prediction, look) {
  const text = describe(prediction);
  const heading = make("h2", { id: `${card.id}-title` }, model.model);
  const line = make("p", { className: "predicted" }, ...(prediction.question ? [`${prediction.question}: `] : []), make("strong", {}, text));
  const parts = [heading, line];
  if ("value" in (prediction.predictions[0] ?? {})) parts.push(tabulateNumbers(prediction.predictions));
  else parts.push(...tabulateClasses(prediction.predictions, model));
  const actions = make("div", { className: "actions" });
  for (const [task, label] of [["explain", "Explain this prediction"], ["similar", "Similar training images"]]) {
    const place = make("div");
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => look(task, button, place));
    actions.append(button);
    parts.push(place);
  }
  parts.splice(parts.length - 2, 0, actions);
  card.replaceChildren(...parts);
  return text;
}

export function showProblem(card, model, reason) {
  card.replaceChildren(make("h2", { id: `${card.id}-title` }, model.model), make("p", {}, reason));
}

export function describe(prediction) {
  if (Array.isArray(prediction.predicted)) return prediction.predicted.join(", ") || "no label";
  if (typeof prediction.predicted === "string") return prediction.predicted;
  // In an object, names that are integers would come first.
  return prediction.predictions.map(({ name, value }) => `${name} ${format(value)}`).join(", ");
}

function format(value) {
  return Number(value.toPrecision(6)).toString();
}

function tabulate(heads, rows) {
  const names = heads.map((head, place) =>
    head ? make("th", { scope: "col", className: place === heads.length - 1 ? "number" : "" }, head) : make("td"));
  return make("table", {}, make("thead", {}, make("tr", {}, ...names)), make("tbody", {}, ...rows));
}

function tabulateNumbers(predictions) {
  const rows = predictions.map(({ name, value }) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", { className: "number" }, format(value))));
  return tabulate(["name", "value"], rows);
}

function tabulateClasses(predictions, model) {
  const row = ({ class: name, probability }) => {
    const fill = make("div");
    fill.style.width = `${100 * probability}%`;
    const bar = make("td", {}, make("div", { className: "bar", ariaHidden: "true" }, fill));
    return make("tr", {}, make("th", { scope: "row" }, name), bar, make("td", { className: "number" }, PERCENT.format(probability)));
  };
  const heads = [model.kind === "multi-label" ? "label" : "class", "", "probability"];
  const parts = [tabulate(heads, predictions.slice(0, SHOWN).map(row))];
  const rest = predictions.slice(SHOWN);
  if (rest.length) parts.push(make("details", {}, make("summary", {}, `${rest.length} more`), tabulate(heads, rest.map(row))));
  parts.push(make("p", { className: "note" }, model.calibrated
    ? "The probabilities are calibrated on val: about 80 % of predictions with a probability of 80 % are correct."
    : "The probabilities are not calibrated."));
  return parts;
}

// Shows an explanation or similar images, and returns a sentence for the status line.
export function showCloser(place, task, found) {
  if (task === "explain") {
    const verdict = found.trusted ? "trusted" : "not trusted";
    const map = make("div", { className: "map" }, image(found.image, "Input of the model"),
      image(found.map, `Map of the evidence for ${found.target}: ${verdict}`));
    place.replaceChildren(make("h3", {}, `Evidence for ${found.target}`), map,
      make("p", { className: "note" }, `Red pixels are evidence for ${found.target}, blue pixels evidence against it. `,
        make("strong", { className: found.trusted ? "trusted" : "untrusted" }, `The map is ${verdict}`), `: ${found.reason}.`));
    return `The map of the evidence for ${found.target} is ${verdict}.`;
  }
  const items = found.images.map((one) =>
    make("li", {}, make("figure", {}, image(one.image, `Training image ${one.id}`),
      make("figcaption", {}, one.target, make("br"), make("span", { className: "note" }, `similarity ${one.similarity.toFixed(2)}`)))));
  place.replaceChildren(make("h3", {}, "Similar training images"), make("ul", { className: "similar" }, ...items),
    make("p", { className: "note" }, `The nearest of ${found.searched.toLocaleString("en")} training images, by the input of the model's last layer.`));
  return `Found ${found.images.length} similar training images.`;
}
