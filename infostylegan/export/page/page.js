"use strict";
const $ = (id) => document.getElementById(id);
const canvas = $("image");
let about = null, worker = null, busy = false, wanted = false, settings = null;

function fail(text) {
  $("status").textContent = text;
  $("status").className = "failed";
}

// ---- z' from a seed: mulberry32 and Box and Muller's normal numbers

function noise(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const z = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    z[i] = radius * Math.cos(angle);
    if (i + 1 < count) z[i + 1] = radius * Math.sin(angle);
  }
  return z;
}

// ---- controls

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function slider(id, text, low, high, step, value, change) {
  const shown = element("output", { htmlFor: id });
  const input = element("input", { type: "range", id, min: low, max: high, step, value });
  const show = () => { shown.textContent = Number(input.value).toFixed(2); };
  input.addEventListener("input", () => { show(); change(Number(input.value)); });
  const row = element("div", { className: "row" }, element("label", { htmlFor: id, textContent: text }), shown, input);
  return { row, set: (v) => { input.value = v; show(); } };
}

function tick(id, text, change) {
  const input = element("input", { type: "checkbox", id });
  input.addEventListener("change", () => change(input.checked ? 1 : 0));
  const row = element("div", { className: "row" }, element("label", { htmlFor: id, textContent: text }), input);
  return { row, set: (v) => { input.checked = v === 1; } };
}

function choice(id, text, names, change) {
  if (names.length > 12) {
    const select = element("select", { id }, ...names.map((name, i) => new Option(name, i)));
    select.addEventListener("change", () => change(Number(select.value)));
    const row = element("div", { className: "row" }, element("label", { htmlFor: id, textContent: text }), select);
    return { row, set: (v) => { select.value = v; } };
  }
  const inputs = names.map((_, i) => element("input", { type: "radio", name: id, id: `${id}-${i}`, value: i }));
  const row = element("fieldset", { className: "choices" }, element("legend", { textContent: text }),
    ...inputs.map((input, i) => element("label", {}, input, names[i])));
  inputs.forEach((input, i) => input.addEventListener("change", () => change(i)));
  return { row, set: (v) => { inputs[v].checked = true; } };
}

const controls = [];
let psiControl = null, labelControl = null;

function build() {
  about.codes.forEach((code, i) => {
    const change = (value) => { settings.c[i] = value; changed(); };
    const control = code.kind === "unif" ? slider(code.code, code.shown, -1, 1, 0.01, 0, change)
      : code.kind === "bern" ? tick(code.code, code.shown, change)
      : choice(code.code, code.shown, Array.from({ length: code.values }, (_, k) => String(k)), change);
    controls.push(control);
    $("codes").append(control.row);
  });
  $("codes").hidden = !about.codes.length;
  $("draw").hidden = !about.codes.length;
  if (about.styles) {
    psiControl = slider("psi", "ψ (1: as learned; less: more typical)", 0, 1, 0.01, 1, (v) => { settings.psi = v; changed(); });
    $("sample").append(psiControl.row);
  }
  if (about.labels.length) {
    labelControl = choice("label", "Label", about.labels, (v) => { settings.label = v; changed(); });
    $("sample").append(labelControl.row);
  }
}

function apply() {
  controls.forEach((control, i) => control.set(settings.c[i]));
  $("seed").value = settings.seed;
  if (psiControl) psiControl.set(settings.psi);
  if (labelControl) labelControl.set(settings.label);
  changed();
}

const start = () => ({ seed: 0, psi: 1, label: 0, c: about.codes.map(() => 0) });

// The settings are in the address, so that a link shows the same image.
function fromAddress() {
  const found = start(), given = new URLSearchParams(location.hash.slice(1));
  const number = (name, low, high, whole, otherwise) => {
    const value = given.has(name) ? Number(given.get(name)) : NaN;
    return value >= low && value <= high && (!whole || Number.isInteger(value)) ? value : otherwise;
  };
  found.seed = number("seed", 0, 4294967295, true, 0);
  found.psi = about.styles ? number("psi", 0, 1, false, 1) : 1;
  found.label = number("label", 0, about.labels.length - 1, true, 0);
  found.c = about.codes.map((code) =>
    code.kind === "unif" ? number(code.code, -1, 1, false, 0) : number(code.code, 0, code.values - 1, true, 0));
  return found;
}

function toAddress() {
  const told = new URLSearchParams({ seed: settings.seed });
  if (about.styles) told.set("psi", settings.psi);
  if (about.labels.length) told.set("label", settings.label);
  about.codes.forEach((code, i) => told.set(code.code, settings.c[i]));
  history.replaceState(null, "", `#${told}`);
}

// ---- the image

function changed() {
  wanted = true;
  if (!busy) ask();
}

function ask() {
  wanted = false;
  busy = true;
  worker.postMessage({
    z: noise(settings.seed, about.noise_dim), c: Float32Array.from(settings.c), label: settings.label, psi: settings.psi,
  });
}

function show(data, dims, ms) {
  const [, channels, height, width] = dims, plane = height * width;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < plane; i++) {
    for (let k = 0; k < 3; k++) {
      pixels.data[4 * i + k] = Math.round((data[(channels === 1 ? 0 : k) * plane + i] + 1) * 127.5);
    }
    pixels.data[4 * i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.dataset.drawn = Number(canvas.dataset.drawn || 0) + 1;
  $("status").textContent = `${width} × ${height}, ${ms.toFixed(0)} ms`;
  $("status").className = "";
}

function answered({ data }) {
  if (data.failed) {
    busy = false;
    fail(`The generator could not run: ${data.failed}`);
  } else if (data.ready) {
    for (const id of ["codes", "sample"]) $(id).disabled = false;
    settings = fromAddress();
    apply();
  } else {
    busy = false;
    show(data.image, data.dims, data.ms);
    if (wanted) ask();
    else toAddress();
  }
}

$("seed").addEventListener("input", () => {
  const seed = Number($("seed").value);
  if (settings && Number.isInteger(seed) && seed >= 0 && seed <= 4294967295) { settings.seed = seed; changed(); }
});
$("another").addEventListener("click", () => {
  if (settings) { settings.seed = Math.floor(Math.random() * 1e6); apply(); }
});
$("draw").addEventListener("click", () => {
  if (!settings) return;
  settings.c = about.codes.map((code) =>
    code.kind === "unif" ? Math.round((Math.random() * 2 - 1) * 100) / 100 : Math.floor(Math.random() * code.values));
  apply();
});
$("reset").addEventListener("click", () => { if (settings) { settings = start(); apply(); } });
$("save").addEventListener("click", () => canvas.toBlob((blob) => {
  const link = element("a", { href: URL.createObjectURL(blob), download: `seed${settings ? settings.seed : 0}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}));
$("controls").addEventListener("submit", (event) => event.preventDefault());

async function main() {
  if (location.protocol === "file:") {
    fail("A browser runs this page only from a server. In this folder: python -m http.server 8000 --bind 127.0.0.1, then open http://127.0.0.1:8000");
    return;
  }
  about = await (await fetch("generator.json")).json();
  document.title = $("title").textContent = about.title;
  $("about").textContent = about.about;
  document.body.classList.toggle("small", about.resolution < 256);
  canvas.width = canvas.height = about.resolution;
  build();
  worker = new Worker("worker.js");
  worker.onmessage = answered;
  worker.onerror = (event) => fail(`The page could not start the generator: ${event.message || "a file is missing"}`);
}

main().catch((error) => fail(`The page could not start: ${error.message}`));
