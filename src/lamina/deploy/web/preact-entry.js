// What the pages use of Preact and htm. `npm run vendor` makes page/preact.js of it.

import htm from "htm";
import { h, options, render } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

export { options, render, useEffect, useLayoutEffect, useMemo, useRef, useState };

const LINE_END = /(?<=[^\s>])\s*\n\s*(?=[^\s<])/gu;
const draw = htm.bind(h);
const joined = new Map(); // by the strings of a template

// As in JSX, a line end within a text is a space.
export function html(strings, ...values) {
  const texts = joined.get(strings) ?? strings.map((text) => text.replace(LINE_END, " "));
  joined.set(strings, texts);
  return draw(texts, ...values);
}
