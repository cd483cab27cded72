// What the pages are drawn with: components that know nothing of the studio or the server, and the
// texts of numbers. Names from models and data sets become text, never markup.

import { html, options, useRef } from "./preact.js";

// Control characters, line ends, direction marks and surrogates are shown as code points.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

export function plain(text) {
  return String(text).replace(UNSAFE, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// Every text that is drawn passes here.
options.vnode = (node) => {
  if (node.type === null) node.props = plain(node.props);
};

export function Problem({ id, text }) {
  return text ? html`<p id=${id} class="problem" role="alert">${text}</p>` : null;
}

export function Note({ id, children }) {
  return html`<p id=${id} class="note">${children}</p>`;
}

export function Button({ small, children, ...more }) {
  return html`<button type="button" class=${small ? "small" : ""} ...${more}>${children}</button>`;
}

export function Details({ summary, open, children, ...more }) {
  return html`<details open=${open} ...${more}><summary>${summary}</summary>${children}</details>`;
}

export function Picture({ png, alt, kind = "" }) {
  return html`<img class=${kind} src=${`data:image/png;base64,${png}`} alt=${plain(alt)} />`;
}

// A progress bar; without a value, it only shows that something is computed.
export function Progress({ label, value }) {
  return html`<progress aria-label=${label} max="1" value=${value ?? undefined}></progress>`;
}

// The value of `compute`, computed again only when one of `inputs` is another one.
export function useKept(compute, inputs) {
  const kept = useRef({ inputs: [] });
  const isSame = kept.current.inputs.length && inputs.every((input, place) => input === kept.current.inputs[place]);
  if (!isSame) kept.current = { inputs, value: compute() };
  return kept.current.value;
}

// A table whose first column names the rows. The others contain numbers or elements.
export function Table({ heads, rows, caption, kind = "" }) {
  const className = (place) => (place ? "number" : "");
  const label = caption || heads.join(", ");
  return html`<div class=${`scroll ${kind}`} tabindex="0" role="region" aria-label=${plain(label)}>
    <table>
      ${caption && html`<caption class="note">${caption}</caption>`}
      <thead>
        <tr>
          ${heads.map((text, place) => (text ? html`<th scope="col" class=${className(place)}>${text}</th>` : html`<td></td>`))}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          ([name, ...values]) =>
            html`<tr>
              <th scope="row">${name}</th>
              ${values.map((value) => html`<td class="number">${value}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

// Rounds a tie, such as 12.25, to the even digit, as Python does, so that a number is the same
// everywhere.
export function percent(value) {
  const percents = 100 * value;
  return `${(percents % 1 === 0.25 ? percents - 0.01 : percents).toFixed(1)} %`;
}

export function count(value) {
  return Math.round(value).toLocaleString("en");
}

export function plural(size, noun, nouns = `${noun}s`) {
  return `${count(size)} ${size === 1 ? noun : nouns}`;
}

export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return size >= 1e4 ? `${(value / 1e3).toFixed(0)} k` : count(value);
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
