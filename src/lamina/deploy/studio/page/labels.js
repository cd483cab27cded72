// Labels worth checking, to keep, change or leave out.

import { html } from "./preact.js";

export function Labels() {
  return html`<p class="note">Labels</p>`;
}
export function receiveLabels() {}
