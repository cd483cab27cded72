// Actions on the cards of the net: add, move, remove them, and change their arguments.

import { change, state } from "../state.js";
import { edit, makeId } from "./net.js";

// Focuses the first of these elements that there is, once the page is drawn.
function focus(...ids) {
  const find = (id) => document.getElementById(id);
  requestAnimationFrame(() => find(ids.find(find))?.focus());
}

// Adds a layer after the open card, or before the output.
export async function add(kind) {
  const { text } = state.layers.find(({ name }) => name === kind);
  const id = makeId();
  await edit(null, (cards) => cards.splice(findPlace(cards), 0, { text, id }));
  change({ openCard: id });
  focus(`argument-0-${id}`, `card-${id}`);
}

export function findPlace(cards) {
  const last = cards.at(-1)?.name === "Output" ? cards.length - 1 : cards.length;
  const place = cards.findIndex(({ id }) => id === state.openCard);
  return place < 0 ? last : Math.min(place + 1, last);
}

export async function move(card, steps, next) {
  await edit(card.id, (cards, from) => cards.splice(Math.max(0, from + steps), 0, ...cards.splice(from, 1)));
  focus(next);
}

export async function remove(card) {
  let next;
  await edit(card.id, (cards, place) => {
    cards.splice(place, 1);
    next = cards[place] ?? cards.at(-1);
  });
  focus(`card-${next?.id}`, "add");
}

// Changes an argument: words such as same need no quotes.
export function setArgument(card, changed, typed) {
  const text = typed.trim();
  const value = /^[a-z_]\w*$/i.test(text) && !/^(True|False|None)$/.test(text) ? `'${text}'` : text;
  return edit(card.id, (cards, place) => {
    const values = cards[place].arguments.map((known) => (known.name === changed ? { ...known, value } : known));
    const shown = values.filter((known) => known.value && known.value !== known.default);
    const texts = shown.map((known) => `${known.name}=${known.value}`);
    cards[place] = { ...cards[place], arguments: values, text: `${card.name}(${texts.join(", ")})` };
  });
}
