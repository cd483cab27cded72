// Try: the net on an image of your own.

import { post } from "./api.js";
import { showInside } from "./closer.js";
import { make, note } from "./elements.js";
import { makeForm, offerMore } from "./try-form.js";

export async function show(place, run) {
  const status = make("p", { className: "note", ariaLive: "polite" });
  const inside = make("div");
  const more = make("div");
  const predict = async (image, isCurrent, isLive) => {
    const send = (action) => post(action, image, { run: run.name });
    const found = await send("look");
    if (isCurrent()) {
      inside.replaceChildren(...showInside(found));
      more.replaceChildren(...(isLive ? [] : offerMore(send)));
    }
    return "";
  };
  place.replaceChildren(
    makeForm({ predict, status, limitBytes: 32e6 }),
    note("The image goes only to this studio, which does not store it."),
    status,
    inside,
    more,
  );
}
