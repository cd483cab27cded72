// A drawing of the net as a flow, from the image to the classes: one block for each layer that
// changes the shape, as large as its output, on a logarithmic scale.

import { count, plain } from "./parts.js";
import { html } from "./preact.js";
import { state } from "./store.js";

const MARKS = /ReLU|GELU|SiLU|Sigmoid|Tanh|Softmax|BatchNorm|Dropout/; // drawn behind their block
const [HEIGHT, LETTER, GAP] = [84, 6, 4]; // of blocks, of a letter, and between blocks

// The blocks; equal ones that follow each other are one that is repeated.
function group(cards) {
  const blocks = [];
  for (const { id, name = "?", shape } of cards) {
    if (MARKS.test(name) && blocks.length) blocks.at(-1).marks.push({ id, name });
    else blocks.push({ name, shape, marks: [], ids: [id], repeats: 1 });
  }
  const merged = [];
  for (const block of blocks) {
    const last = merged.at(-1);
    const text = ({ name, shape, marks }) => JSON.stringify([name, shape, marks.map((mark) => mark.name)]);
    if (last && last.name !== "Flatten" && text(last) === text(block)) {
      last.repeats += 1;
      last.ids.push(...block.ids, ...block.marks.map(({ id }) => id));
    } else merged.push({ ...block, ids: [...block.ids, ...block.marks.map(({ id }) => id)] });
  }
  return merged;
}

// Sheets of an image, one behind the other, or a bar for a vector.
function measure(shape) {
  if (!shape) return { width: 24, height: 24, sheets: 1 };
  const [channels, height, width] = shape;
  if (height === undefined) return { width: 9, height: Math.min(HEIGHT, 10 + 6 * Math.log2(channels)), sheets: 1 };
  const side = (pixels) => Math.min(HEIGHT - 14, 6 + 6 * Math.log2(pixels));
  return { width: side(width), height: side(height), sheets: Math.min(6, 1 + Math.round(Math.log2(channels) / 1.6)) };
}

export function Flow({ cards, shape, image }) {
  if (!shape || !cards.length) return null;
  const blocks = [{ name: "Image", shape, marks: [], ids: [], repeats: 1, image }, ...group(cards)];
  let x = 0;
  const placed = blocks.map((block) => {
    const size = measure(block.shape);
    const title = block.repeats > 1 ? `${block.name} ×${block.repeats}` : block.name;
    const [channels, ...sides] = block.shape ?? [];
    const label = sides.length ? sides.join("×") : channels && count(channels);
    const drawn = size.width + 2 * (size.sheets - 1) + 4 * block.marks.length;
    const column = Math.max(drawn, LETTER * Math.max(title.length, label?.length ?? 0));
    x += column + GAP;
    const depth = sides.length ? `×${count(channels)}` : "";
    return {
      ...block,
      ...size,
      title,
      label,
      depth,
      middle: x - column / 2 - GAP,
      left: x - column / 2 - GAP - drawn / 2,
    };
  });
  const bottom = HEIGHT + 44; // with three lines of text
  const steps = placed.map(
    ({ title, label, depth, marks }) =>
      [title, ...marks.map(({ name }) => name)].join(", ") + (label ? ` → ${label}${depth}` : ""),
  );
  const name = plain(`The net as a flow: ${steps.join("; ")}`);
  return html`<div class="flow scroll" tabindex="0" role="region" aria-label="Drawing of the net">
    <svg role="img" aria-label=${name} width=${x} height=${bottom} viewBox=${`0 0 ${x} ${bottom}`}>
      <path class="way" d=${`M${placed[0].middle} ${HEIGHT / 2 + 6}H${placed.at(-1).middle}`} />
      ${placed.map((block, place) => html`<${Block} key=${place} ...${block} explained=${steps[place]} />`)}
    </svg>
  </div>`;
}

function Block({ left, middle, width, height, sheets, image, shape, marks, ids, title, label, depth, explained }) {
  const top = HEIGHT / 2 + 6 - height / 2;
  const kind = ids.includes(state.openCard) ? "open" : shape ? "" : "unknown";
  const layers = Array.from({ length: sheets }, (_, place) => 2 * (sheets - 1 - place));
  const end = left + width + 2 * (sheets - 1);
  return html`<g class=${kind}>
    <title>${explained}</title>
    ${layers.map((shift) => html`<rect x=${left + shift} y=${top - shift} width=${width} height=${height} rx="1.5" />`)}
    ${image && html`<image href=${`data:image/png;base64,${image}`} x=${left} y=${top} width=${width} height=${height} />`}
    ${marks.map((_, place) => html`<path class="mark" d=${`M${end + 3 + 4 * place} ${top}v${height}`} />`)}
    <text x=${middle} y=${HEIGHT + 16}>${title}</text>
    <text x=${middle} y=${HEIGHT + 28} class="size">${label}</text>
    <text x=${middle} y=${HEIGHT + 40} class="size">${depth}</text>
  </g>`;
}
