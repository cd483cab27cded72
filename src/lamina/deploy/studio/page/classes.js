// Classes of one's own: images from files, folders or the webcam.

import { html } from "./preact.js";

export function Classes() {
  return html`<p class="note">Classes</p>`;
}
export function receiveClasses() {}
