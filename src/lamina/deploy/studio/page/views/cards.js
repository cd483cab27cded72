// The cards of the net: one for each layer, which opens to change it. Every edit passes `edit`.

import { add, findPlace, move, remove, setArgument } from "../actions/cards.js";
import { edit } from "../actions/net.js";
import { Button, Details, Note, Problem, Units, count, plain, plural, short } from "../parts.js";
import { html, useState } from "../preact.js";
import { change, state } from "../state.js";
import { Field, Helped } from "./recipe.js";
import { Term } from "./term.js";

const DRAGGED = "text/x-layer";

// Label and help of each argument of a layer.
const ARGUMENTS = {
  out_channels: ["Filters", "Each looks for one pattern, and makes one channel of the output."],
  kernel_size: ["Size in px", "Side of the filter or window: 3 means 3×3."],
  stride: ["Step", "Pixels from one place to the next; 2 halves height and width."],
  padding: ["Padding", "Pixels added at the border; same: as many as keep the size; valid: none."],
  dilation: ["Dilation", "Distance of the pixels that a filter looks at."],
  groups: ["Groups", "Parts into which the channels are split, each with its own filters."],
  bias: ["Bias", "Whether a learned number is added to each output."],
  out_features: ["Units", "Each computes one number, a weighted sum of all inputs."],
  units: ["Units", "Leave it empty: one for each class."],
  negative_slope: ["Slope below 0", "Negative numbers are multiplied by it."],
  p: ["Fraction dropped", "Of the numbers, at random in each step; 0.5 is half."],
  momentum: ["Momentum", "Weight of the newest batch in the running averages."],
  eps: ["Epsilon", "Added to the variance, so that nothing is divided by 0."],
};

const nameArgument = (argument) => ARGUMENTS[argument]?.[0] ?? argument.replaceAll("_", " ");

// Shapes in words: (3, 8, 8) are 3 maps of 8×8.
const sayShapes = (text) =>
  text
    ?.replace(/\((\d+), (\d+), (\d+)\)/gu, "$1 maps of $2×$3")
    .replace(/\((\d+),\)/gu, "$1 numbers")
    .replace("a vector (F,)", "a list of numbers")
    .replace("an image (C, H, W)", "maps");

// The words of the studio about a kind of layer.
function explain(kind) {
  const meaning = state.layers.find(({ name }) => name === kind)?.meaning;
  return meaning && `${meaning.replace(/``out_\w+``/, "its").replaceAll("``", "")}.`;
}

export function Cards({ cards }) {
  return html`<ol id="layers" aria-label="Layers">
    ${cards.map((card, place) => html`<${Card} key=${card.id} card=${card} place=${place} />`)}
  </ol>`;
}

function Card({ card, place }) {
  const { id, name = card.text, shape = [] } = card;
  const empty = card.arguments?.find((argument) => !argument.value && !argument.default);
  const problem = empty ? `${nameArgument(empty.name)} must be a whole number, such as 32.` : sayShapes(card.problem);
  const [channels, ...sides] = shape; // or the length of a vector
  const isOpen = state.openCard === id;
  const drag = ({ dataTransfer }) => dataTransfer.setData(DRAGGED, String(place));
  const allow = (event) => event.dataTransfer.types.includes(DRAGGED) && event.preventDefault();
  const drop = (event) => {
    const moved = state.net.cards[event.dataTransfer.getData(DRAGGED) || place];
    event.preventDefault();
    if (moved && moved.id !== id) move(moved, place - state.net.cards.indexOf(moved), `card-${moved.id}`);
  };
  const toggle = () => change({ openCard: isOpen ? null : id });
  const press = ({ key }) => key === "Delete" && remove(card);
  const drawing = state.forward?.drawings[id];
  return html`<li class=${problem ? "card wrong" : "card"} onDragOver=${allow} onDrop=${drop}>
    <div class="head" draggable="true" onDragStart=${drag}>
      <button type="button" id=${`card-${id}`} aria-expanded=${isOpen} aria-keyshortcuts="Delete"
        onClick=${toggle} onKeyDown=${press}>
        <span class="place">${place + 1}</span>
        <span class="what"><strong>${name}</strong> <span class="note">${!problem && card.meaning}</span></span>
        <span class="size">${shape.length > 0 && [...sides, channels].map(count).join("×")}</span>
        <span class="drawing" aria-hidden="true">${drawing && html`<${Units} ...${drawing} />`}</span>
      </button>
    </div>
    <${Problem} text=${problem} />
    ${isOpen && html`<${OpenCard} card=${card} place=${place} />`}
  </li>`;
}

