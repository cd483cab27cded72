// The page's content, of which the studio uses a part. Names from models and data sets become text,
// never markup.

const SHOWN = 5;

// Control characters, line ends, direction marks and surrogates are shown as code points.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

export function plain(text) {
  return String(text).replace(UNSAFE, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// An element with properties and children; `null` children are left out.
export function make(name, properties = {}, ...children) {
  const { data = {}, on = {}, attributes = {}, ...own } = properties;
  const element = Object.assign(document.createElement(name), own);
  Object.assign(element.dataset, data);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(
    ...children
      .flat()
      .filter((child) => child !== null && child !== undefined)
      .map((child) => (child instanceof Node ? child : plain(child))),
  );
  return element;
}

export const note = (...children) => make("p", { className: "note" }, ...children);

export const paragraph = (...children) => make("p", {}, ...children);

export function picture(png, alt, className = "") {
  return make("img", { src: `data:image/png;base64,${png}`, alt: plain(alt), className });
}

// Shows a prediction in the card of its model, and returns what it predicts.
export function showPrediction(card, model, prediction, coverage) {
  const text = describe(prediction);
  const heading = make("h2", { id: `${card.id}-title` }, model.model);
  const line = make(
    "p",
    { className: "predicted" },
    ...(prediction.question ? [`${prediction.question}: `] : []),
    make("strong", {}, text),
  );
  const parts = [heading, line];
  if ("value" in (prediction.predictions[0] ?? {})) parts.push(tabulateNumbers(prediction.predictions));
  else parts.push(...tabulateClasses(prediction.predictions, model));
  if (prediction.set) parts.push(paragraph(`Prediction set: ${prediction.set.join(", ")}`));
  if (model.coverage_interval) {
    const what = prediction.set ? "true class is in its prediction set" : "true number is in its interval (±)";
    const [low, high] = model.coverage_interval.map(percent);
    parts.push(
      note(`The ${what} for ${low} to ${high} of new images (95 % interval; the aim is ${percent(coverage)}).`),
    );
  }
  card.replaceChildren(...parts);
  return text;
}

export function showProblem(card, model, reason) {
  card.replaceChildren(make("h2", { id: `${card.id}-title` }, model.model), paragraph(reason));
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

// Rounds a tie, such as 12.25, to the even digit, as Python does, so that a number is the same
// everywhere.
export function percent(value) {
  const percents = 100 * value;
  return `${(percents % 1 === 0.25 ? percents - 0.01 : percents).toFixed(1)} %`;
}

// A table whose first column names the rows. The others contain numbers or elements.
export function tabulate(heads, rows, caption = "") {
  const className = (place) => (place ? "number" : "");
  const head = (text, place) => (text ? make("th", { scope: "col", className: className(place) }, text) : make("td"));
  const cell = (value, place) =>
    value instanceof Node
      ? make("td", {}, value)
      : make(place ? "td" : "th", { className: className(place), ...(place ? {} : { scope: "row" }) }, value);
  return make(
    "table",
    {},
    caption ? make("caption", { className: "note" }, caption) : null,
    make("thead", {}, make("tr", {}, ...heads.map(head))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
  );
}

function tabulateNumbers(predictions) {
  return tabulate(
    ["name", "value"],
    predictions.map(({ name, value, half_width: width }) => [
      name,
      format(value) + (width === undefined ? "" : ` ± ${format(width)}`),
    ]),
  );
}

function tabulateClasses(predictions, model) {
  const row = ({ class: name, probability, threshold }) => {
    const fill = make("div");
    fill.style.width = `${100 * probability}%`;
    const bar = make("div", { className: "bar", ariaHidden: "true" }, fill);
    return [name, bar, percent(probability), ...(model.aim ? [threshold === undefined ? "" : percent(threshold)] : [])];
  };
  const heads = [
    model.kind === "multi-label" ? "label" : "class",
    "",
    "probability",
    ...(model.aim ? ["threshold"] : []),
  ];
  const parts = [tabulate(heads, predictions.slice(0, SHOWN).map(row))];
  const rest = predictions.slice(SHOWN);
  if (rest.length)
    parts.push(make("details", {}, make("summary", {}, `${rest.length} more`), tabulate(heads, rest.map(row))));
  const notes = [
    model.calibrated
      ? `The probabilities are calibrated on ${model.calibrated_on}: ` +
        "about 80 % of predictions with a probability of 80 % are correct."
      : "The probabilities are not calibrated.",
  ];
  const predicted = model.kind === "multi-label" ? "each label" : "yes";
  if (model.aim)
    notes.push(
      `The model predicts ${predicted} above its threshold, chosen for ${model.aim} on ${model.thresholds_on}.`,
    );
  return [...parts, ...notes.map((text) => note(text))];
}

// An explanation or similar images.
export function showCloser(task, found) {
  return task === "explain" ? showExplanation(found) : showSimilar(found);
}

function showExplanation({ target, faithfulness, image, map }) {
  return [
    make("h3", {}, `Evidence for ${target}`),
    make(
      "div",
      { className: "map" },
      picture(image, "Input of the model"),
      picture(map, `Map of the evidence for ${target}`),
    ),
    note(`Red pixels are evidence for ${target}, blue pixels evidence against it.`),
    ...(faithfulness
      ? showFaithfulness(target, faithfulness)
      : [note("How faithful the map is was not measured: it would take too long here.")]),
  ];
}

function showSimilar({ images, searched }) {
  const items = images.map(({ id, image, target, similarity }) => {
    const caption = [target, note(`similarity ${similarity.toFixed(2)}`)];
    return make(
      "li",
      {},
      make("figure", {}, picture(image, `Training image ${id}`), make("figcaption", {}, ...caption)),
    );
  });
  return [
    make("h3", {}, "Similar training images"),
    make("ul", { className: "similar" }, ...items),
    note(
      `The nearest of ${searched.toLocaleString("en")} training images, ` + "by the input of the model's last layer.",
    ),
  ];
}

function showFaithfulness(target, measured) {
  const show = (value) => (measured.is_number ? value.toFixed(2) : percent(value));
  const rows = [
    ["nothing", measured.before],
    [`the ${measured.is_against ? "bluest" : "reddest"} pixels first`, measured.by_map],
    ["the same shapes at random places", measured.by_random_map],
    ["from the center outward", measured.by_center],
  ].map(([name, value]) => [name, show(value)]);
  const what = measured.is_number ? `${target} (standard deviations from the mean)` : `probability of ${target}`;
  const change = measured.is_against ? "rises" : "falls";
  const correlations = measured.correlations.map((value) => value.toFixed(2)).join(", ");
  return [
    tabulate(["covered part of the image", what], rows),
    note(
      "Means while the image is covered step by step. If the prediction depends on the marked " +
        `pixels, the value ${change} more than at random places.`,
    ),
    note(
      `Rank correlation with maps of the model with random weights: ${correlations}. ` +
        "Near 1 or -1, the map does not depend on what the model has learned.",
    ),
  ];
}
