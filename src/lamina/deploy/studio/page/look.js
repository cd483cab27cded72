// Look: the report of a run, what it confuses, its largest errors, and what its units respond to.

import { askLast } from "./api.js";
import { gallery } from "./closer.js";
import { count, fill, make, note, tabulate } from "./elements.js";
import { sheet } from "./inside.js";
import { settle } from "./try-form.js";

// of a confusion matrix; with more, the most frequent confusions are listed
const MOST_CLASSES = 25;
const MOST_PAIRS = 40;

export async function show(place, run) {
  if (!run.rows.length) {
    place.replaceChildren(note(`The results of ${run.name} appear here when its training has ended.`));
    return;
  }
  await settle(place, "Reading the results …", askLast("report", { run: run.name }), (found) => [
    ...(found.missing ? [note(found.missing)] : showReport(run, found)),
    showUnits(run, found.layers),
  ]);
}

function showReport(run, { verdict, lines, table, report, confusions, largest }) {
  const isNumber = report.kind === "regression";
  const intro = isNumber
    ? `Target → prediction, for ${table[1].map(([name]) => name).join(", ")}.`
    : "Target → prediction with its probability.";
  return [
    make(
      "p",
      { className: report.baseline?.gain_interval?.low > 0 ? "good verdict" : "verdict" },
      ...verdict.join(" ").split("\n"),
    ),
    ...lines.map((line, place) =>
      make("p", { className: place ? "note" : "" }, place ? line : make("strong", {}, line)),
    ),
    make(
      "details",
      {},
      make("summary", {}, `Each ${table[0][0]}`),
      tabulate(table[0], table[1], `Each ${table[0][0]}, on ${report.split}`),
    ),
    ...showConfusions(run, confusions),
    make("h3", {}, isNumber ? "Largest errors" : "Largest losses"),
    note(`${intro} ${largest.are_wrong ? "Only wrong predictions. " : ""}` + "Choose an image to look inside the net."),
    ...gallery(run, largest, pair),
  ];
}

function pair({ target, predicted }) {
  return [`${target} →`, predicted];
}

function showConfusions(run, confusions) {
  if (!confusions.length) return [];
  const place = make("div");
  const choose = (problem, names, [truth, predicted, size], text = count(size)) => {
    const title =
      truth === predicted
        ? `${names[truth]}, predicted correctly`
        : `${names[truth]}, predicted as ${names[predicted]}`;
    const label = `${count(size)} ${size === 1 ? "image" : "images"}: ${title}`;
    const order = (found) =>
      found.images.length < size
        ? `The ${found.images.length} images with the largest losses.`
        : "The largest loss first.";
    const open = async () => {
      await settle(
        place,
        `Reading ${title} …`,
        askLast("cell", { run: run.name, problem, truth, predicted }),
        (found) => [make("h4", {}, label), note(order(found)), ...gallery(run, found, pair)],
      );
      place.scrollIntoView({ block: "nearest" });
    };
    const className = truth === predicted ? "cell right" : "cell";
    return make("button", { type: "button", className, ariaLabel: label, title: label, on: { click: open } }, text);
  };
  const [names, cells] = confusions[0];
  const table =
    confusions.length > 1
      ? listLabels(confusions, choose)
      : (names.length <= MOST_CLASSES ? drawMatrix : listPairs)(names, cells, (cell) => choose(0, names, cell));
  const text =
    "Choose a number to see the images; arrow keys move between numbers. " +
    "The stronger the color, the larger the part of the true class or of all images.";
  return [make("h3", {}, "What it confuses"), note(text), walk(table), place];
}

function shade(element, part) {
  element.style.setProperty("--part", `${Math.round(45 * part)}%`);
  return element;
}

