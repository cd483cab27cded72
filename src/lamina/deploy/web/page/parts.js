// What the pages are drawn with: components that know nothing of the studio or the server, and the
// texts of numbers. Names from models and data sets become text, never markup.

import { html, options, useEffect, useMemo, useRef, useState } from "./preact.js";

// Control characters, line ends, direction marks and surrogates are shown as code points.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

export function plain(text) {
  return String(text).replace(UNSAFE, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// Every text and label that is drawn passes here.
options.vnode = (node) => {
  if (node.type === null) node.props = plain(node.props);
  else if (node.props["aria-label"]) node.props["aria-label"] = plain(node.props["aria-label"]);
};

// As a ref: an element has the focus once it is drawn.
export const focus = (element) => element?.focus();

export const focusLater = (id) => requestAnimationFrame(() => focus(document.getElementById(id)));

export function Problem({ id, text }) {
  return text ? html`<p id=${id} class="problem" role="alert">${text}</p>` : null;
}

export function Note({ id, children }) {
  return html`<p id=${id} class="note">${children}</p>`;
}

export function Button({ small, children, ...more }) {
  return html`<button type="button" class=${small && "small"} ...${more}>${children}</button>`;
}

export function Details({ summary, children, ...more }) {
  return html`<details ...${more}><summary>${summary}</summary>${children}</details>`;
}

// An image, or images side by side in one from `draw_tiles`, in so many columns.
export function Picture({ png, alt, kind = "", columns }) {
  const style = columns && { "--columns": columns };
  return html`<img class=${kind} src=${`data:image/png;base64,${png}`} alt=${plain(alt)} style=${style} />`;
}

// The outputs of units of a layer, from `draw_inside`: a map of each unit, or a bar.
export function Units({ name, maps, units, values }) {
  const title = `outputs of ${units} units of ${name}, brighter is stronger`;
  if (maps) return html`<${Picture} ...${maps} alt=${title} kind="pixels" />`;
  const limit = Math.max(...values.map(Math.abs), 1e-9);
  const label = `${values.length} units; the largest output is ${Math.max(...values).toPrecision(2)}`;
  const bar = (value) => html`<i style=${{ height: `${Math.round((100 * Math.abs(value)) / limit)}%` }}></i>`;
  return html`<div class="bars" role="img" aria-label=${label}>${values.map(bar)}</div>`;
}

export function Layers({ filters, layers }) {
  const title = "filters of the first layer";
  return html`
    ${filters && html`<div class="look"><h4>${title}</h4><${Picture} ...${filters} alt=${title} kind="pixels" /></div>`}
    ${layers.map((layer) => html`<div class="look"><h4>${layer.name}</h4><${Units} ...${layer} /></div>`)}
  `;
}

// A request whose result is drawn by `Outcome`, and how to begin it; of several, the last counts.
export function useRequest() {
  const [request, setRequest] = useState({});
  const newest = useRef();
  const start = (what, promise) => {
    newest.current = promise;
    const tell = (outcome) => newest.current === promise && setRequest({ what, ...outcome });
    tell({ isPending: true });
    promise.then((result) => tell({ result })).catch(({ message }) => tell({ problem: message }));
  };
  return [request, start];
}

// A request that begins when its part is drawn, and again when one of `inputs` changes.
export function useLoaded(what, ask, inputs) {
  const [request, start] = useRequest();
  useEffect(() => start(what, ask()), inputs);
  return request;
}

// What has come of a request: nothing, progress, a problem, or what the component `draw` makes,
// once, of the result. Only the line about the progress is read aloud.
export function Outcome({ request: { what, isPending, problem, result }, draw }) {
  const drawn = useMemo(() => result && html`<${draw} ...${result} />`, [result]);
  return html`
    <p class="note" aria-live="polite">${isPending ? `${what} …` : ""}</p>
    ${isPending && html`<${Progress} label=${what} />`}
    <${Problem} text=${problem} />
    ${drawn}
  `;
}

// A progress bar; without a value, it only shows that something is computed.
export function Progress({ label, value }) {
  return html`<progress aria-label=${label} max="1" value=${value ?? undefined}></progress>`;
}

// A table whose first column names the rows; the others contain numbers or elements. Without a
// label, it never scrolls.
export function Table({ heads, rows, caption, label = caption || heads.join(", "), kind = "" }) {
  const region = label ? { tabindex: "0", role: "region", "aria-label": label } : {};
  const head = (text, place) =>
    text ? html`<th scope="col" class=${place ? "number" : ""}>${text}</th>` : html`<td></td>`;
  const cell = (value) => html`<td class="number">${value}</td>`;
  const row = ([name, ...values]) => html`<tr><th scope="row">${name}</th>${values.map(cell)}</tr>`;
  return html`<div class=${`scroll ${kind}`} ...${region}>
    <table>
      ${caption && html`<caption class="note">${caption}</caption>`}
      <thead><tr>${heads.map(head)}</tr></thead>
      <tbody>${rows.map(row)}</tbody>
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
