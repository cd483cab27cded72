// How runs differ.

import { html } from "./preact.js";

export function Compare() {
  return html`<p class="note">Compare</p>`;
}
