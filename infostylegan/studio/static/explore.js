// The first tab: the picture follows the sliders.

import { askBlob, askJson, attempt, byId, download, element, follow, notice, show } from "./api.js";

const STRIP = 7; // pictures of a continuous code's strip, as the studio draws it
const STRIP_MOST = 12; // and of a category's
const SIDES = ["A", "B"];

let model;
let sides; // settings of A and, while comparing, of B
let active = 0;
const easels = [];
const controls = new Map(); // code name -> function that shows a value

const settings = () => sides[active];
const clone = (value) => JSON.parse(JSON.stringify(value));
const titled = (code) => code.title || code.name;
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);

export async function openExplore(description) {
  model = description;
  sides = [readLink("") || neutral(), readLink("b.")];
  sides.length = sides[1] ? 2 : 1;
  buildControls();
  buildEasels();
  buildPhotograph();
  buildWalk();
  window.addEventListener("hashchange", () => {
    if (location.hash === writtenLink || location.hash.startsWith("#study")) return;
    const first = readLink("");
    if (!first) return;
    const second = readLink("b.");
    sides = second ? [first, second] : [first];
    active = 0;
    buildEasels();
    showAll();
  });
  showAll();
  if (model.codes.length) chooseStrip(model.codes[0]);
}

function neutral() {
  const codes = Object.fromEntries(model.codes.map((code) => [code.name, 0]));
  return { seed: 0, psi: 1, label: 0, codes, photo: null };
}

// ---- settings as a link ---------------------------------------------------------------------------------

let writtenLink = location.hash;

function readLink(prefix) {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (key, low, high, otherwise, whole) => {
    const value = given.has(prefix + key) ? Number(given.get(prefix + key)) : NaN;
    if (!Number.isFinite(value)) return otherwise;
    const kept = Math.min(high, Math.max(low, value));
    return whole ? Math.round(kept) : kept;
  };
  if (!given.has(`${prefix}seed`)) return null;
  const made = neutral();
  made.seed = number("seed", 0, model.maxSeed, 0, true);
  made.psi = number("psi", 0, model.maxPsi, 1, false);
  made.label = number("label", 0, Math.max(0, model.labels.length - 1), 0, true);
  for (const code of model.codes) {
    const discrete = code.kind !== "unif";
    made.codes[code.name] = number(code.name, discrete ? 0 : -1, discrete ? code.values - 1 : 1, 0, discrete);
  }
  return made;
}

function linkOf(all) {
  const parts = new URLSearchParams();
  all.forEach((each, side) => {
    const prefix = side ? "b." : "";
    parts.set(`${prefix}seed`, each.seed);
    if (each.psi !== 1) parts.set(`${prefix}psi`, each.psi);
    if (each.label) parts.set(`${prefix}label`, each.label);
    for (const code of model.codes) {
      if (each.codes[code.name]) parts.set(prefix + code.name, +each.codes[code.name].toFixed(3));
    }
  });
  return `#${parts}`;
}

let writing;
function writeLink() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    if (document.body.dataset.tab !== "explore") return;
    writtenLink = linkOf(sides);
    history.replaceState(null, "", writtenLink);
  }, 300);
}

// ---- pictures -------------------------------------------------------------------------------------------

// One request under way at a time; while it is, only the latest wish is kept.
class Painter {
  constructor(path, arrived) {
    this.path = path;
    this.arrived = arrived;
    this.wish = null;
    this.busy = false;
  }

  async want(wish) {
    this.wish = clone(wish);
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.wish) {
        const now = this.wish;
        this.wish = null;
        const blob = await askBlob(this.path, { method: "POST", json: now });
        await this.arrived(blob, now);
      }
    } catch (error) {
      notice(error.message);
    } finally {
      this.busy = false;
    }
  }
}

