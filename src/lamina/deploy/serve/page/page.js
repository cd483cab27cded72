import { ApiError, findModels, send, setToken } from "./api.js";
import { make, plain, showPrediction, showCloser, showProblem } from "./view.js";

const find = (id) => document.getElementById(id);
const LIMIT_BYTES = 10_000_000;

let models = [];
let newest = 0; // predictions for an image that is no longer the newest are dropped

function say(text) {
  find("status").textContent = plain(text);
}

async function connect() {
  const isAnother = !find("access").hidden;
  try {
    models = await findModels();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const needsToken = error.status === 401;
    if (needsToken) find("access").hidden = false;
    find("models").textContent = needsToken ? "This server asks for its token." : "";
    if (!needsToken) return say(error.message);
    if (isAnother) say("The token is wrong.");
    find("token").focus();
    return;
  }
  find("access").hidden = true;
  say(isAnother ? "Connected." : "");
  const lines = models.map((model) => `${model.model} (${model.net} on ${model.data}${model.score ? `, ${model.score}` : ""})`);
  find("models").textContent = plain(`Served: ${lines.join("; ")}`);
  const cards = models.map((model, place) => {
    const card = make("section", { className: "model", id: `model-${place}`, hidden: true });
    card.setAttribute("aria-labelledby", `model-${place}-title`);
    return card;
  });
  find("predictions").replaceChildren(...cards);
}

async function take(file) {
  if (!file) return say("That was not an image file.");
  await connected;
  if (!models.length) return say("There is no model yet. Connect first.");
  if (file.size > LIMIT_BYTES) return say("This image is larger than 10 MB. Give a smaller one.");
  const turn = ++newest;
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    if (turn === newest) say("This cannot be read. Give an image file."); // a folder, or a file that is gone
    return;
  }
  if (turn !== newest) return;
  for (const card of find("predictions").children) card.hidden = true;
  const preview = find("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = "The image you gave";
  preview.hidden = false;
  say("Computing …");
  const said = await Promise.all(models.map((model, place) => predict(model, find(`model-${place}`), file, turn)));
  if (turn === newest) say(said.join(" "));
}

async function predict(model, card, file, turn) {
  try {
    const given = await send("predict", model.model, file);
    if (turn !== newest) return "";
    const words = showPrediction(card, model, given, (task, button, place) => look(task, model, file, turn, button, place));
    card.hidden = false;
    return `${model.model} predicts ${words}.`;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (turn !== newest) return "";
    showProblem(card, model, error.message);
    card.hidden = false;
    return `${model.model}: ${error.message}`;
  }
}

async function look(task, model, file, turn, button, place) {
  button.disabled = true;
  say("Computing …");
  try {
    const found = await send(task, model.model, file);
    if (turn === newest) say(showCloser(place, task, found));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (turn !== newest) return;
    place.replaceChildren(make("p", { className: "note" }, error.message));
    say(error.message);
    button.disabled = false;
  }
}

for (const id of ["file", "camera"]) {
  // Forgotten when another is to be chosen, so that it may be the same one.
  find(id).addEventListener("click", ({ target }) => { target.value = ""; });
  find(id).addEventListener("change", ({ target }) => { if (target.files.length) take(target.files[0]); });
}

document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) take(file);
});

// An image that misses the frame must not replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});

find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = find("token").value;
  if (!/^[ -~]+$/.test(token)) return say("The token is wrong: a token is printable ASCII.");
  setToken(token);
  connected = connect();
});

let connected = connect();