function drawMatrix(names, cells, choose) {
  const found = new Map(cells.map((cell) => [`${cell[0]} ${cell[1]}`, cell]));
  const sums = names.map((_, row) => cells.filter(([truth]) => truth === row).reduce((sum, cell) => sum + cell[2], 0));
  const rows = names.map((name, row) => [
    name,
    ...names.map((_, column) => {
      const cell = found.get(`${row} ${column}`);
      return cell ? shade(choose(cell), cell[2] / sums[row]) : "·";
    }),
  ]);
  const table = tabulate(
    ["true ↓ predicted →", ...names.map((name) => make("span", {}, name))],
    rows,
    "Images by class",
  );
  table.classList.add("matrix");
  return table;
}

// For labels: the four counts of each label.
function listLabels(confusions, choose) {
  const rows = confusions.map(([names, cells], problem) => {
    const sum = cells.reduce((total, cell) => total + cell[2], 0);
    return [
      names[1].replace(/: yes$/u, ""),
      ...[
        [1, 1],
        [0, 0],
        [0, 1],
        [1, 0],
      ].map(([truth, predicted]) => {
        const cell = cells.find((one) => one[0] === truth && one[1] === predicted);
        return cell ? shade(choose(problem, names, cell), cell[2] / sum) : "0";
      }),
    ];
  });
  const table = tabulate(
    ["label", "found", "absent, not predicted", "predicted, but absent", "missed"],
    rows,
    "Images by label",
  );
  table.classList.add("matrix");
  return table;
}

function listPairs(names, cells, choose) {
  const wrong = cells
    .filter(([truth, predicted]) => truth !== predicted)
    .sort((a, b) => b[2] - a[2])
    .slice(0, MOST_PAIRS);
  return tabulate(
    ["true", "predicted", "images"],
    wrong.map((cell) => [names[cell[0]], names[cell[1]], choose(cell)]),
    "The most frequent confusions",
  );
}

// Arrow keys move between the buttons of a table, which has one place in the order of Tab.
function walk(table) {
  const grid = [...table.querySelectorAll("tbody tr")].map((row) =>
    [...row.cells].map((cell) => cell.querySelector("button")),
  );
  const buttons = grid.flat().filter(Boolean);
  for (const [place, button] of buttons.entries()) button.tabIndex = place ? -1 : 0;
  table.addEventListener("keydown", (event) => {
    const [down, across] = {
      ArrowDown: [1, 0],
      ArrowUp: [-1, 0],
      ArrowRight: [0, 1],
      ArrowLeft: [0, -1],
    }[event.key] ?? [0, 0];
    let row = grid.findIndex((one) => one.includes(event.target));
    if (row < 0 || (!down && !across)) return;
    let column = grid[row].indexOf(event.target);
    do [row, column] = [row + down, column + across];
    while (grid[row] && column < grid[row].length && column >= 0 && !grid[row][column]);
    const next = grid[row]?.[column];
    if (!next) return;
    event.preventDefault();
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  });
  return table;
}

function showUnits(run, layers) {
  const select = make("select", { id: "unit-layer" });
  const place = make("div");
  fill(select, layers);
  const draw =
    (name) =>
    ({ shown, units, searched, field }) => [
      note(
        `${shown.length} of ${count(units)} units of ${name}, and the patches of ` +
          `${count(searched)} training images that excite each most. A unit sees ${field}. ` +
          "Below: the class that its response separates best, with the area under the ROC curve.",
      ),
      make(
        "ul",
        { className: "gallery" },
        ...shown.map(([number, best, patches]) =>
          make(
            "li",
            { className: "tile" },
            patches ? sheet(patches, `patches that excite unit ${number}`) : make("span", {}, "constant response"),
            make("strong", {}, `unit ${number}`),
            make("span", {}, best),
          ),
        ),
      ),
    ];
  const start = () =>
    settle(
      place,
      "Searching training images for the patches …",
      askLast("units", { run: run.name, layer: select.value }),
      draw(layers.find(([path]) => path === select.value)[1]),
    );
  return make(
    "div",
    {},
    make("h3", {}, "What its units respond to"),
    make(
      "div",
      { className: "row" },
      make("label", { htmlFor: "unit-layer" }, "Layer"),
      select,
      make("button", { type: "button", on: { click: start } }, "Show patches"),
    ),
    place,
  );
}