function buildEasels() {
  const place = byId("easels");
  place.replaceChildren();
  place.dataset.count = sides.length;
  easels.length = 0;
  sides.forEach((_, side) => {
    const image = element("img", { width: model.resolution, height: model.resolution, alt: "" });
    const chip = element("span", { class: "chip", "aria-hidden": "true" }, SIDES[side]);
    const frame = element("button", {
      class: "easel", type: "button", "aria-pressed": String(side === active), onclick: () => turnTo(side),
    }, image, chip);
    const painter = new Painter("/api/image", async (blob, shown) => {
      await show(image, blob);
      image.dataset.shown = JSON.stringify(shown);
      easels[side].blob = blob;
    });
    easels.push({ image, frame, painter, blob: null });
    place.append(frame);
  });
  const comparing = sides.length > 1;
  byId("compare").textContent = comparing ? "End comparison" : "Compare";
  byId("compare").setAttribute("aria-pressed", String(comparing));
}

function turnTo(side) {
  active = side;
  showControls();
}

function describe(each) {
  const parts = [each.photo ? "Photograph" : `Seed ${each.seed}`];
  if (model.styles && each.psi !== 1) parts.push(`ψ ${each.psi.toFixed(2)}`);
  if (model.labels.length) parts.push(model.labels[each.label]);
  for (const code of model.codes) {
    const value = each.codes[code.name];
    if (value) parts.push(`${titled(code)} ${code.kind === "unif" ? signed(value) : code.kind === "bern" ? "on" : value}`);
  }
  return parts.join(" · ");
}

function refresh() {
  const easel = easels[active];
  easel.painter.want(settings());
  easel.image.alt = `Generated image. ${describe(settings())}`;
  const side = sides.length > 1 ? `${SIDES[active]}: ` : "";
  byId("caption").textContent = side + describe(settings());
  writeLink();
  scheduleStrip();
}

function showControls() {
  const each = settings();
  byId("seed").value = each.seed;
  byId("psi").value = each.psi;
  paintSlider(byId("psi"), 0);
  byId("psi-value").textContent = each.psi.toFixed(2);
  byId("label").value = String(each.label);
  for (const code of model.codes) controls.get(code.name)(each.codes[code.name]);
  byId("seed-row").hidden = Boolean(each.photo);
  byId("photo-row").hidden = !each.photo;
  byId("psi-row").hidden = !model.styles || Boolean(each.photo);
  byId("label-row").hidden = !model.labels.length || Boolean(each.photo);
  byId("seeds-codes").textContent = each.photo ? "The photograph’s own" : "The seed’s own";
  easels.forEach(({ frame }, side) => {
    frame.classList.toggle("active", side === active);
    frame.setAttribute("aria-pressed", String(side === active));
    frame.setAttribute("aria-label", `Picture ${SIDES[side]}${side === active ? ", being changed" : ": change this one"}`);
    frame.disabled = easels.length === 1;
  });
  refresh();
}

function showAll() {
  sides.forEach((each, side) => {
    if (side !== active) easels[side].painter.want(each);
  });
  showControls();
}

// ---- controls -------------------------------------------------------------------------------------------

// How far the coloured part of a slider's track reaches, from `origin` to the thumb.
function paintSlider(input, origin) {
  const low = Number(input.min);
  const span = Number(input.max) - low;
  const at = ((Number(input.value) - low) / span) * 100;
  const from = ((origin - low) / span) * 100;
  input.style.setProperty("--from", `${Math.min(at, from)}%`);
  input.style.setProperty("--to", `${Math.max(at, from)}%`);
}

function set(change) {
  Object.assign(settings(), change);
  showControls();
}

function setCode(name, value) {
  settings().codes[name] = value;
  refresh();
}

