// The second tab: studies of the Attribute Control Metric. Nothing here names a model before the result.

import { askBlob, askJson, attempt, byId, element, follow, notice, pause } from "./api.js";

const VIEWS = ["list", "start", "rate", "done", "results"];
const AHEAD = 3; // rows fetched before they are asked for

let model;
let bringForward;
let study = null; // {name, attribute, rater}
let standing = null; // the studio's word on where the rater stands
let shownRow = null; // the row on the screen: the only one that can be voted on
let voting = false;
const rows = new Map(); // row -> promise of its picture

function view(name) {
  for (const each of VIEWS) byId(`study-${each}`).hidden = each !== name;
  document.body.classList.toggle("rating", name === "rate");
  window.scrollTo(0, 0);
}

const path = (name, rest = "") => `/api/studies/${encodeURIComponent(name)}${rest}`;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

export async function openStudy(description, forward) {
  model = description;
  bringForward = forward;
  buildForm();
  byId("start-back").onclick = attempt(list);
  byId("done-back").onclick = attempt(list);
  byId("results-back").onclick = attempt(list);
  byId("rate-leave").onclick = attempt(list);
  byId("start-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => begin(byId("rater").value.trim().replace(/\s+/g, "-")))();
  });
  byId("yes").onclick = () => vote(true);
  byId("no").onclick = () => vote(false);
  byId("undo").onclick = () => undo();
  byId("done-undo").onclick = () => undo();
  byId("done-results").onclick = attempt(() => results(study.name));
  document.addEventListener("keydown", onKey);
  byId("tab-study").addEventListener("click", () => {
    if (byId("study-rate").hidden) history.replaceState(null, "", "#study");
  });
  await list();
}

// ---- the list, and a new study --------------------------------------------------------------------------

async function list() {
  clearRow();
  view("list");
  const { studies } = await askJson("/api/studies");
  byId("no-studies").hidden = studies.length > 0;
  byId("studies").replaceChildren(...studies.map(entry));
}

function entry(found) {
  if (found.error) {
    return element("li", { class: "card" }, element("h2", {}, found.name), element("p", { class: "hint" }, found.error));
  }
  const raters = Object.entries(found.raters);
  const who = raters.length
    ? raters.map(([rater, votes]) => `${rater} ${votes === found.rows ? "done" : `${votes} of ${found.rows}`}`).join(" · ")
    : "nobody has voted yet";
  return element("li", { class: "card" },
    element("div", {},
      element("h2", {}, found.attribute),
      element("p", { class: "hint" }, `${plural(found.rows, "row")} · ${who}`)),
    element("div", { class: "tools" },
      element("button", { class: "primary", "aria-label": `Rate ${found.attribute}`, onclick: () => start(found) }, "Rate"),
      element("button", {
        "aria-label": `Result of ${found.attribute}`, disabled: !raters.length, onclick: attempt(() => results(found.name)),
      }, "Result")));
}

function buildForm() {
  const code = byId("new-code");
  const attribute = byId("new-attribute");
  const given = new Map(model.codes.map((each) => [each.name, each.title]));
  code.append(...model.codes.map((each) => element("option", { value: each.name },
    each.title ? `${each.name} (${each.title})` : each.name)));
  const suggest = () => {
    if (!attribute.value || [...given.values()].includes(attribute.value)) attribute.value = given.get(code.value) || "";
  };
  code.addEventListener("change", suggest);
  suggest();
  byId("new-study").hidden = !model.codes.length;
  byId("new-study").addEventListener("submit", (event) => {
    event.preventDefault();
    const wish = {
      code: code.value, attribute: attribute.value,
      samples: Number(byId("new-samples").value), seed: Number(byId("new-seed").value),
    };
    attempt(() => followStudy(() => askJson("/api/jobs/study", { method: "POST", json: wish })))();
  });
}

async function followStudy(begin) {
  byId("create").disabled = true;
  try {
    const started = await begin();
    const job = await follow("study", started, (now) => (
      now.total ? `Drawing the rows: image ${now.done} of ${now.total}` : "Reading the snapshot"));
    if (!byId("study-list").hidden) await list();
    if (job) notice("The study is ready.");
  } finally {
    byId("create").disabled = false;
  }
}

// A job that was under way before this page was opened.
export const takeUp = attempt(async (job) => {
  if (job.kind === "study") await followStudy(async () => job);
});

// ---- rating ---------------------------------------------------------------------------------------------

