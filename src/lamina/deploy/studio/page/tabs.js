// The tabs about the selected run. Each part draws itself when it is chosen, or when the run
// changes.

import * as compare from "./compare.js";
import * as look from "./look.js";
import * as take from "./take.js";
import * as attempt from "./try.js";
import { find, make, note } from "./elements.js";
import { chosen, listen } from "./shared.js";

const PARTS = { look, compare, try: attempt, take };

export function startTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => show(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      // Enter opens it, because some take long
      tabs[(place + step + tabs.length) % tabs.length].focus();
    });
  }
  document.addEventListener("click", ({ target }) => target.matches('a[href^="#tab-"]') && show(target.hash.slice(5)));
  listen("run", () => show(chosen.tab));
  listen("compared", () => chosen.tab === "compare" && show(chosen.tab));
  show(chosen.tab);
}

export async function show(name) {
  chosen.tab = name;
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const isOpen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(isOpen));
    tab.tabIndex = isOpen ? 0 : -1;
  }
  const panel = find("panel");
  panel.setAttribute("aria-labelledby", `tab-${name}`);
  if (!chosen.run) {
    panel.replaceChildren(note("Train a net, or select a run, to look inside it."));
    return;
  }
  const place = make("div");
  panel.replaceChildren(place);
  try {
    await PARTS[name].show(place, chosen.run);
  } catch (error) {
    place.replaceChildren(make("p", { className: "problem", role: "alert" }, error.message));
  }
}