// What can be changed of a layer, and what it costs.
function OpenCard({ card, place }) {
  const { id, text, name } = card;
  const label = plain(`layer ${place + 1}, ${name ?? text}`);
  const tool = (key, title, act) =>
    html`<${Button} small id=${`${key}-${id}`} aria-label=${`${title} ${label}`} onClick=${act}>${title}</${Button}>`;
  const setText = ({ target }) => edit(id, (cards, at) => (cards[at] = { ...cards[at], text: target.value }));
  const python = html`<textarea id=${`argument-0-${id}`} rows="3" spellcheck=${false}
    aria-label=${`Python of ${label}`} value=${text} onChange=${setText}></textarea>`;
  return html`<div class="body">
    ${card.arguments ? html`<${Arguments} card=${card} />` : python}
    <div class="row">
      ${tool("up", "Move up", () => move(card, -1, `up-${id}`))}
      ${tool("down", "Move down", () => move(card, 1, `down-${id}`))}
      ${tool("remove", "Remove", () => remove(card))}
    </div>
    <${Note}>${explain(name)} ${card.shape && describeCosts(card)} <${Term} name="receptive field" /></${Note}>
  </div>`;
}

// First those that must be given or matter most.
function Arguments({ card }) {
  const isMain = (argument) => !argument.default || ["stride", "padding", "p"].includes(argument.name);
  const mainCount = card.arguments.filter(isMain).length;
  const fields = card.arguments.map(
    (argument, place) => html`<${Argument} key=${argument.name} card=${card}
    id=${`argument-${place}-${card.id}`} ...${argument} />`,
  );
  const more = html`<${Details} summary="More settings of this layer">
    <div class="fields">${fields.slice(mainCount)}</div>
  </${Details}>`;
  return html`<${Helped} note=${mainCount ? "" : "Nothing must be set."}>
    <div class="fields">${fields.slice(0, mainCount)}</div>
    ${fields.length > mainCount && more}
  </${Helped}>`;
}

// A field that shows what is typed until it loses the focus.
function Argument({ card, id, name, value, default: usual }) {
  const [typed, setTyped] = useState(null);
  const help = ARGUMENTS[name]?.[1] ?? "";
  const choices = /^(True|False)$/.test(usual) ? ["True", "False"] : [];
  const isUnset = value === usual && (choices.length || usual === "None");
  const type = (text) => {
    setTyped(text);
    setArgument(card, name, text);
  };
  return html`<div onFocusOut=${() => setTyped(null)}>
    <${Field} id=${id} field=${{ label: nameArgument(name), help, choices }} placeholder=${usual}
      value=${typed ?? (isUnset ? "" : value.replace(/^'(.*)'$/, "$1"))} isWrong=${!value && !usual} onInput=${type} />
  </div>`;
}

function describeCosts({ shape, parameters, multiply_adds: multiplyAdds, field }) {
  const [size, ...sides] = shape;
  const output = sides.length ? `${sides.join("×")} px with ${plural(size, "channel")}` : plural(size, "number");
  const costs = `${count(parameters)} parameters, ${short(multiplyAdds)} multiply-adds per image`;
  return `Output: ${output}. ${costs}. Receptive field: ${field}.`;
}

export function AddLayer({ cards }) {
  const [kind, setKind] = useState("Conv2d");
  const place = findPlace(cards);
  const before = cards[place - 1];
  const where = before ? `It comes after layer ${place}, ${before.name ?? before.text}.` : "It comes first.";
  const names = state.layers.map(({ name }) => name).sort();
  return html`
    <div class="row">
      <label for="kind" class="note">New layer</label>
      <select id="kind" value=${kind} aria-describedby="kind-note" onChange=${({ target }) => setKind(target.value)}>
        ${names.map((name) => html`<option value=${name}>${name}</option>`)}
      </select>
      <${Button} id="add" onClick=${() => add(kind)}>Add layer</${Button}>
    </div>
    <${Note} id="kind-note">${explain(kind)} ${where}</${Note}>
  `;
}
