// The page: starts its parts with the state of the studio, and passes on its events.

import { ask, follow, setToken } from "./api.js";
import { startData } from "./data.js";
import { find } from "./elements.js";
import { startLabels } from "./labels.js";
import { startLessons } from "./lessons.js";
import { startMaking } from "./making.js";
import { startNet, usePreset, useText } from "./net.js";
import { readFields, setFields, startRecipe } from "./recipe.js";
import { select, startRuns } from "./runs.js";
import { announce, chosen, isActive, state } from "./shared.js";
import { startTabs } from "./tabs.js";
import { startTraining } from "./training.js";

async function start() {
  let given;
  try {
    given = await ask("state");
  } catch (error) {
    find("access").hidden = error.status !== 401;
    find("status").textContent = error.status === 401 ? "This studio asks for a token." : error.message;
    if (error.status !== 401) setTimeout(start, 2000);
    return;
  }
  find("access").hidden = true;
  Object.assign(state, given, { jobs: new Map(given.jobs.map((job) => [job.number, job])) });
  find("status").textContent = "Ready: choose data and a net, and press Train. New here? Open the lessons.";
  startRecipe();
  startTraining();
  startRuns();
  startTabs();
  startMaking();
  startLabels();
  startData();
  startNet();
  const active = given.jobs.findLast((job) => job.run && isActive(job)) ?? given.jobs.findLast((job) => job.run);
  const first = active?.run ?? null;
  restoreForm();
  follow(given.after, receive, tellConnected);
  if (first) await select(first);
  startLessons(); // last, because a browser may refuse the storage that they need
}

async function receive(event) {
  if (event.event !== "lost") {
    announce("event", event);
    return;
  }
  const { jobs, runs } = await ask("state"); // of a studio that was started again, or after a long time without it
  Object.assign(state, { runs, jobs: new Map(jobs.map((job) => [job.number, job])) });
  if (chosen.run) await select(chosen.run.name, true);
}

// The form survives a reload of the page.
function restoreForm() {
  const kept = JSON.parse(sessionStorage.getItem("form") ?? "{}");
  if (state.data.some(({ source }) => source === kept.source)) find("source").value = kept.source;
  announce("start");
  if (kept.isChosen) usePreset("choose");
  else if (kept.text) useText(kept.text);
  if (kept.fields) setFields(kept.fields);
  find("time").value = kept.time ?? "";
  addEventListener("pagehide", () => sessionStorage.setItem("form", JSON.stringify({ source: chosen.source,
    text: find("python").value, isChosen: chosen.net.isChosen, fields: readFields(), time: find("time").value })));
}

function tellConnected(isConnected) {
  if (document.body.classList.contains("lost") === !isConnected) return;
  document.body.classList.toggle("lost", !isConnected);
  if (isConnected) announce("run", chosen.run ?? undefined);
  find("status").textContent = isConnected ? find("status").textContent
    : "The studio cannot be reached; trying again. Is it still running in its terminal?";
}

find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(find("token").value);
  start();
});
start();
