// What takes longer about one prediction: its evidence in the image, and similar training images.

import { Button, Note, Outcome, Picture, Table, count, percent, useRequest } from "../parts.js";
import { html } from "../preact.js";

// Buttons for what can be asked about the image that `send` sends, and the results.
export function Explanations({ send }) {
  const [explanation, explain] = useRequest();
  const [similar, search] = useRequest();
  const offer = (task, title, start) => html`<${Button} onClick=${() => start(title, send(task))}>${title}</${Button}>`;
  return html`
    <div class="row actions">
      ${offer("explain", "Explain this prediction", explain)}
      ${offer("similar", "Similar training images", search)}
    </div>
    <${Outcome} request=${explanation} draw=${Explanation} />
    <${Outcome} request=${similar} draw=${Similar} />
  `;
}

function Explanation({ target, faithfulness, image, map }) {
  const { is_against: isAgainst, by_map: byMap, by_random_map: byRandomMap } = faithfulness ?? {};
  const isUseless = isAgainst ? byMap <= byRandomMap : byMap >= byRandomMap;
  const legend = isUseless
    ? "Covering random places changes the prediction at least as much as covering the marked pixels."
    : `Red pixels are evidence for ${target}, blue pixels evidence against it.`;
  return html`
    <h3>${isUseless ? "This map does not explain the prediction" : `Evidence for ${target}`}</h3>
    <div class="map">
      <${Picture} png=${image} alt="Input of the model" />
      <${Picture} png=${map} alt=${`Map of the evidence for ${target}`} />
    </div>
    <${Note}>${legend}</${Note}>
    ${faithfulness && html`<${Faithfulness} target=${target} ...${faithfulness} />`}
    ${!faithfulness && html`<${Note}>How faithful the map is was not measured: it would take too long here.</${Note}>`}
  `;
}

function Faithfulness({ target, is_number: isNumber, is_against: isAgainst, ...means }) {
  const rows = [
    ["nothing", means.before],
    [`the ${isAgainst ? "bluest" : "reddest"} pixels first`, means.by_map],
    ["the same shapes at random places", means.by_random_map],
  ].map(([name, value]) => [name, isNumber ? value.toFixed(2) : percent(value)]);
  const what = isNumber ? `${target} (standard deviations from the mean)` : `probability of ${target}`;
  return html`
    <${Table} heads=${["covered part of the image", what]} rows=${rows} label="" />
    <${Note}>Means while the image is covered step by step. If the prediction depends on the marked pixels, the value
      ${isAgainst ? "rises" : "falls"} more than at random places.</${Note}>
  `;
}

function Similar({ images, searched }) {
  const show = ({ id, image, target, similarity }) => html`<li><figure>
    <${Picture} png=${image} alt=${`Training image ${id}`} />
    <figcaption>${target}<${Note}>similarity ${similarity.toFixed(2)}</${Note}></figcaption>
  </figure></li>`;
  return html`
    <h3>Similar training images</h3>
    <ul class="similar">${images.map(show)}</ul>
    <${Note}>The nearest of ${count(searched)} training images, by the input of the model's last layer.</${Note}>
  `;
}
