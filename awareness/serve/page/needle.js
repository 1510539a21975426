// The needle test: run it on this repository, with its heat map of depth by number of chunks.

import { events, get } from "./api.js";
import { $, counted, el, line, percent } from "./dom.js";
import { LEVELS } from "./heat.js";
import { problem, state } from "./state.js";

let running = null;
let known = false;

export function begin() {
  $("needle-form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  $("needle-stop").addEventListener("click", stop);
}

export function stop() {
  if (running === null) return false;
  running.abort();
  return true;
}

export async function opened() {
  if (known) return;
  try {
    const { shapes } = await get("/needle");
    $("needle-shapes").replaceChildren(...shapes.map((shape) => el("option", { value: shape, text: shape })));
    known = true;
  } catch (error) { problem(error); }
}

async function run() {
  stop();
  const own = new AbortController();
  running = own;
  problem(null);
  $("needle-stop").hidden = $("needle-progress").hidden = false;
  $("needle-bar").removeAttribute("value");
  $("needle-what").textContent = "waiting";
  $("needle-status").textContent = "";
  const body = {
    repository: state.repository,
    samples: Number($("needle-samples").value) || 5,
    chunks: $("needle-chunks").value.split(",").map((part) => Number(part)).filter((number) => number > 0),
    shapes: [$("needle-shapes").value],
  };
  try {
    for await (const [event, data] of events("/needle", body, own.signal)) {
      if (event === "progress") {
        if (data.total) { $("needle-bar").max = data.total; $("needle-bar").value = data.done; }
        $("needle-what").textContent = line(data.total ? `${data.what} ${data.done} of ${data.total}` : data.what);
      } else if (event === "needle") show(data);
    }
  } catch (error) {
    if (error.name === "AbortError") $("needle-status").textContent = "stopped";
    else problem(error);
  } finally {
    if (running === own) { running = null; $("needle-stop").hidden = $("needle-progress").hidden = true; }
  }
}

// grid: a cell for each depth and number of chunks, with accuracy and n.
function show({ grid, mean, model, samples }) {
  const depths = [...new Set(grid.map((cell) => cell.depth))].sort((a, b) => a - b);
  const numbers = [...new Set(grid.map((cell) => cell.chunks))].sort((a, b) => a - b);
  const cell = (depth, chunks) => grid.find((own) => own.depth === depth && own.chunks === chunks);
  const rows = depths.map((depth) => el("tr", {},
    el("th", { scope: "row", text: percent(depth) }),
    ...numbers.map((chunks) => {
      const own = cell(depth, chunks);
      if (!own || own.accuracy === null) return el("td", { class: "number empty", text: "–" });
      const shade = Math.round(own.accuracy * LEVELS);
      return el("td", { class: `number cell ${shade ? `h${shade}` : ""}`, title: counted(own.n, "needle"), text: own.accuracy.toFixed(2) });
    })));
  const said = `By ${line(model)}, n = ${samples} for each number of chunks. Depth down (0 %: the first chunk, 100 %: next to the question), chunks across.`;
  $("needle-result").replaceChildren(el("p", { class: "hint", text: said }), el("table", { class: "heat-map" },
    el("caption", { text: "Needles found" }),
    el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "depth" }), ...numbers.map((number) => el("th", { scope: "col", class: "number", text: counted(number, "chunk") })))),
    el("tbody", {}, ...rows)));
  $("needle-status").textContent = mean === null ? "no needle fits" : `found ${percent(mean)} of the needles`;
}
