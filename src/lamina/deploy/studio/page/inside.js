// Inside the net, live.

import { html } from "./preact.js";

export function Inside() {
  return html`<p class="note">Inside</p>`;
}
