// The page: chooses the view, the repository and the theme, and opens everything by keyboard.

import { get, setToken, takeToken } from "./api.js";
import { $, el } from "./dom.js";
import { change, problem, state } from "./state.js";
import * as ask from "./ask.js";
import * as indexing from "./indexing.js";
import * as map from "./map.js";
import * as needle from "./needle.js";
import * as reader from "./reader.js";
import * as runs from "./runs.js";
import * as search from "./search.js";

const VIEWS = {
  ask: { title: "Ask", key: "a", focus: "question", ...ask },
  search: { title: "Search", key: "s", focus: "query", ...search },
  map: { title: "Memory", key: "m", focus: "map", ...map },
  index: { title: "Index", key: "i", focus: "index-minutes", ...indexing },
  needle: { title: "Needle", key: "n", focus: "needle-samples", ...needle },
  runs: { title: "Runs", key: "r", focus: "run", ...runs },
};
const CODE_VIEWS = new Set(["ask", "search", "map"]); // with the code beside them
const KEYS = [
  ["/", "focus the question or the search"],
  ...Object.values(VIEWS).map((view) => [`g ${view.key}`, `go to ${view.title}`]),
  ["1 … 9", "open the source of this number"],
  ["↑ ↓ ← →", "from hit to hit, from file to file, from token to token"],
  ["Enter", "ask; open what is chosen"],
  ["Esc", "stop the answer, close the code or this list"],
  ["t", "dark or light"],
  ["?", "this list"],
];
let current = "";

function show(name, { focus = true } = {}) {
  const view = VIEWS[name] ? name : "ask";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `view-${view}`;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[view].title} · awareness`;
  current = view;
  $("content").parentElement.classList.toggle("with-code", CODE_VIEWS.has(view));
  VIEWS[view].opened?.();
  if (focus) $(VIEWS[view].focus).focus();
}

function askForToken() {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== "view-token";
  current = "token";
  reader.close();
  $("token").focus();
}

async function start() {
  try {
    const { repositories } = await get("/repositories");
    problem(null);
    state.repositories = repositories;
    $("repository").replaceChildren(...repositories.map((one) => el("option", { value: one.name, text: one.name })));
    change("repository", repositories[0]?.name ?? "");
    if (repositories.length) $("repository").value = state.repository;
    show(location.hash.slice(1) || "ask");
  } catch (error) {
    if (error.status !== 401) { show("ask"); problem(error); }
  }
}

// --- theme ---

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
  map.redraw();
  reader.redraw();
}

function chosenTheme() {
  const kept = localStorage.getItem("awareness.theme");
  return kept ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function switchTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("awareness.theme", next);
  setTheme(next);
}

// --- keys ---

let begun = ""; // the first of two keys

function pressed(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape") { escape(event); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || typing) { begun = ""; return; }
  if (begun === "g") {
    begun = "";
    const name = Object.keys(VIEWS).find((view) => VIEWS[view].key === event.key);
    if (name) { event.preventDefault(); go(name); }
    return;
  }
  if (event.key === "g") begun = "g";
  else if (event.key === "/") {
    event.preventDefault();
    const target = current === "search" ? "search" : "ask";
    if (current !== target) go(target);
    $(VIEWS[target].focus).focus();
  } else if (event.key === "?") { event.preventDefault(); $("help").showModal(); }
  else if (event.key === "t") switchTheme();
  else if (/^[1-9]$/.test(event.key)) ask.openSource(Number(event.key));
}

function escape(event) {
  if ($("help").open) return; // the dialog closes itself
  if (VIEWS[current]?.stop?.()) { event.preventDefault(); return; }
  if (reader.close()) { event.preventDefault(); return; }
  document.activeElement?.blur();
}

function go(name) {
  if (location.hash === `#${name}`) show(name);
  else location.hash = name;
}

// --- begin ---

takeToken();
setTheme(chosenTheme());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(chosenTheme()));
$("views").append(...Object.entries(VIEWS).map(([name, view]) => el("a", { href: `#${name}`, "data-view": name, text: view.title })));
$("help-list").append(...KEYS.flatMap(([keys, what]) => [
  el("dt", {}, ...keys.split(" ").map((key) => el("kbd", { text: key }))),
  el("dd", { text: what }),
]));
$("theme").addEventListener("click", switchTheme);
$("help-button").addEventListener("click", () => $("help").showModal());
$("repository").addEventListener("change", () => change("repository", $("repository").value));
$("token-form").addEventListener("submit", (event) => { event.preventDefault(); setToken($("token").value); start(); });
for (const view of Object.values(VIEWS)) view.begin?.();
document.addEventListener("token-refused", askForToken);
document.addEventListener("keydown", pressed);
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) { takeToken(); start(); return; }
  if (location.hash === "#content") { $("content").focus(); return; }
  show(location.hash.slice(1));
});
start();
