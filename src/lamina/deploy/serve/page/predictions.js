// The prediction of a model, with probabilities and thresholds.

import { Details, Note, Table, percent } from "./parts.js";
import { html } from "./preact.js";

const SHOWN = 5;
const CALIBRATED = "about 80 % of predictions with a probability of 80 % are correct.";

export function describe(prediction) {
  if (Array.isArray(prediction.predicted)) return prediction.predicted.join(", ") || "no label";
  if (typeof prediction.predicted === "string") return prediction.predicted;
  // In an object, names that are integers would come first.
  return prediction.predictions.map(({ name, value }) => `${name} ${format(value)}`).join(", ");
}

function format(value) {
  return Number(value.toPrecision(6)).toString();
}

export function Prediction({ model, prediction }) {
  const { predictions, question } = prediction;
  const isNumber = "value" in (predictions[0] ?? {});
  return html`
    <p class="predicted">${question && `${question}: `}<strong>${describe(prediction)}</strong></p>
    ${isNumber ? html`<${Numbers} predictions=${predictions} />` : html`<${Classes} ...${{ predictions, model }} />`}
  `;
}

function Numbers({ predictions }) {
  const rows = predictions.map(({ name, value }) => [name, format(value)]);
  return html`<${Table} heads=${["name", "value"]} rows=${rows} label="" />`;
}

function Classes({ predictions, model }) {
  const { kind, aim, calibrated, calibrated_on: calibration, thresholds_on: images } = model;
  const isMulti = kind === "multi-label";
  const what = isMulti ? "each label" : "yes";
  const row = ({ class: name, probability, threshold }) => {
    const bar = html`<div class="bar" aria-hidden="true"><div style=${{ width: `${100 * probability}%` }}></div></div>`;
    const limit = threshold === undefined ? "" : percent(threshold);
    return [name, bar, percent(probability), ...(aim ? [limit] : [])];
  };
  const heads = [isMulti ? "label" : "class", "", "probability", ...(aim ? ["threshold"] : [])];
  const tabulate = (some) => html`<${Table} heads=${heads} rows=${some.map(row)} label="" />`;
  const rest = predictions.slice(SHOWN);
  return html`
    ${tabulate(predictions.slice(0, SHOWN))}
    ${rest.length > 0 && html`<${Details} summary=${`${rest.length} more`}>${tabulate(rest)}</${Details}>`}
    <${Note}>The probabilities are${calibrated ? ` calibrated on ${calibration}: ${CALIBRATED}` : " not calibrated."}</>
    ${aim && html`<${Note}>The model predicts ${what} above its threshold, chosen for ${aim} on ${images}.</${Note}>`}
  `;
}
