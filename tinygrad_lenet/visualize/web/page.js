"use strict";
// The page: the drawing, the experiments and the answer. `update` runs the network and shows everything anew.

const $ = id => document.getElementById(id);
const network = new Network(JSON.parse($("network").textContent));
const [ROWS, COLUMNS] = network.size;
const STROKE = 22; // the width of the pen, in pixels of a drawing 280 wide
const KEY_STEP = 10;
const CONFUSING_STEP = 0.1; // the largest change of a pixel

const pad = $("pad"), ink = pad.getContext("2d", { willReadFrequently: true }), glow = $("glow").getContext("2d");
const views = [new LayerView(null, [1, ROWS, COLUMNS], 0)];
network.layers.forEach((layer, i) => views.push(new LayerView(layer, layer.shape, i + 1)));
views.forEach((view, i) => { // the layer that its inputs belong to: one with maps rather than their reshape
  if (i) view.before = views[i - 1].layer && views[i - 1].layer.op === "reshape" ? views[i - 2] : views[i - 1];
});
if (network.classes.every(name => name.length < 3)) views[views.length - 1].labels = network.classes;

const state = {
  strokes: [], // each a list of points [x, y] in pixels of the drawing
  example: -1, // the example below the strokes, or -1
  pen: null, // where the pen of the keyboard is: {x, y, down}
  confused: null, // {image, steps}: the image after steps of the gradient
  label: -1, // the class whose saliency is shown, or -1
  selected: null, // {index, unit} in the inspector
  kept: false, // whether the pointer leaves it as it is
  noise: normals(network.weights.length),
};
const seenNote = element("p", { className: "note" });
let values, image, place, probabilities, palette = colours();
const examples = network.examples && { labels: network.examples.labels, images: atob(network.examples.images) };

// Normal random numbers, the same on each visit.
function normals(count) {
  let seed = 1;
  const uniform = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed + 0.5) / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// The drawing

function drawInk() {
  ink.clearRect(0, 0, pad.width, pad.height);
  if (state.example >= 0) drawExample();
  Object.assign(ink, { lineWidth: STROKE, lineCap: "round", lineJoin: "round", strokeStyle: css(palette.ink) });
  for (const points of state.strokes) {
    ink.beginPath();
    ink.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : points) ink.lineTo(...point);
    ink.stroke();
  }
}

function examplePixels() {
  const start = state.example * ROWS * COLUMNS;
  return Float32Array.from({ length: ROWS * COLUMNS }, (_, i) => examples.images.charCodeAt(start + i) / 255);
}

