// Lets Node import the modules of the pages, which the servers serve from one folder.

import { register } from "node:module";

register("./resolve.js", import.meta.url);

globalThis.matchMedia = () => ({ matches: false, addEventListener() {} });
globalThis.window = { location: { hash: "", pathname: "/" } };
