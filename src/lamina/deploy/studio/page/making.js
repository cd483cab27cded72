// New classes: images from files, folders or the webcam, saved by the studio as a folder of class
// folders.

import { ask, post } from "./api.js";
import { startCamera, stopCamera, takeImage } from "./camera.js";
import { count, find, make, picture, tell } from "./elements.js";
import { announce, state } from "./shared.js";

const LIMIT_BYTES = 32e6;
const FEW_IMAGES = 20; // of a class
const BURST_MS = 200; // from image to image
const SHOWN_IMAGES = 60; // of a class, as the studio sends
let source = null; // the set, once it has an image

const tellProblem = (error) => tell(find("making-problem"), error?.message);

export function startMaking() {
  find("make").addEventListener("click", () => openMaking(find("making").hidden));
  find("add-class").addEventListener("click", () => addClass().querySelector("input").focus());
  find("use-images").addEventListener("click", () => useImages().catch(tellProblem));
  find("set-name").addEventListener("change", () => restart().catch(tellProblem));
  // Beside a place for images, a drop does nothing; otherwise the browser would leave the page.
  document.addEventListener("dragover", (event) => {
    if (event.defaultPrevented || !event.dataTransfer.types.includes("Files") || event.target.type === "file") return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  });
}

export function openMaking(isOpen) {
  find("making").hidden = !isOpen;
  find("make").setAttribute("aria-expanded", String(isOpen));
  find("made").textContent = "";
  if (isOpen && !find("classes").firstChild) restart().catch(tellProblem);
  if (isOpen) return find("set-name").focus();
  stopCamera(find("camera"));
}

// Shows the classes and images of a set that was made before, and room for at least two classes.
async function restart() {
  const name = find("set-name").value;
  source = null;
  tellProblem(null);
  find("classes").replaceChildren();
  find("use-images").disabled = true;
  const found = await ask("set", { set_name: name });
  if (name !== find("set-name").value) return;
  for (const { name: own, count: size, images } of found.classes) {
    const row = addClass();
    row.querySelector(".name").value = own; // also without images
    for (const image of images)
      showImage(row, { ...image, source: found.source, count: size }, { set_name: name, class_name: own });
    showCount(row);
  }
  while (find("classes").children.length < 2) addClass();
}

async function useImages() {
  state.data = (await ask("state")).data;
  const rows = [...find("classes").children].filter((row) => Number(row.dataset.count));
  announce("sources", source);
  openMaking(false);
  const classes = rows.map((row) => `${row.querySelector(".name").value} (${row.dataset.count})`);
  find("made").textContent =
    `${find("set-name").value} is chosen, with ${classes.join(", ")}. ` +
    "Next: choose a net, or “Choose for me”; then Train.";
  find("source").focus();
}

function addClass() {
  const row = find("class-row").content.firstElementChild.cloneNode(true);
  row.querySelector("legend").textContent = `Class ${find("classes").children.length + 1}`;
  const files = row.querySelector("[type=file]");
  files.addEventListener("change", () =>
    save(row, [...files.files]).then(() => {
      files.value = "";
    }),
  );
  row.addEventListener("dragover", (event) => event.preventDefault());
  row.addEventListener("drop", (event) => {
    event.preventDefault();
    readDropped(event.dataTransfer).then((dropped) => save(row, dropped), tellProblem);
  });
  saveWhileHeld(row, row.querySelector("button"));
  find("classes").append(row);
  return row;
}

// The files that were dropped, also those in folders, without hidden ones.
async function readDropped({ items }) {
  const read = (entry) =>
    readInside(entry).catch(() => ({
      name: entry.name,
      problem: "cannot be read. Check its permissions.",
    }));
  const readInside = async (entry) => {
    if (entry instanceof File) return entry;
    if (entry.isFile) return new Promise((resolve, reject) => entry.file(resolve, reject));
    const reader = entry.createReader(),
      inside = [];
    for (;;) {
      // at most 100 at once
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return Promise.all(inside.map(read));
      inside.push(...some.filter(({ name }) => !name.startsWith(".")));
    }
  };
  // an image of another page has no entry
  const given = [...items].filter(({ kind }) => kind === "file");
  // before the event ends
  const entries = given.map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  return (await Promise.all(entries.map(read))).flat(Infinity);
}

