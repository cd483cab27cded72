// What is received about files to take away.

import { changePart } from "../state.js";

// What `lamina export` printed when it compared the file with the run.
export function receiveTake(event) {
  if (event.event === "export") changePart("exports", { [event.job]: event });
}
