"use strict";
// A picture of each layer: its maps side by side, or its units as cells; and which unit is at a point of it.

const GAP = 4; // between maps

function colours() {
  const style = getComputedStyle(document.documentElement);
  const rgb = name => [1, 3, 5].map(i => parseInt(style.getPropertyValue(`--${name}`).trim().slice(i, i + 2), 16));
  const names = ["paper", "ink", "positive", "negative", "zero", "mark", "muted"];
  return Object.fromEntries(names.map(name => [name, rgb(name)]));
}

function mixed(from, to, share) {
  return from.map((v, i) => Math.round(v + (to[i] - v) * share));
}

// The colour of a value on a scale from -most to most.
function signed(value, most, palette) {
  const share = Math.min(Math.abs(value) / most, 1) || 0;
  return mixed(palette.zero, value < 0 ? palette.negative : palette.positive, share);
}

function css(rgb) {
  return `rgb(${rgb.join(" ")})`;
}

function largest(values) {
  return values.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-9);
}

function element(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

function size(shape) {
  return shape.join(" × ");
}

class LayerView {
  // `layer` is null for the input.
  constructor(layer, shape, index) {
    Object.assign(this, { layer, shape, index });
    this.maps = shape.length === 3;
    this.name = layer ? layer.name || layer.kind : "input";
    this.count = shape[0];
    [this.rows, this.columns] = this.maps ? shape.slice(1) : [1, 1];
    const kind = !layer ? "what the network sees" : layer.name ? layer.kind : "";
    this.canvas = element("canvas", { tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "layer");
    this.canvas.setAttribute("aria-label", `${this.name}, ${kind}: ${this.units()}. Arrow keys choose a unit.`);
    this.element = element("div", { className: "layer" },
      element("div", {},
        element("h3", { textContent: this.name }),
        element("span", { className: "kind", textContent: kind, title: kind }),
        element("span", { className: "shape", textContent: size(shape) })),
      // A reshape has the values of the layer before.
      ...(layer && layer.op === "reshape" ? [] : [element("div", { className: "look" }, this.canvas)]));
    this.scratch = element("canvas", { width: this.columns, height: this.rows });
  }

  units() {
    return this.maps ? `${this.count} map${this.count > 1 ? "s" : ""} of ${this.rows} by ${this.columns}` : `${this.count} units`;
  }

  // Choose the columns and the side of a map or a cell for a width in pixels.
  layout(width) {
    const few = Math.min(this.count, 12);
    const least = !this.maps ? 16 : this.columns <= 8 ? 28 : 36, most = !this.maps ? (this.count > few ? 18 : 30) : this.layer ? 96 : 112;
    this.gap = this.maps ? GAP : 2;
    const across = Math.max(1, Math.min(this.count, Math.floor((width + this.gap) / (least + this.gap))));
    this.lines = Math.ceil(this.count / across);
    this.across = Math.ceil(this.count / this.lines);
    this.side = Math.max(4, Math.min(most, Math.floor((width + this.gap) / this.across) - this.gap));
    this.tall = this.maps ? Math.round((this.side * this.rows) / this.columns) : this.side;
    const ratio = window.devicePixelRatio || 1;
    const w = this.across * (this.side + this.gap) - this.gap, h = this.lines * (this.tall + this.gap) - this.gap;
    Object.assign(this.canvas, { width: Math.round(w * ratio), height: Math.round(h * ratio) });
    Object.assign(this.canvas.style, { width: `${w}px`, height: `${h}px` });
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(this.canvas.width / w, 0, 0, this.canvas.height / h, 0, 0);
    this.context.imageSmoothingEnabled = false;
  }

  // Where a map or a cell begins.
  corner(channel) {
    return [(channel % this.across) * (this.side + this.gap), Math.floor(channel / this.across) * (this.tall + this.gap)];
  }

  // The colours of these values. The input is ink on paper; all other layers have a colour for each sign.
  scale(values, palette) {
    const most = largest(values);
    if (this.layer) return v => signed(v, most, palette);
    const [low, high] = [Math.min, Math.max].map(f => values.reduce((a, b) => f(a, b)));
    return v => mixed(palette.paper, palette.ink, (v - low) / (high - low) || 0);
  }

  draw(values, palette) {
    const context = this.context, colour = this.scale(values, palette);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const pixels = this.maps && this.scratch.getContext("2d").createImageData(this.columns, this.rows);
    const area = this.rows * this.columns;
    for (let channel = 0; channel < this.count; channel++) {
      const [left, top] = this.corner(channel);
      if (this.maps) {
        for (let i = 0; i < area; i++) pixels.data.set([...colour(values[channel * area + i]), 255], 4 * i);
        this.scratch.getContext("2d").putImageData(pixels, 0, 0);
        context.drawImage(this.scratch, left, top, this.side, this.tall);
      } else {
        context.fillStyle = css(colour(values[channel]));
        context.fillRect(left, top, this.side, this.side);
        if (this.labels) this.write(this.labels[channel], left, top, css(readable(colour(values[channel]), palette)));
      }
      if (this.layer && this.layer.off.has(channel)) this.cross(left, top, palette);
    }
  }

  write(text, left, top, colour) {
    const context = this.context;
    Object.assign(context, { fillStyle: colour, font: "13px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
    context.fillText(text, left + this.side / 2, top + this.side / 2 + 1, this.side);
  }

  cross(left, top, palette) {
    const context = this.context;
    Object.assign(context, { strokeStyle: css(palette.muted), lineWidth: 1.5 });
    context.beginPath();
    context.moveTo(left, top);
    context.lineTo(left + this.side, top + this.tall);
    context.moveTo(left + this.side, top);
    context.lineTo(left, top + this.tall);
    context.stroke();
  }

  // Outline a part of the channels from `first` to `last`: rows and columns of maps, or cells.
  outline({ first, last, top, left, bottom, right }, palette) {
    const context = this.context, height = this.tall / this.rows, width = this.side / this.columns;
    Object.assign(context, { strokeStyle: css(palette.mark), lineWidth: 2 });
    for (let channel = first; channel <= last; channel++) {
      const [x, y] = this.corner(channel);
      const x0 = Math.max(x + left * width, x), y0 = Math.max(y + top * height, y);
      const x1 = Math.min(x + (right + 1) * width, x + this.side), y1 = Math.min(y + (bottom + 1) * height, y + this.tall);
      context.strokeRect(x0 + 0.5, y0 + 0.5, Math.max(x1 - x0 - 1, 2), Math.max(y1 - y0 - 1, 2));
    }
  }

  // The unit at a point in pixels from the canvas's corner, or -1.
  unitAt(x, y) {
    const column = Math.floor(x / (this.side + this.gap)), line = Math.floor(y / (this.tall + this.gap));
    const channel = line * this.across + column;
    if (x < 0 || y < 0 || column >= this.across || channel >= this.count) return -1;
    const within = (distance, length, count) => Math.min(Math.floor((distance / length) * count), count - 1);
    const row = within(y - line * (this.tall + this.gap), this.tall, this.rows);
    return (channel * this.rows + row) * this.columns + within(x - column * (this.side + this.gap), this.side, this.columns);
  }

  // Channel, row and column of a unit; of a dense layer, the unit alone.
  place(unit) {
    const area = this.rows * this.columns, rest = unit % area;
    return this.maps ? [Math.floor(unit / area), Math.floor(rest / this.columns), rest % this.columns] : [unit];
  }

  // The unit that a key moves to; null if the key does not move.
  moved(unit, key) {
    const [channel, row, column] = this.maps ? this.place(unit) : [unit, 0, 0];
    const clamp = (v, count) => Math.min(Math.max(v, 0), count - 1);
    const at = (c, y, x) => (clamp(c, this.count) * this.rows + clamp(y, this.rows)) * this.columns + clamp(x, this.columns);
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    if (step) return this.maps ? at(channel, row + step[0], column + step[1]) : at(channel + step[0] * this.across + step[1], 0, 0);
    const jump = { PageUp: -1, PageDown: 1 }[key];
    return jump && this.maps ? at(channel + jump, row, column) : null;
  }
}
