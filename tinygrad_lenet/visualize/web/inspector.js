"use strict";
// How one unit is computed, in numbers: its window, its kernel and the sum; and the parts of earlier layers that it sees.

const MOST_PAIRS = 8; // windows that are shown of one unit
const MOST_TERMS = 8; // terms of a sum that are shown
const FORMULAS = {
  relu: "max(x, 0)", leaky_relu: "x, or slope · x below 0", elu: "x, or α (eˣ − 1) below 0", silu: "x · sigmoid(x)",
  celu: "x, or α (e^(x/α) − 1) below 0", softplus: "log(1 + eˣ), smooth", hardtanh: "x, clipped to a range",
  tanh: "tanh(x)", sigmoid: "1 / (1 + e⁻ˣ)",
};

function shown(value, digits = 2) {
  const size = Math.abs(value), text = size >= 1000 ? value.toPrecision(3) : value.toFixed(size >= 10 ? digits - 1 : digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

// Terms with their signs: "1.20 - 0.30 + 0.05".
function signedSum(terms) {
  return terms.map((v, i) => (i ? ` ${v < 0 ? "−" : "+"}\u00a0${shown(Math.abs(v))}` : shown(v))).join("");
}

// The text colour, paper or ink, that has more contrast on a background: that of WCAG 2, with a gamma of 2.2.
function readable(background, palette) {
  const light = rgb => 0.05 + [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * (rgb[i] / 255) ** 2.2, 0);
  const contrast = rgb => Math.abs(Math.log(light(rgb) / light(background)));
  return contrast(palette.paper) > contrast(palette.ink) ? palette.paper : palette.ink;
}

// A grid of numbers. `values` has a row for each; null stands for padding. `peak` is the place of the largest.
function cells(values, palette, most, peak = -1) {
  const grid = element("div", { className: "cells" });
  grid.style.gridTemplateColumns = `repeat(${values[0].length}, minmax(0, 1fr))`;
  const digits = values[0].length > 5 ? 1 : 2;
  values.flat().forEach((value, i) => {
    const text = !value ? "0" : shown(value, digits).replace(/^(−?)0\./, "$1.");
    const cell = element("span", { textContent: text });
    if (value === null) {
      cell.className = "outside";
    } else {
      const background = signed(value * 0.8, most, palette);
      Object.assign(cell.style, { background: css(background), color: css(readable(background, palette)) });
    }
    if (i === peak) cell.className = "peak";
    grid.append(cell);
  });
  return grid;
}

// The values of a window in one channel of the layer before, by rows; null where it lies on the padding.
function windowOf(layer, x, channel, row, column) {
  const [, height, width] = layer.input, [kh, kw] = layer.kernel;
  return Array.from({ length: kh }, (_, a) => Array.from({ length: kw }, (_, b) => {
    const i = row * layer.stride[0] + a * layer.dilation[0] - layer.before[0];
    const j = column * layer.stride[1] + b * layer.dilation[1] - layer.before[1];
    return i < 0 || j < 0 || i >= height || j >= width ? null : x[(channel * height + i) * width + j];
  }));
}

function paragraph(text, className = "") {
  return element("p", { textContent: text, className });
}

// A table of the terms of a sum: rows of texts, and the total below.
function sumTable(head, rows, total) {
  const row = (texts, tag) => element("tr", {}, ...texts.map(text => element(tag, { textContent: text })));
  const last = row(["sum", ...Array(head.length - 2).fill(""), total], "td");
  last.className = "total";
  return element("table", { className: "sum" },
    element("thead", {}, row(head, "th")), element("tbody", {}, ...rows.map(texts => row(texts, "td")), last));
}

const EXPLANATIONS = {
  conv(layer, x, [channel, row, column], value, palette) {
    const [kh, kw] = layer.kernel, count = layer.input[0] / layer.groups;
    const first = Math.floor(channel / (layer.shape[0] / layer.groups)) * count;
    const terms = Array.from({ length: count }, (_, c) => {
      const seen = windowOf(layer, x, first + c, row, column), start = (channel * count + c) * kh * kw;
      const kernel = Array.from({ length: kh }, (_, a) => Array.from(layer.weight.subarray(start + a * kw, start + (a + 1) * kw)));
      return { c: first + c, seen, kernel, sum: seen.flat().reduce((sum, v, i) => sum + (v || 0) * kernel.flat()[i], 0) };
    });
    const bias = layer.bias ? layer.bias[channel] : 0;
    const drawn = [...terms].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum)).slice(0, MOST_PAIRS).sort((a, b) => a.c - b.c);
    const rest = terms.filter(term => !drawn.includes(term)).reduce((sum, term) => sum + term.sum, 0);
    const most = largest(terms.flatMap(term => term.seen.flat())), heaviest = largest(terms.flatMap(term => term.kernel.flat()));
    const pairs = drawn.map(({ c, seen, kernel, sum }) => element("figure", { className: "pair" },
      element("figcaption", { textContent: `${count > 1 ? `Window of map ${c}` : "Window"} · kernel = ${shown(sum)}` }),
      cells(seen, palette, most), element("span", { textContent: "·" }), cells(kernel, palette, heaviest)));
    const sums = [...drawn.map(term => term.sum), ...(drawn.length < count ? [rest] : []), bias];
    const words = `${drawn.length < count ? `The other ${count - drawn.length} maps give ${shown(rest)}. ` : ""}The bias is ${shown(bias)}.`;
    return [paragraph(`${signedSum(sums)} = ${shown(value)}`), paragraph(words, "note"), ...pairs];
  },

  max(layer, x, [channel, row, column], value, palette) {
    const seen = windowOf(layer, x, channel, row, column), flat = seen.flat().map(v => (v === null ? -Infinity : v));
    const peak = flat.indexOf(Math.max(...flat));
    return [cells(seen, palette, largest(seen.flat()), peak), paragraph(`The largest of the window is ${shown(value)}.`)];
  },

  mean(layer, x, [channel, row, column], value, palette) {
    const seen = windowOf(layer, x, channel, row, column), sum = seen.flat().reduce((total, v) => total + (v || 0), 0);
    const count = divisors(layer)[row * layer.shape[2] + column];
    return [cells(seen, palette, largest(seen.flat())), paragraph(`The mean of the window: ${shown(sum)} / ${count} = ${shown(value)}.`)];
  },

  linear(layer, x, [unit], value, palette, _, view) {
    const products = Array.from(x, (v, i) => v * layer.weight[unit * x.length + i]);
    const order = products.map((_, i) => i).sort((a, b) => Math.abs(products[b]) - Math.abs(products[a]));
    const first = order.slice(0, MOST_TERMS), rest = order.slice(MOST_TERMS);
    const rows = first.map(i => [`${view.before.name}[${view.before.place(i).join(", ")}]`, shown(x[i]), shown(layer.weight[unit * x.length + i]), shown(products[i])]);
    if (rest.length) rows.push([`the other ${rest.length}`, "", "", shown(rest.reduce((sum, i) => sum + products[i], 0))]);
    rows.push(["bias", "", "", shown(layer.bias ? layer.bias[unit] : 0)]);
    return [
      paragraph(`The sum of ${x.length} inputs, each times its weight. The largest terms:`),
      sumTable(["input", "value", "weight", "product"], rows, shown(value)),
    ];
  },

  affine(layer, x, place, value, palette, unit) {
    const channel = layer.scale.length > 1 ? place[0] : 0;
    return [paragraph(`x · scale + shift = ${shown(x[unit])} · ${shown(layer.scale[channel])} + ${shown(layer.shift[channel])} = ${shown(value)}`)];
  },

  activation(layer, x, place, value, palette, unit) {
    return [paragraph(`${layer.function.replace("_", " ")}: ${FORMULAS[layer.function]}`), paragraph(`x = ${shown(x[unit])} gives ${shown(value)}.`)];
  },

  reshape: (layer, x, place, value) => [paragraph(`The value of the layer before: ${shown(value)}.`)],
};

