// What takes longer about one prediction: its evidence in the image, and similar training images.

import { Button, Note, Outcome, Picture, Table, percent, useRequest } from "./parts.js";
import { html } from "./preact.js";

const LOOKS = {
  explain: ["Explain this prediction", Explanation],
  similar: ["Similar training images", Similar],
};

// Buttons for `tasks` about the image that `send` sends, and their results.
export function Explanations({ send, tasks = Object.keys(LOOKS) }) {
  const explained = useRequest();
  const similar = useRequest();
  const requests = { explain: explained, similar };
  const offered = tasks.filter((task) => task in LOOKS);
  const offer = (task) => {
    const [title] = LOOKS[task];
    const [, start] = requests[task];
    return html`<${Button} onClick=${() => start(title, send(task))}>${title}</${Button}>`;
  };
  const show = (task) => {
    const [, Result] = LOOKS[task];
    return html`<${Outcome} request=${requests[task][0]} draw=${(result) => html`<${Result} ...${result} />`} />`;
  };
  return html`<div class="row actions">${offered.map(offer)}</div>
    ${offered.map(show)}`;
}

function Explanation({ target, faithfulness, image, map }) {
  return html`
    <h3>Evidence for ${target}</h3>
    <div class="map">
      <${Picture} png=${image} alt="Input of the model" />
      <${Picture} png=${map} alt=${`Map of the evidence for ${target}`} />
    </div>
    <${Note}>Red pixels are evidence for ${target}, blue pixels evidence against it.</${Note}>
    ${
      faithfulness
        ? html`<${Faithfulness} target=${target} ...${faithfulness} />`
        : html`<${Note}>How faithful the map is was not measured: it would take too long here.</${Note}>`
    }
  `;
}

function Faithfulness({ target, is_number: isNumber, is_against: isAgainst, correlations, ...means }) {
  const rows = [
    ["nothing", means.before],
    [`the ${isAgainst ? "bluest" : "reddest"} pixels first`, means.by_map],
    ["the same shapes at random places", means.by_random_map],
    ["from the center outward", means.by_center],
  ].map(([name, value]) => [name, isNumber ? value.toFixed(2) : percent(value)]);
  const what = isNumber ? `${target} (standard deviations from the mean)` : `probability of ${target}`;
  return html`
    <${Table} heads=${["covered part of the image", what]} rows=${rows} label="" />
    <${Note}>Means while the image is covered step by step. If the prediction depends on the marked pixels, the value
      ${isAgainst ? " rises" : " falls"} more than at random places.</${Note}>
    <${Note}>Rank correlation with maps of the model with random weights:
      ${correlations.map((value) => ` ${value.toFixed(2)}`).join(",")}. Near 1 or -1, the map does not depend on what
      the model has learned.</${Note}>
  `;
}

function Similar({ images, searched }) {
  return html`
    <h3>Similar training images</h3>
    <ul class="similar">
      ${images.map(
        ({ id, image, target, similarity }) =>
          html`<li>
            <figure>
              <${Picture} png=${image} alt=${`Training image ${id}`} />
              <figcaption>${target}<${Note}>similarity ${similarity.toFixed(2)}</${Note}></figcaption>
            </figure>
          </li>`,
      )}
    </ul>
    <${Note}>The nearest of ${searched.toLocaleString("en")} training images, by the input of the model's last
      layer.</${Note}>
  `;
}
