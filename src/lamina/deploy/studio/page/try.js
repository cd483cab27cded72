// Try: the net on an image of your own, from a file, the clipboard or the camera. No image is
// stored.

import { post } from "./api.js";
import { startCamera, stopCamera, takeImage } from "./camera.js";
import { offerMore, settle, showInside } from "./closer.js";
import { attempt, make, tell } from "./elements.js";

const FRAME_MS = 500;
const FRAME_PX = 320;
let current = null; // the panel that is shown

document.addEventListener("paste", ({ clipboardData: { files } }) => {
  if (current?.place.isConnected && files.length) current.take(files[0]);
});

export async function show(place, run) {
  let image = null; // bytes, or the last frame
  const problem = make("p", { className: "problem", role: "alert", hidden: true });
  const [inside, more] = [make("div"), make("div")];
  const video = make("video", {
    muted: true,
    playsInline: true,
    hidden: true,
    ariaLabel: "Your camera",
  });
  const file = make("input", {
    type: "file",
    accept: "image/*",
    id: "try-file",
    on: {
      click: () => {
        file.value = "";
      }, // choosing the same file again is a change
      change: () => file.files[0] && take(file.files[0]),
    },
  });
  const camera = make(
    "button",
    { type: "button", on: { click: () => (video.hidden ? start() : stop()) } },
    "Use the camera",
  );
  const send = (action) => post(action, image, { run: run.name });
  const drop = make(
    "div",
    {
      className: "drop",
      on: {
        dragover: (event) => event.preventDefault(),
        drop: (event) => {
          event.preventDefault();
          take(event.dataTransfer.files[0]);
        },
      },
    },
    make(
      "p",
      {},
      "Drop an image here, paste one, or ",
      make("label", { htmlFor: "try-file" }, "choose a file: "),
      file,
    ),
    camera,
    video,
  );
  const note = make(
    "p",
    { className: "note" },
    "The image goes only to this studio, which does not store it.",
  );
  place.replaceChildren(drop, note, problem, inside, more);
  current = { place, take };

  function take(given) {
    stop();
    for (const part of [inside, more]) part.replaceChildren();
    tell(problem, given ? null : "That was not a file. Drop an image file, such as a JPEG or PNG.");
    if (!given) return;
    image = given;
    settle(inside, "Predicting …", send("look"), (found) => [
      ...showInside(found),
      ...offerMore(send),
    ]);
  }

  function stop() {
    stopCamera(video);
    camera.textContent = "Use the camera";
  }

  async function start() {
    camera.disabled = true;
    await attempt(problem, () => startCamera(video, { width: FRAME_PX }));
    camera.disabled = false;
    if (video.hidden) return;
    for (const part of [inside, more]) part.replaceChildren();
    camera.textContent = "Stop the camera";
    while (!video.hidden) {
      const until = performance.now() + FRAME_MS;
      if (!place.isConnected) stop();
      else if (!document.hidden) await attempt(problem, predictFrame);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, until - performance.now())));
    }
  }

  async function predictFrame() {
    const frame = await takeImage(video, "image/jpeg");
    if (video.hidden) return; // a file was chosen meanwhile
    image = frame;
    const found = await send("look");
    if (video.hidden) return;
    inside.replaceChildren(...showInside(found));
    if (!more.firstChild) more.append(...offerMore(send));
  }
}
