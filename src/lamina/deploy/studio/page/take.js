// Take away: how to repeat the run without the studio, and files to download.

import { ask, askLast, download } from "./api.js";
import { attempt, count, make, note, paragraph, tell } from "./elements.js";
import { isActive, listen, state } from "./shared.js";

const FILES = {
  "report.html": ["Report", "A page with all results, curves and images, in one file."],
  "model.onnx": ["ONNX model", "For other programs, with its preprocessing, compared numerically with the run."],
};
const made = new Map(); // for each run and file, its job and what it printed
let draw = () => {};

listen("lost", () => draw());
listen("event", (event) => {
  for (const one of made.values()) {
    if (event.job !== one.number && event.number !== one.number) continue;
    if (event.event === "export") one.result = event;
    if (event.event === "job") one.problem = event.state === "failed" ? event.problem : "";
    draw();
  }
});

export async function show(place, run) {
  const code = (title, text) =>
    text
      ? [make("h3", {}, `As ${title}`), make("pre", { tabIndex: 0, textContent: text }), copyButton(text, title)]
      : [];
  const files = make("div");
  const { command, python, remarks } = await askLast("repeat", { run: run.name });
  if (!place.isConnected) return; // another run or tab was opened meanwhile
  const same =
    "This trains a new run with the same weights: " + "bit-identical on the same processor type and torch version.";
  place.replaceChildren(
    ...[
      remarks.length ? null : note(same),
      ...remarks.map((remark) => make("p", { className: "diagnosis" }, remark)),
      ...code("a command", command),
      ...code("Python", python),
      make("h3", {}, "Files"),
      paragraph("Folder of the run: ", make("code", {}, run.folder ?? "")),
      files,
    ].filter(Boolean),
  );
  draw = async () => {
    const known = files.isConnected && (await ask("files", { run: run.name }).catch(() => null));
    if (known) files.replaceChildren(...Object.keys(FILES).map((file) => showFile(run, file, known[file])));
  };
  await draw();
}

function copyButton(text, title) {
  const told = make("span", { className: "note", ariaLive: "polite" });
  const copy = async () => {
    told.textContent = await navigator.clipboard.writeText(text).then(
      () => "Copied.",
      () => "The browser does not allow copying here. Select the text and press Ctrl+C.",
    );
  };
  return make(
    "p",
    { className: "row" },
    make("button", { type: "button", on: { click: copy } }, `Copy ${title.replace("a ", "the ")}`),
    told,
  );
}

function showFile(run, file, bytes) {
  const [name, text] = FILES[file];
  const one = made.get(`${run.name} ${file}`);
  const isWorking = isActive(state.jobs.get(one?.number));
  const problem = make("p", { className: "problem", role: "alert", hidden: true });
  tell(problem, isWorking ? null : one?.problem);
  const start = () =>
    attempt(problem, async () => {
      const job = await ask("make", { run: run.name, file });
      state.jobs.set(job.number, job);
      made.set(`${run.name} ${file}`, { number: job.number });
      draw();
    });
  const save = () => attempt(problem, () => download(run.name, file));
  const button = (label, click, disabled = false) => make("button", { type: "button", disabled, on: { click } }, label);
  return make(
    "div",
    { className: "file" },
    make("h4", {}, name),
    note(text),
    make(
      "p",
      { className: "row" },
      button(bytes ? `Make ${file} again` : `Make ${file}`, start, isWorking || !run.rows.length),
      bytes && !isWorking ? button(`Download ${file} (${(bytes / 1e6).toFixed(1)} MB)`, save) : null,
      isWorking ? make("progress", { ariaLabel: `making ${file}` }) : null,
    ),
    problem,
    one?.result && !isWorking ? describeParity(one.result) : null,
  );
}

// What `lamina export` found when it compared the file with the run.
function describeParity({ images, split, largest_difference: apart, limit, same_predictions: same }) {
  return make(
    "p",
    { className: "good" },
    `Parity check passed: on ${count(images)} images (${split}, one black, one white), ` +
      "the logits of the file differ from the run's by at most " +
      `${apart.toExponential(1)} (limit ${limit.toExponential(1)}), ` +
      `and ${count(same)} of ${count(images)} predictions are equal.`,
  );
}