function drawExample() {
  const small = element("canvas", { width: COLUMNS, height: ROWS }), pixels = new ImageData(COLUMNS, ROWS);
  examplePixels().forEach((v, i) => pixels.data.set([...palette.ink, 255 * v], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  ink.drawImage(small, 0, 0, pad.width, pad.height);
}

// The image that the network sees, and where it lies on the drawing.
function seen() {
  const whole = { left: 0, top: 0, side: pad.width / COLUMNS };
  if (state.example >= 0 && !state.strokes.length) return { image: examplePixels(), ...whole };
  const { data } = ink.getImageData(0, 0, pad.width, pad.height);
  const opacity = new Float32Array(pad.width * pad.height);
  for (let i = 0; i < opacity.length; i++) opacity[i] = data[4 * i + 3] / 255;
  const found = prepared(opacity, pad.height, pad.width, network.size, $("centring").checked);
  return found || { image: new Float32Array(ROWS * COLUMNS), ...whole };
}

// Show the consequences of a change of the drawing.
function redraw() {
  state.confused = null;
  drawInk();
  update();
}

// The network

function update() {
  const start = performance.now();
  const found = seen();
  image = state.confused ? state.confused.image : found.image;
  place = found;
  values = network.forward(image);
  probabilities = softmax(values[values.length - 1]);
  showAnswer();
  showLayers();
  showSaliency();
  $("time").textContent = `Last update: ${(performance.now() - start).toFixed(1)} ms.`;
}

// The most probable class besides one.
function best(besides = -1) {
  const others = network.classes.map((_, c) => c).filter(c => c !== besides);
  return others.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
}

// The class that "confuse it" moves to: the chosen one, that of the last step, or the second best.
function target() {
  if (state.label >= 0 && state.label !== best()) return state.label;
  return state.confused ? state.confused.target : best(best());
}

function confuse() {
  const to = target(), from = best(to);
  const gradient = network.backward(values, network.classes.map((_, c) => Number(c === to) - Number(c === from)));
  const scale = CONFUSING_STEP / largest(gradient);
  const next = image.map((v, i) => Math.min(Math.max(v + scale * gradient[i], 0), 1));
  state.confused = { image: next, target: to, steps: (state.confused ? state.confused.steps : 0) + 1 };
  update();
}

// Showing

// How the image came about.
function note() {
  if (state.confused) return `The image, changed by at most ${CONFUSING_STEP} a pixel in each step along the gradient.`;
  if (state.example >= 0 && !state.strokes.length) return "The example as it is.";
  if (!$("centring").checked) return `The drawing, reduced to ${ROWS} × ${COLUMNS} pixels as it is.`;
  const reach = Math.round((Math.min(ROWS, COLUMNS) * 5) / 7);
  return `The drawing, scaled to fit into ${reach} × ${reach} pixels and shifted until its centre of mass is in the middle, as MNIST's digits were.`;
}

let announcing;
function showAnswer() {
  const blank = !image.some(v => v > 0), winner = best();
  probabilities.forEach((p, c) => {
    const bar = $("bars").children[c];
    bar.classList.toggle("best", c === winner && !blank);
    bar.querySelector(".fill").style.width = `${blank ? 0 : 100 * p}%`;
    bar.querySelector(".share").textContent = blank ? "" : `${(100 * p).toFixed(p > 0.9995 ? 0 : 1)} %`;
  });
  const name = network.classes[winner];
  $("answer-title").textContent = blank ? "The answer" : `The answer: ${name}`;
  $("invite").hidden = !blank;
  $("confuse").disabled = blank || network.classes.length < 2;
  $("confuse").textContent = blank || network.classes.length < 2 ? "Confuse it" : `Confuse it towards ${network.classes[target()]}`;
  $("unconfuse").hidden = !state.confused;
  const steps = state.confused && `${state.confused.steps} step${state.confused.steps > 1 ? "s" : ""}`;
  $("confusion").textContent = steps ? `After ${steps} along the gradient. The input layer shows the changed image.` : "";
  $("saliency-note").textContent = state.label < 0
    ? "Choose a class to see what speaks for it."
    : `Orange: more ink here speaks for ${network.classes[state.label]}. Blue: against it.`;
  seenNote.textContent = note();
  clearTimeout(announcing);
  const text = blank ? "" : `The network reads ${name}, ${(100 * probabilities[winner]).toFixed(0)} percent.`;
  announcing = setTimeout(() => { $("status").textContent = text; }, 500);
}

function showLayers() {
  for (const view of views) if (view.context) view.draw(values[view.index], palette);
  if (!state.selected) return;
  const { index, unit } = state.selected;
  for (const [i, box] of field(views, index, unit)) if (views[i].context) views[i].outline(box, palette);
  const view = views[index], parts = explained(network, view, unit, values, palette);
  if (view.layer && view.layer.op !== "reshape") parts.splice(2, 0, channelSwitch(view, view.place(unit)[0]));
  $("unit").replaceChildren(...parts);
}

function channelSwitch(view, channel) {
  const box = element("input", { type: "checkbox", checked: !view.layer.off.has(channel) });
  box.addEventListener("change", () => {
    view.layer.off[box.checked ? "delete" : "add"](channel);
    showSilenced();
    update();
    $("unit").querySelector("input").focus();
  });
  const what = view.layer.op === "conv" ? "Kernel" : view.maps ? "Map" : "Unit";
  return element("label", {}, box, ` ${what} ${channel} of ${view.name} is on`);
}

function showSilenced() {
  const off = views.filter(view => view.layer).flatMap(view => [...view.layer.off].map(c => `${view.name}[${c}]`));
  $("silenced").hidden = !off.length;
  $("silenced").firstElementChild.textContent = `Switched off: ${off.join(", ")}`;
}

// The gradient of the chosen class on the drawing: orange for, blue against.
function showSaliency() {
  glow.clearRect(0, 0, pad.width, pad.height);
  if (state.label < 0) return;
  const gradient = network.saliency(values, state.label), most = largest(gradient);
  const small = element("canvas", { width: COLUMNS, height: ROWS }), pixels = new ImageData(COLUMNS, ROWS);
  gradient.forEach((g, i) => {
    pixels.data.set([...(g < 0 ? palette.negative : palette.positive), 210 * Math.sqrt(Math.abs(g) / most)], 4 * i);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  glow.drawImage(small, place.left, place.top, place.side * COLUMNS, place.side * ROWS);
}

function select(index, unit) {
  if (isSelected(index, unit)) return;
  state.selected = { index, unit };
  showLayers();
}

function isSelected(index, unit) {
  return state.selected && state.selected.index === index && state.selected.unit === unit;
}

function openInspector() {
  $("inspector").classList.add("open");
}

// Building the page

function buildBars() {
  network.classes.forEach((name, c) => {
    const input = element("input", { type: "radio", name: "class", value: c });
    input.addEventListener("change", () => {
      state.label = c;
      update();
    });
    input.addEventListener("click", () => { // a second click takes the choice back
      if (input.dataset.chosen) {
        input.checked = false;
        state.label = -1;
        update();
      }
      for (const other of document.querySelectorAll("#bars input")) delete other.dataset.chosen;
      if (input.checked) input.dataset.chosen = "1";
    });
    $("bars").append(element("label", { className: "bar" }, input,
      element("span", { className: "name", textContent: name, title: name }),
      element("span", { className: "track" }, element("div", { className: "fill" })),
      element("span", { className: "share" })));
  });
}

function buildLayers() {
  views[0].canvas.after(seenNote);
  for (const view of views) {
    $("layers").append(view.element);
    const at = event => {
      const box = view.canvas.getBoundingClientRect();
      return view.unitAt(event.clientX - box.left, event.clientY - box.top);
    };
    const choose = unit => unit >= 0 && select(view.index, unit);
    view.canvas.addEventListener("pointermove", event => {
      if (event.pointerType === "mouse" && !state.kept) choose(at(event));
    });
    view.canvas.addEventListener("click", event => {
      const unit = at(event);
      state.kept = !(state.kept && isSelected(view.index, unit));
      choose(unit);
      openInspector();
    });
    view.canvas.addEventListener("focus", () => {
      if (view.canvas.matches(":focus-visible") && (!state.selected || state.selected.index !== view.index)) choose(0);
    });
    view.canvas.addEventListener("keydown", event => {
      const unit = state.selected && state.selected.index === view.index ? state.selected.unit : 0;
      const next = view.moved(unit, event.key);
      if (next === null) return;
      event.preventDefault();
      state.kept = true;
      choose(next);
      openInspector();
      $("status").textContent = `${view.name}, ${view.place(next).join(", ")}: ${shown(values[view.index][next])}`;
    });
  }
}

function layout() {
  const style = getComputedStyle($("layers"));
  const width = $("layers").clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  for (const view of views) if (view.canvas.isConnected) view.layout(width);
}

// The pen: mouse, finger and stylus, or keys

function pointOf(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
}

function listenToPen() {
  let drawing = false, waiting = false;
  pad.addEventListener("pointerdown", event => {
    if (event.button || !event.isPrimary) return;
    pad.setPointerCapture(event.pointerId);
    drawing = true;
    hidePen();
    state.strokes.push([pointOf(event)]);
    redraw();
  });
  pad.addEventListener("pointermove", event => {
    if (!drawing || !event.isPrimary) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    state.strokes[state.strokes.length - 1].push(...(events.length ? events : [event]).map(pointOf));
    if (waiting) return; // once a frame is enough
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      redraw();
    });
  });
  for (const kind of ["pointerup", "pointercancel"]) pad.addEventListener(kind, () => { drawing = false; });
  pad.addEventListener("keydown", penKey);
  pad.addEventListener("blur", hidePen);
}

function penKey(event) {
  const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  const pen = state.pen || { x: pad.width / 2, y: pad.height / 4, down: false };
  if (step) {
    pen.x = Math.min(Math.max(pen.x + KEY_STEP * step[0], 0), pad.width);
    pen.y = Math.min(Math.max(pen.y + KEY_STEP * step[1], 0), pad.height);
    if (pen.down) state.strokes[state.strokes.length - 1].push([pen.x, pen.y]);
  } else if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) state.strokes.push([[pen.x, pen.y]]);
    $("status").textContent = pen.down ? "Pen down" : "Pen up";
  } else if (event.key === "Backspace" || (event.key === "z" && (event.ctrlKey || event.metaKey))) {
    undo();
  } else if (event.key === "Delete") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  state.pen = state.strokes.length || !pen.down ? pen : { ...pen, down: false };
  showPen();
  if (state.pen.down) redraw();
}

