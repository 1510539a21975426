// What the views share: the repository that is chosen, the last answer, and the line for problems.

import { $, shown } from "./dom.js";

const listeners = { repository: [], answer: [] };

export const state = { repository: "", repositories: [], answer: null, attention: null };

export function onChange(what, listener) {
  listeners[what].push(listener);
}

export function change(what, value) {
  state[what] = value;
  for (const listener of listeners[what]) listener(value);
}

// error: what was thrown, or null to take the line away. A request that the user cancelled is no problem.
export function problem(error) {
  const place = $("problem");
  place.hidden = error === null || error?.name === "AbortError";
  if (place.hidden) return;
  place.textContent = shown(error.hint ? `${error.message}. Try: ${error.hint}` : error.message);
}
