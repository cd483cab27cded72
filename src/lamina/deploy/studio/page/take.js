// What to take away.

import { html } from "./preact.js";

export function Take() {
  return html`<p class="note">Take</p>`;
}
