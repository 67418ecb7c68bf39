// Requests to the studio, and the small things that both parts of the page share.

export class Refused extends Error {}

export async function ask(path, { method = "GET", json, body, signal } = {}) {
  const headers = { "X-Studio": "1" };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, signal, body: json !== undefined ? JSON.stringify(json) : body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The studio does not answer: is it still running?");
  }
  if (answer.ok) return answer;
  let message = `The studio answered ${answer.status}.`;
  try {
    message = sentence((await answer.json()).error);
  } catch { /* not JSON: what we have is all there is */ }
  throw new Refused(message);
}

export const askJson = async (path, options) => (await ask(path, options)).json();
export const askBlob = async (path, options) => (await ask(path, options)).blob();

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

export const byId = (id) => document.getElementById(id);

// element("button", {class: "quiet", onclick: f}, "text", child, …)
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key === "class" ? "class" : key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

let fading;
export function notice(text) {
  const toast = byId("notice");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => toast.classList.remove("shown"), 6000);
}

// Run an action of the user's and show what goes wrong with it.
export function attempt(action) {
  return async (...args) => {
    try {
      await action(...args);
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message);
      if (!(error instanceof Refused) && error.name !== "AbortError") console.error(error);
    }
  };
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Show a picture from memory, and let go of the one before.
export async function show(image, blob) {
  const address = URL.createObjectURL(blob);
  const before = image.dataset.address;
  image.src = address;
  image.dataset.address = address;
  try {
    await image.decode();
  } catch { /* replaced meanwhile by a newer one */ }
  if (before) URL.revokeObjectURL(before);
}

// A job's panel: `NAME-job`, `NAME-progress`, `NAME-words`, `NAME-cancel`. Resolves with the finished job,
// or null where it was called off.
export async function follow(name, job, words, onStep) {
  const panel = byId(`${name}-job`);
  const bar = byId(`${name}-progress`);
  const cancel = byId(`${name}-cancel`);
  panel.hidden = false;
  cancel.disabled = false;
  cancel.onclick = attempt(async () => {
    cancel.disabled = true;
    await ask(`/api/jobs/${job.id}`, { method: "DELETE" });
  });
  try {
    for (;;) {
      if (job.total) {
        bar.max = job.total;
        bar.value = job.done;
      } else bar.removeAttribute("value");
      byId(`${name}-words`).textContent = words(job);
      if (onStep) await onStep(job);
      if (job.state !== "running") break;
      await pause(250);
      job = await askJson(`/api/jobs/${job.id}`);
    }
  } finally {
    panel.hidden = true;
  }
  if (job.state === "failed") throw new Refused(sentence(job.error));
  return job.state === "done" ? job : null;
}

export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
