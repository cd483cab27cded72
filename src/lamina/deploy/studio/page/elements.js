// Elements of the page.

// of the page of lamina serve
import { make, note, paragraph, percent, picture, plain, tabulate as makeTable } from "./view.js";

export { make, note, paragraph, percent, picture };

// Replaces the content of a place. Focus, what is being typed and open details stay with the
// elements of the same key.
export function redraw(place, ...children) {
  const before = place.contains(document.activeElement) ? document.activeElement : null;
  const open = [...place.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key);
  place.replaceChildren(...children);
  for (const key of open) findKey(place, key)?.setAttribute("open", "");
  const after = before?.dataset.key && findKey(place, before.dataset.key);
  if (!after) return;
  if (before.matches("[type=text], textarea") && before.value !== before.defaultValue) after.value = before.value;
  after.focus();
}

export function findKey(place, key) {
  return place.querySelector(`[data-key="${CSS.escape(key)}"]`);
}

export function find(id) {
  return document.getElementById(id);
}

// Shows a problem where it arose, or hides it if there is none.
export function tell(place, problem) {
  const text = problem ? plain(problem) : "";
  // else a screen reader would speak it again
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !problem;
}

// Does something, and shows its problem where it arose.
export async function attempt(place, act) {
  tell(place, null);
  await act().catch((error) => tell(place, error.message));
}

// Options of a select: [value, text] pairs, the chosen one kept if it is still there.
export function fill(select, pairs, chosen = select.value) {
  select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}

// A table that scrolls sideways.
export function tabulate(heads, rows, caption = "") {
  return make(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption || heads.join(", ") },
    makeTable(heads, rows, caption),
  );
}

export function count(value) {
  return Math.round(value).toLocaleString("en");
}

export function short(value) {
  const size = Math.abs(value);
  return size >= 1e9
    ? `${(value / 1e9).toFixed(1)} G`
    : size >= 1e6
      ? `${(value / 1e6).toFixed(1)} M`
      : size >= 1e4
        ? `${(value / 1e3).toFixed(0)} k`
        : count(value);
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
