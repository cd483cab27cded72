// Label issues: labels worth checking, to keep, change or leave out by clicking.

import { ask } from "./api.js";
import { choose, describeSource } from "./data.js";
import { count, find, make, paragraph, percent, picture, tell } from "./elements.js";
import { load, save } from "./request.js";
import { chosen, isActive, listen, state } from "./shared.js";

const SHOWN_ISSUES = 50; // at a time
let checking = null; // number of the job
let given = null; // the data set that is checked
let issues = null; // what was found, until all is done
let choices = {}; // the button that was pressed for each image, and its class

const tellProblem = (error) => tell(find("labels-problem"), error?.message);
const press = (text, act, more = {}) =>
  make("button", { type: "button", ...more, on: { click: (event) => act(event).catch(tellProblem) } }, text);
const bar = make("progress", { ariaLabel: "check of the labels" });
const working = make(
  "div",
  { className: "row" },
  bar,
  press("Stop the check", () => ask("stop", { number: checking })),
);

export function startLabels() {
  find("check-labels").addEventListener("click", () => check().catch(tellProblem));
  find("undo").addEventListener("click", () => undo().catch(tellProblem));
  listen("preview", (preview) => {
    showCorrections(preview?.corrections);
    draw().catch(tellProblem);
  });
  listen("event", (event) => receive(event).catch(tellProblem));
  // in a studio that was started again, no check runs
  listen("lost", () => draw().catch(tellProblem));
  // the page may have been closed during a check
  const last = [...state.jobs.values()].findLast(({ checked }) => checked);
  if (last && last.number !== load("labels")?.done)
    [given, checking, issues] = [last.checked, last.number, last.label_issues];
}

async function check() {
  tellProblem(null);
  const about = describeSource();
  const job = await ask("inspect", { ...about, labels: true });
  state.jobs.set(job.number, job);
  [given, checking, issues, choices] = [about, job.number, null, {}];
  await draw();
}

// Shows the check, or what it found, below the data set that it is about.
async function draw() {
  const job = state.jobs.get(checking);
  find("check-labels").disabled = isActive(job) || !chosen.preview || chosen.preview.kind === "regression";
  const isOther = given?.source !== chosen.source;
  if (isActive(job)) {
    show(
      (isOther ? `${given.source}: ` : "") +
        (job.state === "queued"
          ? "The check of the labels waits for the training before it."
          : "Checking the labels by training several nets on parts of the images."),
      working,
    );
  } else if (isOther || !issues || !chosen.preview) show("");
  else await showIssues();
}

function show(text, ...more) {
  const place = find("label-issues");
  if (place.firstElementChild.textContent !== text) place.firstElementChild.textContent = text;
  if (place.lastElementChild !== more.at(-1)) place.replaceChildren(place.firstElementChild, ...more);
}

async function receive(event) {
  if (!checking || ![event.job, event.number].includes(checking)) return;
  if (event.event === "progress") Object.assign(bar, { max: event.total, value: event.done, title: event.what });
  if (event.event !== "job") return;
  state.jobs.set(event.number, event);
  issues = event.label_issues;
  tellProblem({ message: event.problem });
  await draw();
}

async function showIssues() {
  if (!issues.length) return show("No label is worth checking.");
  const found = issues,
    { labels } = chosen.preview,
    seen = new Set(); // other data may be chosen meanwhile
  // a correction is about the whole image
  const own = found.filter(({ image }) => !seen.has(image) && seen.add(image));
  const list = make("ul", { className: "issues", ariaLabel: "Labels worth checking" });
  const add = async () => {
    const next = own.slice(list.children.length, list.children.length + SHOWN_ISSUES);
    more.disabled = true; // until they are shown
    const images = await ask("images", {
      ...given,
      images: next.map(({ image }) => image),
    }).finally(() => {
      more.disabled = false;
    });
    const items = next.map((issue, place) => showIssue(issue, images[place], labels));
    list.append(...items);
    more.hidden = list.children.length === own.length;
    return items[0];
  };
  const more = press("Show more", () => add().then((first) => first.querySelector("button")?.focus()));
  await add();
  if (found !== issues || given.source !== chosen.source) return;
  const are = issues.length === 1 ? "label is" : "labels are";
  show(
    `${count(issues.length)} ${are} worth checking, the most doubtful first. ` +
      "Look at each image: many labels are correct. In lamina's benchmark, 8 to 30 % of the " +
      "listed labels were incorrect if 5 % of all labels were, and 57 to 74 % if 20 % were.",
    list,
    make("div", { className: "row" }, more, press("Done", finish)),
  );
}

// `labels` are the classes to choose from; a multi-label image has none.
function showIssue({ image, split, given: label, likely, score }, png, labels) {
  if (!png) return make("li", { className: "note" }, `${image} is no longer in the data set.`);
  const others = make(
    "select",
    { ariaLabel: `Class of ${image}` },
    ...labels.map((name) =>
      make("option", { value: name, selected: name === (choices[image]?.other ?? likely) }, name),
    ),
  );
  const apply = async (button, text, choice) => {
    const all = await ask("correct", { source: given.source, choices: { [image]: choice } });
    choices[image] = { text, other: others.value };
    for (const one of button.parentElement.querySelectorAll("button")) one.ariaPressed = String(one === button);
    showCorrections(Object.keys(all).length);
  };
  const button = (text, read) =>
    press(text, ({ target }) => apply(target, text, read()), {
      className: "small",
      ariaPressed: String(choices[image]?.text === text),
      ariaLabel: `${text}: ${image}`,
    });
  const change = labels.length ? [button("Change to", () => others.value), others] : [];
  const details = make("span", { className: "note" }, ` (${percent(score)}; ${image}, ${split})`);
  return make(
    "li",
    {},
    picture(png, `${image}, labeled ${label}`, "pixels"),
    make(
      "div",
      {},
      paragraph(`labeled ${label}, likely `, make("strong", {}, likely), details),
      make(
        "div",
        { className: "row" },
        button("Keep", () => ""),
        ...change,
        button("Leave out", () => "exclude"),
      ),
    ),
  );
}

function showCorrections(size) {
  find("corrections").textContent = size
    ? `${count(size)} ${size === 1 ? "correction applies" : "corrections apply"} to all trainings`
    : "";
  find("undo").hidden = !size;
}

async function undo() {
  await ask("correct", { source: chosen.source, choices: null });
  if (given?.source === chosen.source) choices = {};
  find("check-labels").focus();
  await choose(chosen.source);
}

async function finish() {
  save("labels", { done: checking });
  issues = null;
  find("check-labels").focus();
  await choose(chosen.source);
}
