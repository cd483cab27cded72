// Curves over epochs.

import { html } from "./preact.js";

export function Curves() {
  return html`<p class="note">Curves</p>`;
}