function buildControls() {
  const seedField = byId("seed");
  const seed = () => Math.min(model.maxSeed, Math.max(0, Math.round(Number(seedField.value) || 0)));
  seedField.max = model.maxSeed;
  seedField.addEventListener("input", () => {
    settings().seed = seed();
    refresh();
  });
  seedField.addEventListener("change", () => set({ seed: seed() }));
  byId("previous").onclick = () => set({ seed: Math.max(0, settings().seed - 1) });
  byId("next").onclick = () => set({ seed: Math.min(model.maxSeed, settings().seed + 1) });
  byId("dice").onclick = () => set({ seed: crypto.getRandomValues(new Uint32Array(1))[0] % 1000000 });

  const psi = byId("psi");
  psi.max = model.maxPsi;
  psi.addEventListener("input", () => {
    settings().psi = Number(psi.value);
    byId("psi-value").textContent = settings().psi.toFixed(2);
    paintSlider(psi, 0);
    refresh();
  });
  byId("label").append(...model.labels.map((name, i) => element("option", { value: String(i) }, name)));
  byId("label").addEventListener("change", (event) => set({ label: Number(event.target.value) }));

  const place = byId("codes");
  if (!model.codes.length) {
    place.append(element("p", { class: "hint" }, "This generator was trained without codes."));
    for (const id of ["neutral", "seeds-codes"]) byId(id).hidden = true;
  }
  for (const code of model.codes) {
    const row = code.kind === "unif" ? slider(code) : code.kind === "bern" ? toggle(code) : choice(code);
    row.addEventListener("focusin", () => chooseStrip(code));
    row.addEventListener("pointerdown", () => chooseStrip(code));
    place.append(row);
  }
  byId("neutral").onclick = () => set({ codes: neutral().codes });
  byId("seeds-codes").onclick = attempt(async () => {
    const each = settings();
    const codes = each.photo ? photographs.get(each.photo).codes
      : (await askJson(`/api/seed/${each.seed}`)).codes;
    set({ codes: { ...codes } });
  });

  byId("compare").onclick = () => {
    if (sides.length > 1) {
      sides = [settings()];
      active = 0;
    } else {
      sides = [settings(), clone(settings())];
      active = 1;
    }
    buildEasels();
    showAll();
  };
  byId("save").onclick = () => {
    const { blob } = easels[active];
    if (blob) download(blob, `${model.run}-${settings().photo ? "photograph" : `seed${settings().seed}`}.png`);
  };
  byId("link").onclick = attempt(async () => {
    writtenLink = linkOf(sides);
    history.replaceState(null, "", writtenLink);
    const address = location.href;
    const lost = sides.some((each) => each.photo) ? " A photograph is not part of it." : "";
    try {
      await navigator.clipboard.writeText(address);
      notice(`The link to these settings is copied.${lost}`);
    } catch {
      notice(`The address bar now holds the link to these settings; copy it from there.${lost}`);
    }
  });
}

function heading(code, id, tag = "label") {
  const words = code.title
    ? [element("span", { class: "given" }, code.title), " ", element("span", { class: "plain" }, code.name)]
    : [element("span", { class: "given" }, code.name)];
  return element(tag, tag === "label" ? { htmlFor: id } : {}, ...words);
}

function slider(code) {
  const id = `code-${code.name}`;
  const output = element("output", {});
  output.htmlFor.add(id);
  const input = element("input", { type: "range", id, min: "-1", max: "1", step: "0.01" });
  const tell = (value) => {
    output.textContent = signed(value);
    paintSlider(input, 0);
  };
  input.addEventListener("input", () => {
    tell(Number(input.value));
    setCode(code.name, Number(input.value));
  });
  const back = () => {
    input.value = "0";
    tell(0);
    setCode(code.name, 0);
  };
  input.addEventListener("dblclick", back);
  controls.set(code.name, (value) => {
    input.value = String(value);
    tell(value);
  });
  return element("div", { class: "slider", title: "Double-click: back to 0" },
    element("div", { class: "head" }, heading(code, id), output), input);
}

function toggle(code) {
  const id = `code-${code.name}`;
  const input = element("input", { type: "checkbox", id, class: "switch", role: "switch" });
  input.addEventListener("change", () => setCode(code.name, input.checked ? 1 : 0));
  controls.set(code.name, (value) => {
    input.checked = value === 1;
  });
  return element("div", { class: "toggle" }, heading(code, id), input);
}

