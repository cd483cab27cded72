// The data set: which one, what is in it, and its problems.

import { ask } from "./api.js";
import { button, count, details, div, fill, find, make, note, paragraph, picture, problem } from "./elements.js";
import { announce, chosen, listen, state } from "./shared.js";

const WORDS = { error: "Error", warning: "Warning", note: "Note" };
const WAIT_MS = 300; // after the last change, because arrow keys pass other data sets
let inspecting = {}; // number of the job, and what it loads
let timer = 0;

export function startData() {
  const list = (chosenOne) => {
    const pairs = state.data.map(({ name, source }) => [source, name]);
    fill(find("source"), pairs, chosenOne);
  };
  list();
  find("source").addEventListener("change", () => {
    clearTimeout(timer);
    forget();
    timer = setTimeout(() => use(find("source").value), WAIT_MS);
  });
  for (const id of ["size", "val"]) find(id).addEventListener("change", () => use(find("source").value));
  listen("event", receive);
  listen("sources", (source) => {
    list(source);
    use(source);
  });
  listen("start", () => use(find("source").value));
  listen("lost", () => chosen.preview || use(chosen.source));
}

// Until the data set is read, nothing can be trained on it.
function forget() {
  inspecting.given = null;
  announce("preview", (chosen.preview = null));
}

// Published sets have no val split, which the curves need; for others, lamina draws one.
function findVal(source) {
  return state.data.some((known) => known.source === source && known.is_built_in) ? "0.1" : "";
}

export function use(source) {
  find("source").value = source;
  find("val").placeholder = findVal(source) || "as lamina chooses";
  return choose(source);
}

// Nothing is downloaded unless the visitor asks for it.
function offerDownload(source, size) {
  const text = `${source} is not on this machine yet, ${size} MB.`;
  const get = button(`Download ${size} MB`, () => choose(source, true));
  find("data-view").replaceChildren(paragraph(text), get);
}

// How the data set is loaded, for the studio's commands.
export function describeSource() {
  const size = find("size").value.trim(); // if it is no number, lamina says so
  return {
    source: chosen.source,
    size_px: Number(size) || size || null,
    val: find("val").value.trim() || findVal(chosen.source),
  };
}

export async function choose(source, mayDownload = false) {
  if (!source) return;
  chosen.source = source;
  forget();
  find("data-view").replaceChildren(note(`Reading ${find("source").selectedOptions[0]?.text ?? source} …`));
  // it may have ended
  if (inspecting.number) ask("stop", { number: inspecting.number }).catch(() => null);
  const given = describeSource();
  inspecting = { given };
  try {
    const found = await ask("inspect", { ...given, may_download: mayDownload });
    const { number, is_corrected: isCorrected, download_mb: size } = found;
    if (size) return inspecting.given === given && offerDownload(source, size);
    // other data were chosen meanwhile
    if (inspecting.given !== given) return await ask("stop", { number }).catch(() => null);
    inspecting.number = number;
    find("undo").hidden = !isCorrected; // also if the corrections are why it cannot be read
  } catch (error) {
    if (inspecting.given === given) fail(error);
  }
}

async function receive(event) {
  if (!inspecting.number || !inspecting.given || ![event.job, event.number].includes(inspecting.number)) return;
  if (event.event === "progress") {
    find("data-view").replaceChildren(
      note(`${event.what} ${count(event.done)} of ${count(event.total)}`),
      make("progress", { max: event.total, value: event.done, ariaLabel: event.what }),
    );
  }
  if (event.event === "job" && event.state === "failed") fail({ message: event.problem });
  if (event.event !== "data") return;
  const { given } = inspecting;
  try {
    const preview = await ask("preview", given);
    if (given !== inspecting.given) return; // other data were chosen meanwhile
    chosen.preview = preview;
    show(preview, event.findings);
    announce("preview", preview);
  } catch (error) {
    if (inspecting.given === given) fail(error);
  }
}

function fail(error) {
  find("data-view").replaceChildren(problem(error.message));
}

function show(preview, findings) {
  const { images, shape, kind, classes, groups } = preview;
  const splits = Object.entries(images)
    .map(([split, size]) => `${count(size)} ${split}`)
    .join(", ");
  const [channels, height, width] = shape;
  const color = channels === 1 ? "gray" : "color";
  const noun = kind === "regression" ? "number" : "class";
  const outputs = classes === 1 ? `1 ${noun}` : `${classes} ${noun === "class" ? "classes" : "numbers"}`;
  const facts = `${splits}; ${height}×${width} px, ${color}; ${kind}, ${outputs}`;
  const sheet = groups.map(({ name, count: size, images: shown }) => {
    const tiles = shown.map(({ row, png }) => picture(png, `training image ${row} of ${name}`));
    const caption = make("span", {}, name, " ", make("span", { className: "note" }, count(size)));
    return make("li", {}, div("tiles", ...tiles), caption);
  });
  const more =
    classes > groups.length && groups.length > 1 ? note(`and ${classes - groups.length} more classes`) : null;
  find("data-view").replaceChildren(
    paragraph(facts),
    note(`Splits: ${preview.split_rule}`),
    make("ul", { className: "sheet", ariaLabel: "Samples of each class" }, ...sheet),
    more ?? "",
    showFindings(findings),
  );
}

function showFindings(findings) {
  if (!findings.length) return make("p", { className: "good" }, "No problems found.");
  const items = findings.map(({ severity, message, images }) => {
    const names = images.map(({ split, name }) => make("li", {}, split ? `${name} (${split})` : name));
    const which = names.length ? details("Which images", make("ul", {}, ...names)) : null;
    return make("li", { className: severity }, make("strong", {}, `${WORDS[severity]}: `), message, which);
  });
  const summary = `${findings.length} ${findings.length === 1 ? "finding" : "findings"} about this data`;
  const shown = details(summary, make("ul", { className: "findings" }, ...items));
  shown.open = findings[0].severity === "error";
  return shown;
}