function showPen() {
  const { x, y, down } = state.pen;
  Object.assign($("pen").style, { left: `${(100 * x) / pad.width}%`, top: `${(100 * y) / pad.height}%` });
  $("pen").classList.toggle("down", down);
  $("pen").hidden = false;
}

function hidePen() {
  if (state.pen) state.pen.down = false;
  $("pen").hidden = true;
}

function undo() {
  if (state.pen) state.pen.down = false;
  state.strokes.pop();
  redraw();
}

function clear() {
  if (state.pen) state.pen.down = false;
  Object.assign(state, { strokes: [], example: -1 });
  if (examples) $("example").textContent = "Examples";
  redraw();
}

function stepExample(step) {
  const count = examples.labels.length;
  state.example = state.example < 0 ? (step > 0 ? 0 : count - 1) : (state.example + step + count) % count;
  state.strokes = [];
  const name = network.classes[examples.labels[state.example]];
  $("example").textContent = `${state.example + 1} of ${count}, labelled ${name}`;
  redraw();
}

function setWeights() {
  const snapshot = network.snapshots.length ? Number($("snapshots").value) : 0;
  network.setWeights(snapshot, Number($("noise").value) / 100, state.noise);
  $("amount").textContent = `${$("noise").value} %`;
  $("snapshot").textContent = snapshot < network.snapshots.length ? network.snapshots[snapshot].name : "trained";
  update();
}

