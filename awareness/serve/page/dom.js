// Builds elements. Text is only ever set as text: nothing from a repository or a model is parsed as HTML.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// The text with control, bidi and zero-width characters and lone surrogates made visible: `\u202e`.
export function shown(text) {
  return String(text).replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// A text on one line.
export function line(text) {
  return shown(text).replace(/[\n\t]/g, (c) => (c === "\n" ? "\\n" : "\\t"));
}

export function $(id) {
  return document.getElementById(id);
}

// options: `class`, `text`, `on` (event -> listener); everything else is an attribute, unless false, null or undefined.
export function el(tag, options = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") node.textContent = shown(value);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null) node.append(typeof child === "string" ? shown(child) : child);
  return node;
}

export function table(caption, columns, rows, numeric = []) {
  return el("table", {},
    el("caption", { text: caption }),
    el("thead", {}, el("tr", {}, ...columns.map((c, i) => el("th", { scope: "col", class: numeric.includes(i) ? "number" : null, text: c })))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => {
      const options = { class: numeric.includes(i) ? "number" : null };
      if (i === 0) options.scope = "row";
      return cell instanceof Node ? el(i === 0 ? "th" : "td", options, cell) : el(i === 0 ? "th" : "td", { ...options, text: cell ?? "" });
    })))));
}

// Measures the time from `start` until the next frame is painted; browsers' tools and benchmarks/page.py read it.
export function measurePaint(name, start) {
  requestAnimationFrame(() => setTimeout(() => performance.measure(name, { start })));
}

export function bytes(number) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return `${unit === 0 ? number : number.toFixed(1)} ${units[unit]}`;
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}
