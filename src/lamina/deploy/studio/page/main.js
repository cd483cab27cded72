// The page: starts its parts with the state of the studio, and passes on its events.

import { ask, follow, setToken } from "./api.js";
import { startData } from "./data.js";
import { find, tell } from "./elements.js";
import { startLabels } from "./labels.js";
import { startLessons } from "./lessons.js";
import { startMaking } from "./making.js";
import { startNet } from "./net.js";
import { setFields, startRecipe } from "./recipe.js";
import { select, startRuns } from "./runs.js";
import { load, save } from "./request.js";
import { announce, chosen, state } from "./shared.js";
import { startTabs } from "./tabs.js";
import { sayStatus, startTraining } from "./training.js";

const KEPT = "#columns :is(input, select, textarea)[id]:not(#making *)"; // what outlives a reload

async function start() {
  let given;
  try {
    given = await ask("state");
  } catch (error) {
    const isRefused = error.status === 401;
    find("access").hidden = !isRefused;
    sayStatus(
      !isRefused ? error.message : find("token").value ? "This token is wrong." : "This studio asks for a token.",
      true,
    );
    if (!isRefused) setTimeout(start, 2000);
    return;
  }
  find("access").hidden = true;
  know(given);
  sayStatus("Choose data and a net, and press Train. New here? Open the lessons.", true);
  for (const begin of [startRecipe, startTraining, startRuns, startMaking, startLabels, startData, startNet]) begin();
  const { values = {}, run, tab, compared } = load("page") ?? {};
  restore(values);
  Object.assign(chosen, { tab: tab ?? "look", compared: new Set(compared) });
  startTabs();
  announce("start");
  startLessons();
  const trained = given.jobs.filter((job) => job.run);
  const isKnown = [...given.runs, ...trained.map((job) => ({ name: job.run }))].some(({ name }) => name === run);
  const first = isKnown ? run : (trained.find((job) => job.state === "running") ?? trained.at(-1))?.run;
  addEventListener("pagehide", () =>
    save("page", {
      run: chosen.name,
      tab: chosen.tab,
      compared: [...chosen.compared],
      values: Object.fromEntries([...document.querySelectorAll(KEPT)].map(({ id, value }) => [id, value])),
    }),
  );
  if (first) await select(first);
  follow(given.after, (event) => (event.event === "lost" ? recover() : announce("event", event)), tellConnected);
}

function know(given) {
  Object.assign(state, given, { jobs: new Map(given.jobs.map((job) => [job.number, job])) });
}

// Reads the state of a studio that was started again, or after a long time without it.
function recover() {
  ask("state").then(
    (given) => announce("lost", know(given)),
    () => setTimeout(recover, 2000),
  );
}

function restore(values) {
  for (const [id, value] of Object.entries(values)) {
    const input = find(id);
    const isGone = input instanceof HTMLSelectElement && ![...input.options].some((one) => one.value === value);
    if (id.startsWith("field-")) setFields({ [id.slice(6)]: value });
    else if (input && !isGone) input.value = value;
  }
}

function tellConnected(isConnected, status) {
  find("access").hidden = status !== 401; // the studio was started again, with another token
  tell(
    find("lost"),
    isConnected
      ? null
      : status === 401
        ? "This studio asks for a token."
        : "The studio cannot be reached; trying again. Is it still running in its terminal?",
  );
}

find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(find("token").value);
  if (!state.fields.length) start();
});
start();
