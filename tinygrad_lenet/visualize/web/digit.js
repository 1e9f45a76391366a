"use strict";
// From a drawing to an image of the network's size, as MNIST's images were made: the digit is scaled into a box of
// 20 x 20 pixels, and its centre of mass is put into the middle of 28 x 28 (LeCun et al., 1998, section III.A).

// Round to the nearest integer, and a half to the even one.
function rounded(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + Math.abs(low % 2) : Math.round(x);
}

// Resize one axis: the mean of the pixels below each new pixel, or linear interpolation where the image grows.
function resizedRows(pixels, height, width, size) {
  const scale = height / size, support = scale > 1 ? scale / 2 : 1, result = new Float32Array(size * width);
  const weight = distance => (scale > 1 ? Number(distance > -0.5 && distance <= 0.5) : Math.max(0, 1 - Math.abs(distance)));
  for (let i = 0; i < size; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support + 0.5));
    const last = Math.min(height, Math.floor(centre + support + 0.5));
    let total = 0;
    for (let y = first; y < last; y++) {
      const w = weight((y - centre + 0.5) / Math.max(scale, 1));
      total += w;
      for (let x = 0; w && x < width; x++) result[i * width + x] += w * pixels[y * width + x];
    }
    for (let x = 0; x < width; x++) result[i * width + x] /= total;
  }
  return result;
}

function transposed(pixels, height, width) {
  return pixels.map((_, k) => pixels[(k % height) * width + Math.floor(k / height)]);
}

function resized(pixels, height, width, rows, columns) {
  const across = resizedRows(transposed(pixels, height, width), width, height, columns); // (columns, height)
  return resizedRows(transposed(across, columns, height), height, columns, rows);
}

// The first and the last row, and the first and the last column, that have ink.
function bounds(ink, height, width, least) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] <= least) continue;
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      [left, right] = [Math.min(left, x), Math.max(right, x)];
    }
  }
  return { top, left, height: bottom - top + 1, width: right - left + 1 };
}

// Returns the image, and where it lies on the drawing: pixel (0, 0) at (left, top), and the side of a pixel.
// `ink`, from 0 to 1, has `height` x `width` pixels; the image has `rows` x `columns`. A blank drawing gives null.
function prepared(ink, height, width, [rows, columns], centred = true) {
  let most = 0;
  for (const v of ink) if (v > most) most = v;
  if (most < 0.1) return null;
  if (!centred) {
    return { image: resized(ink, height, width, rows, columns), left: 0, top: 0, side: width / columns };
  }
  const even = new Float32Array(ink.length); // paper is never quite even
  for (let i = 0; i < ink.length; i++) even[i] = Math.min(Math.max((ink[i] / most - 0.1) / 0.8, 0), 1);
  const box = bounds(even, height, width, 0.3), reach = rounded((Math.min(rows, columns) * 5) / 7); // 20 of 28
  const cut = new Float32Array(box.height * box.width);
  for (let y = 0; y < box.height; y++) {
    const start = (box.top + y) * width + box.left;
    cut.set(even.subarray(start, start + box.width), y * box.width);
  }
  const scale = reach / Math.max(box.height, box.width);
  const h = Math.max(1, rounded(box.height * scale)), w = Math.max(1, rounded(box.width * scale));
  const small = resized(cut, box.height, box.width, h, w);
  let mass = 0, massY = 0, massX = 0;
  small.forEach((v, k) => {
    mass += v;
    massY += v * Math.floor(k / w);
    massX += v * (k % w);
  });
  const offset = (centre, size) => size / 2 - Math.min(Math.max(rounded(size / 2 + centre - (size - 1) / 2), 0), reach);
  const top = Math.floor(offset(massY / mass, rows)), left = Math.floor(offset(massX / mass, columns));
  const image = new Float32Array(rows * columns);
  small.forEach((v, k) => {
    const y = top + Math.floor(k / w), x = left + (k % w);
    if (y >= 0 && y < rows && x >= 0 && x < columns) image[y * columns + x] = v;
  });
  return { image, left: box.left - left / scale, top: box.top - top / scale, side: 1 / scale };
}