// Saves files one after the other, and returns whether all were; a file that is refused does not
// stop the others.
async function save(row, files) {
  const refused = [];
  // they may change meanwhile
  const names = {
    set_name: find("set-name").value,
    class_name: row.querySelector(".name").value,
  };
  for (const [place, file] of files.entries()) {
    if (files.length > 1) row.querySelector(".note").textContent = `Saving ${place + 1} of ${files.length} …`;
    await saveImage(row, file, names).catch((error) => refused.push(`${file.name}: ${error.message}`));
  }
  showCount(row);
  const more = refused.length > 1 ? ` ${refused.length - 1} more of ${files.length} files were refused.` : "";
  tellProblem(refused.length ? { message: refused[0] + more } : null);
  return !refused.length;
}

async function saveImage(row, file, names) {
  if (file.problem) throw new Error(file.problem);
  if (file.size > LIMIT_BYTES) throw new Error("larger than 32 MB. Use a smaller image.");
  showImage(row, await post("save-image", await file.arrayBuffer(), names), names);
}

function showImage(row, saved, names) {
  if (!row.isConnected) return; // of another set
  source = saved.source;
  row.dataset.count = saved.count;
  // it names the folder
  Object.assign(row.querySelector(".name"), { value: names.class_name, readOnly: true });
  find("use-images").disabled = false;
  const remove = async () => {
    row.dataset.count = await ask("remove-image", { ...names, file: saved.file });
    (item.nextElementSibling ?? item.previousElementSibling ?? row).querySelector("button").focus();
    item.remove();
    showCount(row);
  };
  const item = make(
    "li",
    {},
    picture(saved.png, saved.file),
    make(
      "button",
      {
        type: "button",
        className: "small",
        ariaLabel: `Remove ${saved.file} of ${names.class_name}`,
        on: { click: () => remove().catch(tellProblem) },
      },
      "×",
    ),
  );
  row.querySelector("ul").prepend(item);
  row.querySelector("ul").children[SHOWN_IMAGES]?.remove();
}

function showCount(row) {
  const size = Number(row.dataset.count ?? 0),
    shown = row.querySelector("ul").children.length;
  row.querySelector(".note").textContent =
    `${count(size)} ${size === 1 ? "image" : "images"}` +
    (size > shown ? `, the last ${shown} shown` : size < FEW_IMAGES ? `; add more, at least ${FEW_IMAGES}` : "");
}

// While the button is held, by pointer or key, the images of the webcam are saved.
function saveWhileHeld(row, button) {
  const video = find("camera");
  let isHeld = false,
    isSaving = false;
  const hold = async ({ key }) => {
    if (isHeld || ![undefined, " ", "Enter"].includes(key)) return;
    isHeld = true;
    if (isSaving) return; // the loop goes on
    isSaving = true;
    try {
      if (!video.srcObject) await startCamera(video, { width: 640, height: 480 });
      while (isHeld && row.isConnected && video.srcObject) {
        const wait = new Promise((done) => setTimeout(done, BURST_MS));
        isHeld = (await save(row, [new File([await takeImage(video, "image/png")], "webcam image")])) && isHeld;
        await wait;
      }
    } catch (error) {
      tellProblem(error);
    }
    isHeld = isSaving = false;
  };
  for (const begin of ["pointerdown", "keydown"]) button.addEventListener(begin, hold);
  for (const end of ["pointerup", "pointerleave", "keyup", "blur"])
    button.addEventListener(end, () => {
      isHeld = false;
    });
}
