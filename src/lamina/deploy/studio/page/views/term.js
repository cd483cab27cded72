// A small mark beside a term of the field, which shows its definition in the glossary.

import { html, useState } from "../preact.js";
import { state } from "../state.js";

let last = 0; // number of a mark

// Definitions by term, in lower case, from the file that the documentation shows, too.
export function readGlossary(text) {
  const entries = text.matchAll(/((?:^\S.*\n)+)((?:^ {2}\S.*\n)+)/gmu);
  const list = ([, terms, lines]) => {
    const meaning = lines.replaceAll("`", "").trim().replace(/\s+/gu, " ");
    return terms
      .trim()
      .split("\n")
      .map((term) => [term.toLowerCase(), meaning]);
  };
  return new Map([...entries].flatMap(list));
}

// The definition of a term, also in the plural and with a unit, such as Cutout (px).
export function findMeaning(name) {
  const term = name.toLowerCase().replace(/ \(.*\)$/u, "");
  return state.glossary.get(term) ?? state.glossary.get(term.replace(/s$/u, ""));
}

export function Term({ name }) {
  const [id] = useState(() => `term-${++last}`);
  const meaning = findMeaning(name);
  if (!meaning) return null;
  return html`
    <button type="button" class="term" popovertarget=${id}><span class="unseen">What is “${name}”</span>?</button>
    <span id=${id} class="meaning" popover="auto" role="note"><strong>${name}</strong>: ${meaning}</span>
  `;
}
