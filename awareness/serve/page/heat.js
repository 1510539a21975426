// The attention of an answer: which weights are chosen (layer, head, token), and how strong each token of the memory is.

import { get } from "./api.js";

export const LEVELS = 12; // of colour, beside none

// response: of GET /attention. Holds what was chosen and the weights for it.
export class Attention {
  constructor(id, response) {
    this.id = id;
    Object.assign(this, response); // layers, retrieval, heads, tokens, total, sink, size, chunks
    this.by_layer = response.by_layer.map((row) => row.map((weight) => weight * response.by_layer_scale));
    this.heat = response.heat.map((weight) => weight * response.heat_scale);
    this.chosen = { layer: null, head: null, token: null };
    this.latest = 0;
  }

  static async of(id, signal) {
    return new Attention(id, await get("/attention", { id }, signal));
  }

  // Chooses other weights. Layers alone are here already; a head or a token is asked for. Returns false if another
  // choice came meanwhile.
  async choose(layer, head, token) {
    this.chosen = { layer, head, token };
    const own = ++this.latest;
    if (head === null && token === null) this.heat = this.mean(layer === null ? this.retrieval : [layer]);
    else {
      const { heat, heat_scale: scale } = await get("/attention", { id: this.id, layer, head, token, brief: true });
      if (own !== this.latest) return false;
      this.heat = heat.map((weight) => weight * scale);
    }
    return true;
  }

  mean(layers) {
    const rows = layers.map((layer) => this.by_layer[this.layers.indexOf(layer)]);
    return rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
  }

  // The highest weight outside of the sink: the darkest colour.
  get top() {
    return highest(this.heat, this.sink);
  }

  // 0 … LEVELS for each token of the memory. The root makes small weights visible.
  get levels() {
    return levels(this.heat, this.top);
  }
}

export function highest(weights, from) {
  let most = 0;
  for (let i = from; i < weights.length; i += 1) if (weights[i] > most) most = weights[i];
  return most;
}

export function levels(weights, top) {
  return weights.map((weight) => level(weight, top));
}

export function level(weight, top) {
  return top > 0 ? Math.min(LEVELS, Math.round(LEVELS * Math.sqrt(weight / top))) : 0;
}

// Draws layers down, tokens of the memory across: each row by its own highest weight.
export function drawLayers(canvas, attention, colours) {
  const { by_layer: rows, sink, size } = attention;
  const width = size - sink;
  canvas.width = Math.max(1, width);
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  rows.forEach((row, y) => {
    const top = highest(row, sink);
    for (let x = 0; x < width; x += 1) {
      const colour = colours[level(row[sink + x], top)];
      const at = 4 * (y * width + x);
      image.data[at] = colour[0];
      image.data[at + 1] = colour[1];
      image.data[at + 2] = colour[2];
      image.data[at + 3] = 255;
    }
  });
  context.putImageData(image, 0, 0);
}

// The colours of the levels as [r, g, b], from the style sheet's --heat-0 and --heat-1.
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const [from, to] = ["--heat-low", "--heat-high"].map((name) => rgb(style.getPropertyValue(name).trim()));
  return Array.from({ length: LEVELS + 1 }, (_, i) => from.map((c, k) => Math.round(c + ((to[k] - c) * i) / LEVELS)));
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
