"use strict";
// The arithmetic of the network: its layers forward and backward, for one image. Nothing here touches the page.
//
// All arrays are flat Float32Arrays in the order (channel, row, column). A layer has `op`, `shape` (of its output),
// `input` (the shape of its input), its options, and its weights as views of one array.

// Each activation: the function, and its derivative as a function of its input x and its output y.
const ACTIVATIONS = {
  relu: { f: x => Math.max(x, 0), slope: x => Number(x > 0) },
  leaky_relu: { f: (x, a) => (x > 0 ? x : a * x), slope: (x, y, a) => (x > 0 ? 1 : a) },
  elu: { f: (x, a) => (x > 0 ? x : a * Math.expm1(x)), slope: (x, y, a) => (x > 0 ? 1 : y + a) },
  celu: { f: (x, a) => (x > 0 ? x : a * Math.expm1(x / a)), slope: (x, y, a) => (x > 0 ? 1 : y / a + 1) },
  silu: { f: x => x * sigmoid(x), slope: (x, y) => sigmoid(x) + y * (1 - sigmoid(x)) },
  softplus: {
    f: (x, beta, threshold) => (beta * x > threshold ? x : Math.log1p(Math.exp(beta * x)) / beta),
    slope: (x, y, beta, threshold) => (beta * x > threshold ? 1 : sigmoid(beta * x)),
  },
  hardtanh: { f: (x, low, high) => Math.min(Math.max(x, low), high), slope: (x, y, low, high) => Number(x > low && x < high) },
  tanh: { f: Math.tanh, slope: (x, y) => 1 - y * y },
  sigmoid: { f: sigmoid, slope: (x, y) => y * (1 - y) },
};

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

function product(shape) {
  return shape.reduce((size, n) => size * n, 1);
}

// Call visit(out, place, weight, count, step) for each weight and each row of windows: of `count` neighbouring windows,
// the outputs begin at `out`, and their inputs under this weight begin at `place` and are `step` apart.
function eachRow(layer, visit) {
  const [channels, height, width] = layer.input, [outputs, rows, columns] = layer.shape;
  const [kh, kw] = layer.kernel, [sh, sw] = layer.stride, [dh, dw] = layer.dilation, [top, left] = layer.before;
  const groups = layer.groups || channels; // pooling takes each channel by itself
  const perGroup = channels / groups;
  for (let o = 0; o < outputs; o++) {
    const first = Math.floor((o * groups) / outputs) * perGroup;
    for (let c = 0; c < perGroup; c++) {
      for (let a = 0; a < kh; a++) {
        for (let b = 0; b < kw; b++) {
          const weight = ((o * perGroup + c) * kh + a) * kw + b, shift = b * dw - left;
          const start = Math.max(0, Math.ceil(-shift / sw)), end = Math.min(columns - 1, Math.floor((width - 1 - shift) / sw));
          for (let i = 0; i < rows && start <= end; i++) {
            const y = i * sh + a * dh - top;
            if (y < 0 || y >= height) continue;
            const place = ((first + c) * height + y) * width + start * sw + shift;
            visit((o * rows + i) * columns + start, place, weight, end - start + 1, sw);
          }
        }
      }
    }
  }
}

// The divisor of each window of average pooling, (rows, columns): its number of pixels.
function divisors(layer) {
  const [, rows, columns] = layer.shape;
  const count = (axis, i) => {
    const start = i * layer.stride[axis], size = layer.input[1 + axis], before = layer.before[axis];
    const [first, last] = layer.padded ? [0, layer.full[axis]] : [before, before + size];
    return Math.min(start + layer.kernel[axis], last) - Math.max(start, first);
  };
  const of = (i, j) => layer.divisor || count(0, i) * count(1, j);
  return Float32Array.from({ length: rows * columns }, (_, k) => of(Math.floor(k / columns), k % columns));
}

// For each window of max pooling, the place of its first maximum.
function peaks(layer, x) {
  const places = new Int32Array(product(layer.shape)).fill(-1);
  eachRow(layer, (out, place, _, count, step) => {
    for (let j = 0; j < count; j++, place += step) {
      if (places[out + j] < 0 || x[place] > x[places[out + j]]) places[out + j] = place;
    }
  });
  return places;
}

