// Squarified treemaps (Bruls, Huizing and van Wijk 2000): areas by weight, as near to squares as they can be.

// items: with `weight` > 0. Returns {item, x, y, width, height} for each.
export function squarified(items, x, y, width, height) {
  const sorted = items.filter((item) => item.weight > 0).sort((a, b) => b.weight - a.weight);
  const total = sorted.reduce((sum, item) => sum + item.weight, 0);
  const boxes = [];
  if (!total || width <= 0 || height <= 0) return boxes;
  const scale = (width * height) / total;
  let rest = { x, y, width, height };
  let row = [];
  let area = 0;
  for (const item of sorted) {
    const own = item.weight * scale;
    const side = Math.min(rest.width, rest.height);
    if (row.length && worst(row, area, side) < worst([...row, own], area + own, side)) {
      rest = laid(boxes, row, area, rest);
      row = [];
      area = 0;
    }
    row.push(own);
    row.items = [...(row.items ?? []), item];
    area += own;
  }
  laid(boxes, row, area, rest);
  return boxes;
}

// The worst ratio of sides in a row of these areas along a side.
function worst(row, area, side) {
  const [most, least] = [row[0], row[row.length - 1]]; // they descend
  const square = side * side;
  return Math.max((square * most) / (area * area), (area * area) / (square * least));
}

// Adds the boxes of a row along the shorter side. Returns the rectangle that is left.
function laid(boxes, row, area, { x, y, width, height }) {
  const isTall = height > width;
  const depth = area / (isTall ? width : height);
  let at = isTall ? x : y;
  row.forEach((own, i) => {
    const length = own / depth;
    boxes.push(isTall ? { item: row.items[i], x: at, y, width: length, height: depth } : { item: row.items[i], x, y: at, width: depth, height: length });
    at += length;
  });
  return isTall ? { x, y: y + depth, width, height: height - depth } : { x: x + depth, y, width: width - depth, height };
}

// The box next to `from` in a direction, by the nearest centre: for arrow keys.
export function neighbour(boxes, from, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  const centre = (box) => [box.x + box.width / 2, box.y + box.height / 2];
  const [x, y] = centre(from);
  let best = null;
  let least = Infinity;
  for (const box of boxes) {
    const [ox, oy] = centre(box);
    const along = (ox - x) * dx + (oy - y) * dy;
    const aside = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
    const cost = along + 2 * aside;
    if (box !== from && along > 0.5 && cost < least) { best = box; least = cost; }
  }
  return best;
}
