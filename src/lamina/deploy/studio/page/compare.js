// Compare: the selected run with the runs that are ticked in the list.

import { askLast } from "./api.js";
import { gallery } from "./closer.js";
import { count, make, note, paragraph, tabulate } from "./elements.js";
import { listCompared } from "./runs.js";
import { state } from "./shared.js";
import { settle } from "./try-form.js";

export async function show(place, run) {
  const others = listCompared(run);
  if (!others.length) {
    place.replaceChildren(note(`Tick other runs in the list to compare them with ${run.name}.`));
    return;
  }
  const results = make("div");
  place.replaceChildren(note("Their curves are under Training."), results);
  await settle(
    results,
    "Comparing the predictions on the test images …",
    askLast("compare", { run: run.name, others }),
    (found) => showComparison(run, found),
  );
}

// Name, net and score of a run, so that one knows which it is.
function title(name) {
  const run = state.runs.find((one) => one.name === name);
  if (!run) return name;
  return run.score_text ? `${name} (${run.net}, ${run.score_text})` : `${name} (${run.net})`;
}

function showComparison(run, { problems, judged, differences, disagreements }) {
  return [
    ...problems.map((problem) => make("p", { className: "problem", role: "alert" }, problem)),
    ...(judged.length ? showVerdicts(run, judged) : []),
    ...Object.entries(differences).flatMap(([name, rows]) => showDifferences(run, name, rows)),
    ...Object.entries(disagreements).flatMap(([name, groups]) => [
      make("h3", {}, `Where ${name} and ${run.name} disagree`),
      ...groups.flatMap((group) => showGroup(run, name, groups.length < 3 ? "closer" : "right", group)),
    ]),
  ];
}

function showVerdicts(run, judged) {
  const [{ images, split, metric, level }] = judged;
  const share = Number((100 * level).toFixed(1));
  const all =
    judged.length < 2 ? "" : ` These are ${share} % intervals, so that all ${judged.length} hold with 95 % confidence.`;
  return [
    make("h3", {}, `On the same ${count(images)} ${split} images: ${metric.replaceAll("_", " ")}`),
    ...judged.map((one) =>
      paragraph(`A = ${title(one.a)}; B = ${title(run.name)}. `, make("strong", {}, one.words), "."),
    ),
    note(`With 95 % confidence, the interval contains the difference on many more images.${all}`),
  ];
}

function showDifferences(run, name, rows) {
  const table = rows.map(({ what, first, second }) => [what, make("span", {}, second), make("span", {}, first)]);
  return [
    make("h3", {}, `What differs between ${title(name)} and ${title(run.name)}`),
    rows.length
      ? Object.assign(tabulate(["setting", name, run.name], table, `Settings of ${name} that differ`), {
          className: "scroll texts",
        })
      : note("Nothing: same net, recipe and data."),
  ];
}

function showGroup(run, name, verb, { better, count: size, ...shown }) {
  const who = {
    a: `Only ${name} is ${verb}`,
    b: `Only ${run.name} is ${verb}`,
    "": "Both are wrong, with different predictions",
  }[better];
  const most = size > shown.images.length ? `, the ${shown.images.length} with the largest difference` : "";
  const describe = (one) => [`target ${one.target}`, `${name}: ${one.predicted}`, `${run.name}: ${one.other}`];
  return [
    make(
      "details",
      { open: true },
      make("summary", {}, `${who}: ${count(size)} ${size === 1 ? "image" : "images"}${most}`),
      ...gallery(run, shown, describe),
    ),
  ];
}
