// Elements, words and numbers. Text is only ever set as text: what models and users wrote stays what it is.

const byId = (id) => document.getElementById(id);

/** An element. `on…` are listeners, `style` sets custom properties, null is left out; children are nodes or text. */
function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const code = (text) => h("code", {}, text);
const sr = (text) => h("span", { class: "sr" }, text);
const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)}%`;
const minus = (text) => text.replace("-", "−");
const points = (value) => `${value > 0 ? "+" : ""}${minus((100 * value).toFixed(1))} points`;
const number = (value) => minus(Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 1 ? value.toFixed(2) : value.toFixed(3));
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const when = (text) => h("time", { datetime: text }, String(text).slice(0, 16).replace("T", " "));

/** Tells a screen reader what happened. */
function say(text) {
  byId("news").textContent = text;
}

/** A part that has nothing to show says why, and what to do. */
function empty(what, ...next) {
  return h("p", { class: "card empty" }, h("strong", {}, what), ...next);
}

const drawn = new Map();

/** Draws a part anew if what it shows has changed; who is in the middle of it stays where they are. */
function redraw(id, data, make) {
  const told = JSON.stringify(data);
  if (drawn.get(id) === told) return;
  drawn.set(id, told);
  const box = byId(id);
  const key = box.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  box.replaceChildren(...[make(data)].flat(Infinity).filter(Boolean));
  if (key !== undefined) box.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

let apiKey = "";

/** A request to this server, with the key if there is one. */
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey) headers.Authorization = `Bearer ${apiKey}`;
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  if ([401, 403].includes(response.status) && !options.method) byId("key-form").hidden = false;
  return response;
}

/** What a refused request says, in one line. */
async function problem(response) {
  try {
    const body = await response.json();
    return body.error?.message ?? (typeof body.detail === "string" ? body.detail : `error ${response.status}`);
  } catch {
    return `error ${response.status}`;
  }
}