function start(found) {
  study = { name: found.name, attribute: found.attribute, rater: "" };
  byId("start-title").textContent = found.attribute;
  byId("start-words").textContent = `${plural(found.rows, "row")}. For each, answer whether the attribute changes `
    + "consistently along the row, from its one end to its other, while the rest stays as it is. Keys: Y for yes, "
    + "N for no, U to undo. Every vote is kept at once; you can stop and go on at any time.";
  byId("raters").replaceChildren(...Object.keys(found.raters).map((rater) => element("option", { value: rater })));
  view("start");
  byId("rater").focus();
}

async function begin(rater) {
  standing = await askJson(path(study.name, `?rater=${encodeURIComponent(rater)}`));
  study.rater = rater;
  rows.clear();
  byId("rate-last").textContent = standing.voted ? `Going on after ${plural(standing.voted, "vote")}.` : "";
  await showNext();
  if (standing.next.length) byId("question").focus();
}

function fetchRow(item) {
  if (!rows.has(item)) rows.set(item, askBlob(path(study.name, `/rows/${encodeURIComponent(item)}`)));
  return rows.get(item);
}

async function showNext() {
  clearRow();
  const { next, voted, before, rows: count } = standing;
  byId("rate-progress").max = count;
  byId("rate-progress").value = voted;
  byId("rate-count").textContent = `${voted} of ${count}`;
  byId("undo").disabled = before === null;
  byId("done-undo").hidden = before === null;
  if (!next.length) {
    byId("done-words").textContent = `${study.rater}, thank you: all ${count} rows of “${standing.attribute}” have your vote.`;
    view("done");
    byId("done-results").focus();
    return;
  }
  byId("question").textContent = standing.question;
  view("rate");
  for (const item of next) fetchRow(item);
  for (const old of [...rows.keys()].slice(0, Math.max(0, rows.size - 2 * AHEAD))) {
    if (!next.includes(old)) rows.delete(old);
  }
  let picture;
  try {
    picture = await fetchRow(next[0]);
  } catch (error) {
    rows.delete(next[0]);
    throw error;
  }
  await lay(byId("rate-row"), picture);
  byId("rate-row").setAttribute("aria-label", `Row ${voted + 1} of ${count}`);
  shownRow = next[0];
}

// Until the next one is on the screen there is nothing to vote on.
function clearRow() {
  shownRow = null;
  byId("rate-row").removeAttribute("aria-label");
}

// A row is one image of square cells with a border of 2 around each. Cut into its cells it can break into two
// lines on a phone.
async function lay(place, blob) {
  const picture = await createImageBitmap(blob);
  const border = 2;
  const side = picture.height - 2 * border;
  const count = (picture.width - border) / (side + border);
  const cut = Number.isInteger(count);
  const cells = [...Array(cut ? count : 1).keys()].map((i) => {
    const cell = element("canvas", { width: cut ? side : picture.width, height: cut ? side : picture.height });
    cell.getContext("2d").drawImage(picture, cut ? -(border + i * (side + border)) : 0, cut ? -border : 0);
    return cell;
  });
  picture.close();
  place.style.setProperty("--count", cells.length);
  place.style.setProperty("--half", Math.ceil(cells.length / 2));
  place.replaceChildren(...cells);
}

async function send(item, answer) {
  standing = await askJson(path(study.name, "/votes"), { method: "POST", json: { rater: study.rater, item, answer } });
}

const vote = attempt(async (answer) => {
  if (voting || !shownRow) return;
  voting = true;
  try {
    flash(answer ? "yes" : "no");
    await send(shownRow, answer);
    byId("rate-last").textContent = answer ? "Yes, kept." : "No, kept.";
    await showNext();
  } finally {
    voting = false;
  }
});

const undo = attempt(async () => {
  while (voting) await pause(20); // a vote under way is the one to take back
  if (!standing || standing.before === null) return;
  voting = true;
  try {
    flash("undo");
    await send(standing.before, null);
    byId("rate-last").textContent = "The last vote is taken back.";
    await showNext();
  } finally {
    voting = false;
  }
});

function flash(id) {
  byId(id).classList.add("pressed");
  setTimeout(() => byId(id).classList.remove("pressed"), 160);
}

