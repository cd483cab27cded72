// A drawing of the net: a block for each layer that changes the shape, on a logarithmic scale.

import { count, plain } from "../parts.js";
import { html, useRef } from "../preact.js";
import { state } from "../state.js";

const [HEIGHT, LETTER, GAP] = [84, 5.5, 3]; // of blocks, of a letter, and between blocks

// Blocks of a layer and the layers with a role after it, which are lines behind the block.
// Each list has equal blocks that follow each other.
function group(cards) {
  const blocks = [];
  for (const card of cards) {
    if (card.role && blocks.length) blocks.at(-1).push(card);
    else blocks.push([card]);
  }
  const describe = (block) => JSON.stringify(block.map(({ name, shape }) => [name, shape]));
  const groups = [];
  for (const block of blocks) {
    if (groups.length && describe(groups.at(-1)[0]) === describe(block)) groups.at(-1).push(block);
    else groups.push([block]);
  }
  return groups;
}

// Sheets of an image, one behind the other, or a bar for a vector, with their labels.
function measure([channels, ...sides]) {
  if (!channels) return { width: 24, height: 24, sheets: 1, size: "", depth: "" };
  const side = (pixels) => Math.min(HEIGHT - 14, 6 + 6 * Math.log2(pixels));
  const bar = { width: 9, height: Math.min(HEIGHT, 10 + 6 * Math.log2(channels)), sheets: 1 };
  if (!sides.length) return { ...bar, size: count(channels), depth: "" };
  const sheets = Math.min(6, 1 + Math.round(Math.log2(channels) / 1.6));
  const labels = { size: sides.join("×"), depth: `×${count(channels)}` };
  return { width: side(sides[1]), height: side(sides[0]), sheets, ...labels };
}

export function Flow({ cards, shape, image }) {
  const kept = useRef(shape); // while other data are read, nothing jumps
  kept.current = shape ?? kept.current;
  if (!kept.current || !cards.length) return null;
  let x = 0;
  const place = (equal) => {
    const [{ name = "?", shape: output = [] }, ...marks] = equal[0];
    const box = measure(output);
    const title = equal.length > 1 ? `${name} ×${equal.length}` : name;
    const drawn = box.width + 2 * (box.sheets - 1) + 4 * marks.length;
    const column = Math.max(drawn, LETTER * Math.max(title.length, box.size.length));
    const middle = x + column / 2;
    x += column + GAP;
    const isOpen = equal.flat().some(({ id }) => id === state.openCard);
    const names = [title, ...marks.map((mark) => mark.name)].join(", ");
    const text = box.size ? `${names} → ${box.size}${box.depth}` : names;
    return { ...box, title, marks, middle, left: middle - drawn / 2, isOpen, text };
  };
  const blocks = [[[{ name: "Image", shape: kept.current }]], ...group(cards)].map(place);
  const name = plain(`The net as a flow: ${blocks.map(({ text }) => text).join("; ")}`);
  const way = `M${blocks[0].middle} ${HEIGHT / 2 + 6}H${blocks.at(-1).middle}`;
  const bottom = HEIGHT + 44; // with three lines of text
  return html`<div class="flow scroll" tabindex="0" role="region" aria-label="Drawing of the net">
    <svg role="img" aria-label=${name} width=${x} height=${bottom} viewBox=${`0 0 ${x} ${bottom}`}>
      <path class="way" d=${way} />
      ${blocks.map((block, at) => html`<${Block} key=${at} ...${block} image=${at ? null : image} />`)}
    </svg>
  </div>`;
}

function Block({ left, middle, width, height, sheets, size, depth, marks, title, text, isOpen, image }) {
  const top = HEIGHT / 2 + 6 - height / 2;
  const box = { width, height };
  const shifts = Array.from({ length: sheets }, (_, at) => 2 * (sheets - 1 - at));
  const end = left + width + 2 * (sheets - 1) + 3;
  return html`<g class=${isOpen ? "open" : size ? "" : "unknown"}>
    <title>${text}</title>
    ${shifts.map((shift) => html`<rect x=${left + shift} y=${top - shift} ...${box} rx="1.5" />`)}
    ${image && html`<image href=${`data:image/png;base64,${image}`} x=${left} y=${top} ...${box} />`}
    ${marks.map((_, at) => html`<path class="mark" d=${`M${end + 4 * at} ${top}v${height}`} />`)}
    ${[title, size, depth].map((line, at) => html`<text x=${middle} y=${HEIGHT + 16 + 12 * at}>${line}</text>`)}
  </g>`;
}