function choice(code) {
  const values = [...Array(code.values).keys()];
  if (code.values > 12) {
    const id = `code-${code.name}`;
    const select = element("select", { id }, ...values.map((v) => element("option", { value: String(v) }, String(v))));
    select.addEventListener("change", () => setCode(code.name, Number(select.value)));
    controls.set(code.name, (value) => {
      select.value = String(value);
    });
    return element("div", { class: "row" }, heading(code, id), select);
  }
  const radios = values.map((value) => {
    const input = element("input", { type: "radio", name: code.name, value: String(value) });
    input.addEventListener("change", () => setCode(code.name, value));
    return input;
  });
  controls.set(code.name, (value) => radios.forEach((radio, i) => {
    radio.checked = i === value;
  }));
  const segments = element("div", { class: "segments" },
    ...radios.map((radio, i) => element("label", {}, radio, element("span", {}, String(i)))));
  segments.style.setProperty("--columns", code.values <= 8 ? code.values : Math.ceil(code.values / 2));
  return element("fieldset", { class: "choice" }, heading(code, "", "legend"), segments);
}

// ---- the strip: what the chosen code does to this very picture -------------------------------------------

let stripCode = null;
let stripKey = "";
let stripAddress = null;
let stripWaiting;
const stripPainter = new Painter("/api/strip", drawStrip);

function stripValues(code) {
  if (code.kind === "unif") return [...Array(STRIP).keys()].map((i) => -1 + (2 * i) / (STRIP - 1));
  const shown = Math.min(code.values, STRIP_MOST);
  return [...Array(shown).keys()].map((i) => Math.floor((i * (code.values - 1)) / (shown - 1)));
}

function chooseStrip(code) {
  if (stripCode === code) return;
  stripCode = code;
  scheduleStrip();
}

function scheduleStrip() {
  if (!stripCode) return;
  markStrip();
  clearTimeout(stripWaiting);
  stripWaiting = setTimeout(() => {
    const wish = { ...clone(settings()), code: stripCode.name };
    wish.codes[stripCode.name] = 0; // the strip is the same wherever its own slider stands
    const key = JSON.stringify(wish);
    if (key !== stripKey) {
      stripKey = key;
      stripPainter.want(wish);
    }
  }, 200);
}

function drawStrip(blob, wish) {
  const code = model.codes.find((each) => each.name === wish.code);
  const values = stripValues(code);
  const cells = byId("cells");
  const address = URL.createObjectURL(blob);
  byId("strip").hidden = false;
  byId("strip-title").textContent = `What ${titled(code)} does to it`;
  if (cells.dataset.code !== code.name) {
    cells.dataset.code = code.name;
    cells.style.setProperty("--count", values.length);
    cells.replaceChildren(...values.map((value) => {
      const text = code.kind === "unif" ? signed(value) : code.kind === "bern" ? ["off", "on"][value] : String(value);
      return element("button", {
        class: "cell", "aria-label": `${titled(code)} ${text}`, onclick: () => {
          controls.get(code.name)(value);
          setCode(code.name, value);
        },
      }, element("span", { class: "view" }), element("span", { class: "value", "aria-hidden": "true" }, text));
    }));
  }
  [...cells.children].forEach((cell, i) => {
    const { style } = cell.firstChild;
    style.backgroundImage = `url("${address}")`;
    style.backgroundSize = `${100 * values.length}% 100%`;
    style.backgroundPosition = `${(100 * i) / Math.max(1, values.length - 1)}% 0`;
  });
  if (stripAddress) URL.revokeObjectURL(stripAddress);
  stripAddress = address;
  markStrip();
}

function markStrip() {
  const cells = byId("cells");
  if (!stripCode || cells.dataset.code !== stripCode.name) return;
  const values = stripValues(stripCode);
  const now = settings().codes[stripCode.name];
  const nearest = values.reduce((best, value, i) => (Math.abs(value - now) < Math.abs(values[best] - now) ? i : best), 0);
  [...cells.children].forEach((cell, i) => cell.setAttribute("aria-pressed", String(i === nearest)));
}

