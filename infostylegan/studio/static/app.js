import { askJson, attempt, byId, notice } from "./api.js";
import * as explore from "./explore.js";
import * as study from "./study.js";

const TABS = ["explore", "study"];

function select(name) {
  for (const tab of TABS) {
    const chosen = tab === name;
    const button = byId(`tab-${tab}`);
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    byId(tab).hidden = !chosen;
  }
  document.body.dataset.tab = name;
}

for (const tab of TABS) {
  const button = byId(`tab-${tab}`);
  button.addEventListener("click", () => select(tab));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(TABS.indexOf(tab) + step + TABS.length) % TABS.length];
    select(next);
    byId(`tab-${next}`).focus();
    event.preventDefault();
  });
}

attempt(async () => {
  const model = await askJson("/api/model");
  document.title = `Studio: ${model.run}`;
  const trained = model.images ? `, ${Math.round(model.images / 1000).toLocaleString("en")} thousand images` : "";
  byId("model").textContent = `${model.run} / ${model.name} (${model.resolution}²${trained})`;
  select(location.hash.startsWith("#study") ? "study" : "explore");
  await Promise.all([explore.openExplore(model), study.openStudy(model, () => select("study"))]);
  const { running } = await askJson("/api/jobs");
  if (running) await Promise.all([explore.takeUp(running), study.takeUp(running)]);
})().catch((error) => notice(error.message));
