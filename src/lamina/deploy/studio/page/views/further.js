// How to train a changed copy of a run, and what would differ.

import { copySettings } from "../actions/training.js";
import { Button, Note } from "../parts.js";
import { html } from "../preact.js";
import { change, describeSource, findSource, state } from "../state.js";

export function Further({ run }) {
  if (!run.text) return null;
  return html`<div id="further">
    <${Button} id="edit" onClick=${() => copySettings(run)}>Edit its net and recipe</${Button}>
    <${Note}>Fills steps 1 to 3, for a changed copy.</${Note}>
  </div>`;
}

function Differences({ name, differences }) {
  const show = ({ label, before, after }) => html`<li>${label}: ${before} → <strong>${after}</strong></li>`;
  return html`<${Note}>What will differ from ${name}: ${!differences.length && "nothing."}</${Note}>
    <ul class="differences">${differences.map(show)}</ul>`;
}

// What Train would change against the run whose settings were put into the steps.
export function Changes() {
  const { base, net, time } = state;
  if (!base) return null;
  const planned = state.plan?.fields ?? {};
  const { size_px: size, val } = describeSource();
  const known = state.fields.filter(({ name }) => name in planned && name in base.recipe);
  const word = (value) => (["", "None"].includes(String(value ?? "")) ? "none" : String(value));
  const differences = [
    ["Images", base.data, findSource()?.name],
    ["Image size", base.size_px, size],
    ["Part held out for val", base.val, val],
    ["Net", base.net, net.isChosen ? "chosen by lamina" : net.text === base.text ? base.net : "changed"],
    ["Time limit", null, time.trim()],
    ...known.map(({ name, label }) => [label, base.recipe[name], planned[name]]),
  ]
    .map(([label, before, after]) => ({ label, before: word(before), after: word(after) }))
    .filter(({ before, after }) => before !== after);
  return html`<div id="changes">
    <${Differences} name=${base.name} differences=${differences} />
    <${Button} small onClick=${() => change({ base: null })}>Hide this list</${Button}>
  </div>`;
}
