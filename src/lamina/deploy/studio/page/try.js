// An image of one's own.

import { html } from "./preact.js";

export function Try() {
  return html`<p class="note">Try</p>`;
}