const OPS = {
  conv: {
    forward(layer, x) {
      const y = new Float32Array(product(layer.shape)), size = layer.shape[1] * layer.shape[2], { weight, bias } = layer;
      if (bias) bias.forEach((b, o) => y.fill(b, o * size, (o + 1) * size));
      eachRow(layer, (out, place, w, count, step) => {
        for (let j = 0; j < count; j++) y[out + j] += x[place + j * step] * weight[w];
      });
      return y;
    },
    backward(layer, gradient, x) {
      const result = new Float32Array(x.length), { weight } = layer;
      eachRow(layer, (out, place, w, count, step) => {
        for (let j = 0; j < count; j++) result[place + j * step] += gradient[out + j] * weight[w];
      });
      return result;
    },
  },
  max: {
    forward: (layer, x) => Float32Array.from(peaks(layer, x), place => x[place]),
    backward(layer, gradient, x) {
      const result = new Float32Array(x.length);
      peaks(layer, x).forEach((place, out) => { result[place] += gradient[out]; });
      return result;
    },
  },
  mean: {
    forward(layer, x) {
      const y = new Float32Array(product(layer.shape)), count = divisors(layer);
      eachRow(layer, (out, place, _, n, step) => {
        for (let j = 0; j < n; j++) y[out + j] += x[place + j * step];
      });
      return y.map((sum, out) => sum / count[out % count.length]);
    },
    backward(layer, gradient, x) {
      const result = new Float32Array(x.length), count = divisors(layer);
      eachRow(layer, (out, place, _, n, step) => {
        for (let j = 0; j < n; j++) result[place + j * step] += gradient[out + j] / count[(out + j) % count.length];
      });
      return result;
    },
  },
  linear: {
    forward(layer, x) {
      const y = new Float32Array(layer.shape[0]);
      for (let o = 0; o < y.length; o++) {
        let sum = layer.bias ? layer.bias[o] : 0;
        for (let i = 0; i < x.length; i++) sum += layer.weight[o * x.length + i] * x[i];
        y[o] = sum;
      }
      return y;
    },
    backward(layer, gradient, x) {
      const result = new Float32Array(x.length);
      gradient.forEach((g, o) => {
        for (let i = 0; i < x.length; i++) result[i] += g * layer.weight[o * x.length + i];
      });
      return result;
    },
  },
  affine: { // for each channel a scale and a shift: batch normalisation in evaluation
    forward(layer, x) {
      const size = x.length / layer.scale.length;
      return x.map((v, i) => v * layer.scale[Math.floor(i / size)] + layer.shift[Math.floor(i / size)]);
    },
    backward(layer, gradient) {
      const size = gradient.length / layer.scale.length;
      return gradient.map((g, i) => g * layer.scale[Math.floor(i / size)]);
    },
  },
  activation: {
    forward: (layer, x) => x.map(v => ACTIVATIONS[layer.function].f(v, ...layer.options)),
    backward(layer, gradient, x, y) {
      return gradient.map((g, i) => g * ACTIVATIONS[layer.function].slope(x[i], y[i], ...layer.options));
    },
  },
  reshape: { forward: (layer, x) => x, backward: (layer, gradient) => gradient },
};

// Decode base64. With `half`, the numbers have 16 bits.
function numbers(text, half = false) {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0)), view = new DataView(bytes.buffer);
  if (!half) return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => fromHalf(view.getUint16(2 * i, true)));
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

class Network {
  constructor(description) {
    Object.assign(this, description);
    this.trained = numbers(description.weights);
    this.snapshots = description.history.map(({ name, weights }) => ({ name, weights: numbers(weights, true) }));
    this.weights = this.trained.slice(); // those in use
    this.activations = true; // whether the activations are on
    this.layers.forEach((layer, i) => {
      layer.input = i ? this.layers[i - 1].shape : [1, ...this.size];
      layer.off = new Set(); // the channels that are switched off
      for (const part of ["weight", "bias", "scale", "shift"]) {
        if (layer[part]) {
          layer[`${part}At`] = layer[part];
          layer[part] = this.weights.subarray(...layer[part]);
        }
      }
    });
  }

  // Use the weights of a snapshot (all snapshots: those of the trained network), and add noise to them. `amount` is the
  // noise in units of the standard deviation of the weights of each layer; `noise` has a normal number for each weight.
  setWeights(snapshot, amount = 0, noise = null) {
    this.weights.set(snapshot < this.snapshots.length ? this.snapshots[snapshot].weights : this.trained);
    for (const { weight } of this.layers) {
      if (!weight || !amount) continue;
      const mean = weight.reduce((sum, w) => sum + w, 0) / weight.length;
      const deviation = Math.sqrt(weight.reduce((sum, w) => sum + (w - mean) ** 2, 0) / weight.length);
      const start = weight.byteOffset / weight.BYTES_PER_ELEMENT;
      weight.forEach((w, i) => { weight[i] = w + amount * deviation * noise[start + i]; });
    }
  }

  isOff(layer) {
    return layer.op === "activation" && !this.activations;
  }

  // The values of all layers for an image with pixels from 0 to 1: first the input, last the logits.
  forward(image) {
    const values = [image.map(pixel => (pixel - this.mean) / this.std)];
    for (const layer of this.layers) {
      const x = values[values.length - 1], y = this.isOff(layer) ? x : OPS[layer.op].forward(layer, x);
      values.push(silenced(layer, y));
    }
    return values;
  }

  // The gradient of a sum of logits with respect to the pixels. `seed` has the factor of each logit.
  backward(values, seed) {
    let gradient = Float32Array.from(seed);
    for (let i = this.layers.length - 1; i >= 0; i--) {
      const layer = this.layers[i];
      gradient = silenced(layer, gradient);
      if (!this.isOff(layer)) gradient = OPS[layer.op].backward(layer, gradient, values[i], values[i + 1]);
    }
    return gradient.map(g => g / this.std);
  }

  // How the logit of a class changes with each pixel.
  saliency(values, label) {
    return this.backward(values, this.classes.map((_, c) => Number(c === label)));
  }
}

// The values of a layer, with 0 in the channels that are switched off.
function silenced(layer, values) {
  if (!layer.off.size) return values;
  const size = values.length / layer.shape[0];
  return values.map((v, i) => (layer.off.has(Math.floor(i / size)) ? 0 : v));
}

function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b)), powers = Array.from(logits, z => Math.exp(z - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map(p => p / sum);
}
