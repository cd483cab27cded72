// Modules of the studio's page import one way: views, actions, state.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

const PAGE = new URL("../../src/lamina/deploy/studio/page/", import.meta.url).pathname;
const IMPORT = /^\} from "(.*)";$|^import .* from "(.*)";$/gmu;

// The names of the modules, each with those that it imports.
function readImports() {
  const names = readdirSync(PAGE, { recursive: true }).filter((name) => name.endsWith(".js"));
  const read = (name) => {
    const matches = [...readFileSync(path.join(PAGE, name), "utf-8").matchAll(IMPORT)];
    return matches.map((match) => path.join(path.dirname(name), match[1] ?? match[2]));
  };
  return new Map(names.map((name) => [name, read(name).filter((imported) => names.includes(imported))]));
}

const imports = readImports();

// The modules from one to itself, if it imports itself by way of others.
function findCircle(name, way = []) {
  if (way.includes(name)) return [...way, name];
  for (const imported of imports.get(name)) {
    const circle = findCircle(imported, [...way, name]);
    if (circle) return circle;
  }
  return null;
}

test("no module of the page imports itself by way of others", () => {
  assert.ok(imports.size > 20);
  for (const name of imports.keys()) assert.equal(findCircle(name), null);
});

test("the state imports nothing, and actions import no views", () => {
  assert.deepEqual(imports.get("state.js"), []);
  for (const [name, imported] of imports) {
    const isAction = name.startsWith("actions/");
    assert.ok(!isAction || !imported.some((other) => other.startsWith("views/")), name);
  }
});
