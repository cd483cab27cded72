// The lessons.

import { html } from "./preact.js";

export function Lessons() {
  return html`<p class="note">Lessons</p>`;
}

export function openLessons() {}

export function receiveLessons() {}
