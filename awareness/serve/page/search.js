// Search as you type: a request after a short rest of the keys, and the one before it is cancelled.

import { post } from "./api.js";
import { $, counted, el, line, measurePaint } from "./dom.js";
import * as reader from "./reader.js";
import { onChange, problem, state } from "./state.js";

const REST_MS = 120;
let timer = 0;
let running = null;

export function begin() {
  $("search-form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("query").addEventListener("input", () => { clearTimeout(timer); running?.abort(); timer = setTimeout(search, REST_MS); });
  $("view-search").addEventListener("keydown", move);
  onChange("repository", () => { if ($("query").value.trim()) search(); else show([], ""); });
}

async function search() {
  clearTimeout(timer);
  running?.abort();
  const query = $("query").value.trim();
  if (!query) { show([], ""); return; }
  running = new AbortController();
  const began = performance.now();
  try {
    const found = await post("/search", { query, repository: state.repository, top_k: 20 }, running.signal);
    const hits = found.hits?.length ? found.hits : found.nearest ?? [];
    show(hits, found.hits?.length ? counted(hits.length, "hit") : hits.length ? "not found; nearest:" : "nothing found");
    measurePaint("awareness-search", began);
    problem(null);
  } catch (error) {
    if (error.name === "AbortError") return;
    show([], "");
    problem(error);
  }
}

function show(hits, said) {
  $("search-status").textContent = said;
  $("hits").replaceChildren(...hits.map((hit) => el("li", {},
    el("button", { type: "button", class: "place", on: { click: () => reader.openPlace(state.repository, hit) } },
      el("span", { class: "path", text: line(`${hit.path}:${hit.start_line}-${hit.end_line}`) })),
    el("span", { class: "symbol", text: line(hit.symbol ?? "") }),
    el("span", { class: "score", text: hit.score.toFixed(2) }),
    hit.preview ? el("pre", { class: "preview", text: hit.preview }) : null)));
}

// Arrows go from the words to the hits and between them.
function move(event) {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const buttons = [...$("hits").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  const next = event.key === "ArrowDown" ? at + 1 : at - 1;
  if (at === -1 && event.key === "ArrowUp") return;
  if (next >= buttons.length) return;
  event.preventDefault();
  (next < 0 ? $("query") : buttons[next]).focus();
}