// ---- a photograph ---------------------------------------------------------------------------------------

const photographs = new Map(); // id -> {codes}

function buildPhotograph() {
  const drop = byId("drop");
  const file = byId("file");
  file.addEventListener("change", () => {
    if (file.files.length) project(file.files[0]);
    file.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      if (kind === "drop" || !event.relatedTarget) drop.classList.remove("over");
    });
  }
  document.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length) project(event.dataTransfer.files[0]);
  });
  byId("leave-photo").onclick = () => set({ photo: null });
  if (model.data) offerReals();
}

function offerReals() {
  const place = byId("reals");
  place.hidden = false;
  const some = new Set();
  while (some.size < Math.min(6, model.data.images)) some.add(Math.floor(Math.random() * model.data.images));
  for (const index of some) {
    place.append(element("button", {
      class: "real", "aria-label": `Image ${index} of ${model.data.name}`, onclick: () => project(null, index),
    }, element("img", { src: `/api/data/${index}`, alt: "", width: 48, height: 48 })));
  }
}

const project = attempt(async (file, index) => {
  const where = index === undefined ? "" : `?data=${index}`;
  await followPhotograph(() => askJson(`/api/jobs/photo${where}`, { method: "POST", body: file }));
});

async function followPhotograph(begin) {
  byId("drop").hidden = true;
  try {
    const preview = byId("photo-preview");
    preview.removeAttribute("src");
    let seen = 0;
    const started = await begin();
    const words = (job) => (job.total ? `Looking for its likeness: step ${job.done} of ${job.total}` : "Reading the photograph");
    const job = await follow("photo", started, words, async (now) => {
      if (now.previews === seen) return;
      seen = now.previews;
      await show(preview, await askBlob(`/api/jobs/${now.id}/preview`));
    });
    if (!job) return;
    const { photo, codes } = job.result;
    photographs.set(photo, { codes });
    await show(byId("photo-original"), await askBlob(`/api/photos/${photo}`));
    set({ photo, codes: { ...codes } });
    const likeness = await askBlob("/api/image", { method: "POST", json: settings() });
    await show(byId("photo-likeness"), likeness);
    notice("Its codes are on the sliders: change them.");
  } finally {
    byId("drop").hidden = false;
  }
}

// ---- a walk ---------------------------------------------------------------------------------------------

let film = null;

function buildWalk() {
  const what = byId("walk-what");
  what.append(
    ...model.codes.map((code) => element("option", { value: code.name }, `${titled(code)}, to and fro`)),
    element("option", { value: "" }, "from sample to sample"),
  );
  byId("walk").onclick = attempt(async () => {
    const wish = {
      ...clone(settings()), sweep: what.value || null,
      seconds: Number(byId("walk-seconds").value), fps: Number(byId("walk-fps").value),
    };
    await followWalk(() => askJson("/api/jobs/walk", { method: "POST", json: wish }));
  });
  byId("film-save").onclick = () => {
    if (film) download(film, `${model.run}-walk.webp`);
  };
}

async function followWalk(begin) {
  byId("walk").disabled = true;
  byId("film").hidden = true;
  try {
    const started = await begin();
    const job = await follow("walk", started, (now) => (now.total ? `Frame ${now.done} of ${now.total}` : "Drawing"));
    if (!job) return;
    film = await askBlob(`/api/jobs/${job.id}/file`);
    await show(byId("film-image"), film);
    byId("film").hidden = false;
    byId("film").scrollIntoView({ block: "nearest" });
  } finally {
    byId("walk").disabled = false;
  }
}

// A job that was under way before this page was opened.
export const takeUp = attempt(async (job) => {
  if (job.kind === "photo") await followPhotograph(async () => job);
  if (job.kind === "walk") await followWalk(async () => job);
});
