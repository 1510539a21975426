// Training curves of the run folders that the server was started with (--runs).

import { get } from "./api.js";
import { $, counted, el, table } from "./dom.js";
import { problem } from "./state.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [720, 320, 64, 36, 12, 12];
let run = null;

export function begin() {
  $("run").addEventListener("change", load);
  for (const id of ["curve", "smooth", "log-scale"]) $(id).addEventListener("change", draw);
}

export async function opened() {
  try {
    const { runs, folder } = await get("/runs");
    const before = $("run").value;
    $("run").replaceChildren(...runs.map((one) => el("option", { value: one.name, text: `${one.name} (${counted(one.steps, "step")})` })));
    if (runs.some((one) => one.name === before)) $("run").value = before;
    if (runs.length) { await load(); return; }
    run = null;
    $("chart").replaceChildren();
    $("run-table").replaceChildren();
    $("runs-status").textContent = folder === null
      ? "No folder of runs was named. Start the server with: awareness serve --runs FOLDER"
      : "No run in this folder: a run has a log.jsonl, as awareness train writes it.";
  } catch (error) { problem(error); }
}

async function load() {
  try {
    run = await get(`/runs/${encodeURIComponent($("run").value)}`);
    const names = Object.keys(run.curves);
    const before = $("curve").value;
    $("curve").replaceChildren(...names.map((name) => el("option", { value: name, text: name })));
    if (names.includes(before)) $("curve").value = before;
    draw();
    problem(null);
  } catch (error) { problem(error); }
}

function smoothed(values, weight = 0.9) { // with bias correction, as `awareness train` draws it
  let mean = 0;
  return values.map((value, i) => { mean = weight * mean + (1 - weight) * value; return mean / (1 - weight ** (i + 1)); });
}

function draw() {
  if (!run) return;
  const name = $("curve").value;
  const curve = run.curves[name];
  if (!curve) return;
  const raw = curve.steps.map((step, i) => [step, curve.values[i]]);
  const isDense = raw.length > 20 && $("smooth").checked;
  const values = isDense ? smoothed(curve.values) : curve.values;
  const isLog = $("log-scale").checked && raw.every(([, value]) => value > 0);
  const scale = isLog ? Math.log10 : (value) => value;
  const all = [...curve.values].map(scale);
  let [low, high] = [Math.min(...all), Math.max(...all)];
  if (low === high) { low -= 0.5; high += 0.5; }
  const [first, last] = [curve.steps[0], Math.max(curve.steps.at(-1), curve.steps[0] + 1)];
  const x = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * (step - first)) / (last - first);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * (scale(value) - low)) / (high - low);
  const path = (points) => points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const svg = el("svg:svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name} by step, from ${number(curve.values[0])} to ${number(curve.values.at(-1))}` });
  for (let i = 0; i <= 4; i += 1) {
    const at = low + ((high - low) * i) / 4;
    const height = HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * i) / 4;
    svg.append(el("svg:line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: height, y2: height }));
    svg.append(el("svg:text", { class: "tick", x: LEFT - 6, y: height + 4, "text-anchor": "end", text: number(isLog ? 10 ** at : at) }));
    const step = Math.round(first + ((last - first) * i) / 4);
    svg.append(el("svg:text", { class: "tick", x: x(step), y: HEIGHT - BOTTOM + 16, "text-anchor": i === 4 ? "end" : "middle", text: step.toLocaleString("en") }));
  }
  svg.append(el("svg:text", { class: "tick", x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle", text: "step" }));
  if (isDense) svg.append(el("svg:path", { class: "curve raw", d: path(raw) }));
  svg.append(el("svg:path", { class: "curve", d: path(curve.steps.map((step, i) => [step, values[i]])) }));
  if (raw.length <= 20) for (const [step, value] of raw) svg.append(el("svg:circle", { class: "point", cx: x(step), cy: y(value), r: 3 }));
  $("chart").replaceChildren(svg);
  const stride = Math.max(1, Math.ceil(raw.length / 50));
  const rows = raw.filter((_, i) => i % stride === 0 || i === raw.length - 1).map(([step, value]) => [step.toLocaleString("en"), number(value)]);
  $("run-table").replaceChildren(table(`${name} by step`, ["Step", name], rows, [0, 1]));
  $("runs-status").textContent = `${run.name}: ${counted(raw.length, "value")} of ${name}, the last ${number(curve.values.at(-1))}`;
}

function number(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}