function listenToExperiments() {
  const names = [...new Set(network.layers.filter(l => l.op === "activation").map(l => l.kind.replace("()", "")))];
  $("activation-names").textContent = names.length ? `Activations (${names.join(", ")})` : "Activations";
  $("activations").disabled = !names.length;
  $("activations").addEventListener("change", () => {
    network.activations = $("activations").checked;
    update();
  });
  $("centring").addEventListener("change", redraw);
  $("noise").addEventListener("input", setWeights);
  $("snapshots").addEventListener("input", setWeights);
  $("snapshots").max = $("snapshots").value = network.snapshots.length;
  $("history").hidden = !network.snapshots.length;
  $("restore").addEventListener("click", () => {
    for (const layer of network.layers) layer.off.clear();
    showSilenced();
    update();
  });
}

function listenToButtons() {
  $("undo").addEventListener("click", undo);
  $("clear").addEventListener("click", clear);
  $("confuse").addEventListener("click", confuse);
  $("unconfuse").addEventListener("click", redraw);
  $("close").addEventListener("click", () => {
    $("inspector").classList.remove("open");
    Object.assign(state, { selected: null, kept: false });
    showLayers();
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") state.kept = false;
  });
  $("examples").hidden = !examples || !examples.labels.length;
  $("previous").addEventListener("click", () => stepExample(-1));
  $("next").addEventListener("click", () => stepExample(1));
}

function begin() {
  const count = network.parameters.toLocaleString("en");
  $("summary").textContent = `A network of ${network.layers.length} layers and ${count} parameters reads what you draw. Every layer follows each stroke.`;
  buildBars();
  buildLayers();
  listenToPen();
  listenToExperiments();
  listenToButtons();
  let width = 0;
  new ResizeObserver(() => {
    if (width === $("layers").clientWidth) return;
    width = $("layers").clientWidth;
    layout();
    if (values) showLayers();
  }).observe($("layers"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    palette = colours();
    drawInk();
    update();
  });
  layout();
  setWeights();
  drawInk();
}

begin();