// What stands in the inspector for a unit of a view.
function explained(network, view, unit, values, palette) {
  const { layer, index } = view, place = view.place(unit), value = values[index][unit];
  const names = view.maps ? ["map", "row", "column"] : ["unit"];
  const where = place.map((n, i) => `${names[i]} ${n}`).join(", ");
  const title = element("p", { className: "name" }, element("code", { textContent: `${view.name}[${place.join(", ")}]` }),
    element("span", { className: "value", textContent: `= ${shown(value, 3)}` }));
  const head = [title, paragraph(`${where[0].toUpperCase()}${where.slice(1)}, counted from 0.`, "note")];
  if (!layer) {
    const pixel = value * network.std + network.mean;
    const text = `(pixel − mean) / deviation = (${shown(pixel)} − ${shown(network.mean)}) / ${shown(network.std)} = ${shown(value)}`;
    return [...head, paragraph(text)];
  }
  if (layer.off.has(place[0])) return [...head, paragraph("This part of the layer is switched off.")];
  if (network.isOff(layer)) return [...head, paragraph("The activation is switched off: the value passes unchanged.")];
  return [...head, ...EXPLANATIONS[layer.op](layer, values[index - 1], place, value, palette, unit, view)];
}

// The parts of this and earlier layers that a unit depends on: for each layer, the channels, rows and columns.
function field(views, index, unit) {
  const [channel, row = 0, column = 0] = views[index].place(unit);
  let box = { first: channel, last: channel, top: row, left: column, bottom: row, right: column };
  const found = new Map([[index, box]]);
  for (let i = index; i > 0; i--) {
    const { layer } = views[i];
    if (layer.op === "linear" || layer.op === "reshape") break; // of those before, all
    if (layer.kernel) {
      const reach = axis => (layer.kernel[axis] - 1) * layer.dilation[axis] - layer.before[axis];
      box = {
        ...box,
        top: box.top * layer.stride[0] - layer.before[0], bottom: box.bottom * layer.stride[0] + reach(0),
        left: box.left * layer.stride[1] - layer.before[1], right: box.right * layer.stride[1] + reach(1),
      };
    }
    if (layer.op === "conv") {
      const inputs = layer.input[0] / layer.groups, outputs = layer.shape[0] / layer.groups;
      box.first = Math.floor(box.first / outputs) * inputs;
      box.last = (Math.floor(box.last / outputs) + 1) * inputs - 1;
    }
    found.set(i - 1, box);
  }
  return found;
}