function onKey(event) {
  if (byId("study").hidden || byId("study-rate").hidden) return;
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { y: () => vote(true), n: () => vote(false), u: undo }[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

// ---- the result -----------------------------------------------------------------------------------------

// As Python rounds, so that the page shows the very figures of `python -m metrics acm score`: from the exact
// value of the double, halves to the even digit (toFixed takes halves up).
function fixed(value, digits) {
  const near = value.toFixed(digits);
  const [, fraction] = Math.abs(value).toFixed(100).split(".");
  const tie = /^50*$/.test(fraction.slice(digits));
  if (!tie || "02468".includes(near.at(-1))) return near;
  return (value - Math.sign(value) * 10 ** -digits / 2).toFixed(digits);
}

const percent = (share) => `${fixed(100 * share, 1)}%`;
const wilson = ({ interval: [low, high] }) => `${percent(low)} … ${percent(high)}`;
const counted = (p) => (p ? `${Math.round(p.value * p.n)} of ${p.n}` : "–");

async function results(name) {
  const score = await askJson(path(name, "/score"));
  bringForward();
  byId("results-title").textContent = score.attribute;
  const raters = Object.keys(score.raters);
  byId("results-words").textContent = raters.length
    ? `Rated by ${raters.join(", ")}. A row counts with the share of its raters who said yes.`
    : "Nobody has voted yet.";
  byId("results").replaceChildren(
    ...score.models.map((each) => modelCard(each, raters)),
    ...(raters.length ? [raterCard(score.raters)] : []),
  );
  view("results");
  byId("results-title").focus();
}

function modelCard(each, raters) {
  const { model: about, acm } = each;
  const card = element("section", { class: "card" },
    element("h2", {}, about.code, " ", element("span", { class: "plain" }, about.name)));
  if (!acm) {
    card.append(element("p", { class: "hint" }, "No vote on its rows yet."));
    return card;
  }
  const line = (who, p) => [who, percent(p.value), `±${percent(p.margin)}`, wilson(p), String(p.n)];
  const own = raters.length > 1 ? Object.entries(each.raters).map(([rater, own]) => line(rater, own)) : [];
  card.append(
    element("p", { class: "figure" }, element("strong", { class: "acm" }, percent(acm.value)),
      ` of ${plural(acm.n, "row")} controlled`),
    interval(acm),
    table(["", "share", "95 % margin", "Wilson’s 95 % interval", "rows"], [line("all raters", acm), ...own]),
  );
  const kinds = [["Cohen’s κ", each.cohen], ["Fleiss’ κ", each.fleiss], ["Gwet’s AC1", each.ac1]].filter(([, a]) => a);
  if (kinds.length) {
    card.append(table(["Agreement", "value", "observed", "by chance", "rows"], kinds.map(([kind, a]) => [
      kind, a.value === null ? "undefined" : fixed(a.value, 2), percent(a.observed), percent(a.expected), String(a.items),
    ])));
  }
  return card;
}

function raterCard(raters) {
  const blind = Object.entries(raters).filter(([, own]) => own.still && own.still.value > 0.2).map(([rater]) => rater);
  return element("section", { class: "card" },
    element("h2", {}, "What the hidden rows say of the raters"),
    table(["Rater", "rated", "same again", "yes, nothing moves", "yes, another code moves"],
      Object.entries(raters).map(([rater, own]) => [
        rater, `${own.voted} of ${own.items}`, counted(own.consistency), counted(own.still), counted(own.other)])),
    element("p", { class: "hint" }, "The last two count hidden controls that were called controlled; the fewer, the better."),
    ...blind.map((rater) => element("p", { class: "hint" },
      `${rater} saw the attribute change where nothing does: look at these votes before using them.`)));
}

// The share and Wilson's interval on a line from 0 to 100 %.
function interval(p) {
  const { value, interval: [low, high] } = p;
  const bar = element("span", { class: "bar" });
  bar.style.left = `${100 * low}%`;
  bar.style.width = `${100 * (high - low)}%`;
  const point = element("span", { class: "point" });
  point.style.left = `${100 * value}%`;
  return element("div", { class: "interval", role: "img", "aria-label": `${percent(value)}, Wilson’s 95 % interval ${wilson(p)}` },
    element("div", { class: "axis" }, bar, point),
    element("div", { class: "ends", "aria-hidden": "true" }, element("span", {}, "0"), element("span", {}, "100 %")));
}

function table(head, body) {
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...body.map(([first, ...rest]) => element("tr", {},
      element("th", { scope: "row" }, first), ...rest.map((text) => element("td", {}, text)))))));
}
