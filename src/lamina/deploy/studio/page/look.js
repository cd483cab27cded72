// The results of a run.

import { html } from "./preact.js";

export function Look() {
  return html`<p class="note">Look</p>`;
}
