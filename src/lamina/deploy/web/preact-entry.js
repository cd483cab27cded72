// What the pages use of Preact and htm. `npm run vendor` makes page/preact.js of it.

import htm from "htm";
import { h, options, render } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export { options, render, useEffect, useLayoutEffect, useRef, useState };

const LINE_END = /(?<=[^\s>])\s*\n\s*(?=[^\s<])/gu;
const draw = htm.bind(h);
const joined = new Map(); // by the strings of a template

// As in JSX, a line end within a text is a space.
export function html(strings, ...values) {
  if (!joined.has(strings)) {
    joined.set(
      strings,
      strings.map((text) => text.replace(LINE_END, " ")),
    );
  }
  return draw(joined.get(strings), ...values);
}
