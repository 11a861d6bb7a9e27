// The page that makes an overlay's address: a form out of the table of options, and the overlay itself as a preview.

import { byId, choice, element, setText } from "./dom.js";
import { options } from "./feed.js";
import { OPTIONS, read } from "./overlay_options.js";

const PREVIEW_MS = 250; // after the last change
const inputs = new Map(); // option -> where its text stands
const hints = new Map();
const pickers = new Map(); // of colours
let code = null; // of a link that works once
let later = null;

for (const option of OPTIONS) byId("options").append(field(option));
byId("token").value = options.get("token") ?? "";
byId("begin").addEventListener("input", () => begin(byId("begin").value));
byId("copy").addEventListener("click", copy);
for (const name of ["token", "sample", "shape", "behind"]) byId(name).addEventListener("input", update);
for (const form of ["options", "access"]) byId(form).addEventListener("submit", (event) => event.preventDefault());
addEventListener("resize", scale);
fill(new URLSearchParams());
update();
askForToken();

/** A label with the control of one option. */
function field(option) {
  const label = element("label");
  const hint = element("span", "hint");
  hints.set(option.name, hint);
  const input = control(option);
  input.id = `option-${option.name}`;
  input.addEventListener("input", update);
  inputs.set(option.name, input);
  if (option.kind === "flag") {
    label.className = "flag";
    label.append(input, option.label, hint);
    return label;
  }
  label.append(option.label);
  if (option.kind === "color") {
    const pair = element("span", "pair");
    const picker = element("input");
    picker.type = "color";
    picker.setAttribute("value", option.picker);
    picker.setAttribute("aria-label", `${option.label}: pick`);
    pickers.set(option.name, picker);
    picker.addEventListener("input", () => {
      input.value = picker.value.slice(1);
      update();
    });
    pair.append(input, picker);
    label.append(pair, hint);
  } else label.append(input, hint);
  return label;
}

function control(option) {
  if (option.kind === "choice") {
    const select = element("select");
    for (const name of option.choices) select.append(choice(name, option.says[name]));
    return select;
  }
  const input = element("input");
  if (option.kind === "flag") input.type = "checkbox";
  else if (option.kind === "whole" || option.kind === "number") {
    input.type = "number";
    input.min = option.low;
    input.max = option.high;
    input.step = option.kind === "whole" ? 1 : "any";
  } else {
    input.type = "text";
    input.placeholder = option.example ?? "";
    input.spellcheck = false;
  }
  return input;
}

/** The form as an address says it; what is wrong in it is named once and left out. */
function fill(params) {
  const { values, troubles } = read(params);
  for (const option of OPTIONS) {
    const input = inputs.get(option.name);
    if (option.kind === "flag") input.checked = values[option.name];
    else input.value = values[option.name] ?? "";
  }
  return troubles;
}

function begin(text) {
  code = null;
  if (!text.trim()) return say([]);
  let given;
  try {
    given = new URL(text.trim());
  } catch {
    return say([{ name: text.trim(), text: "is no address" }]);
  }
  const troubles = fill(given.searchParams);
  code = given.searchParams.get("code");
  if (given.searchParams.get("token")) byId("token").value = given.searchParams.get("token");
  say(troubles);
  update();
}

function say(troubles) {
  setText(byId("troubles"), troubles.map(({ name, text }) => `${name}: ${text}`).join("\n"));
}

/** What differs from the defaults, as the options of an address. */
function given() {
  const params = new URLSearchParams();
  for (const option of OPTIONS) {
    const input = inputs.get(option.name);
    if (option.kind === "flag") {
      if (input.checked !== option.fallback) params.set(option.name, input.checked ? "1" : "0");
      continue;
    }
    const text = input.value.trim();
    const usual = option.kind === "choice" ? option.choices[0] : String(option.fallback ?? "");
    if (text !== usual && text !== "") params.set(option.name, text);
  }
  return params;
}

function update() {
  const params = given();
  const { troubles } = read(params);
  for (const [name, hint] of hints) setText(hint, troubles.find((trouble) => trouble.name === name)?.text ?? "");
  for (const [name, picker] of pickers) {
    const hex = /^#?([0-9a-f]{6})$/i.exec(params.get(name) ?? "");
    picker.value = hex ? `#${hex[1]}` : picker.defaultValue;
  }
  const address = new URL("overlay", location.href);
  const whole = new URLSearchParams(params);
  if (code) whole.set("code", code);
  else if (byId("token").value) whole.set("token", byId("token").value);
  address.search = whole;
  byId("url").value = address.href;
  const outside = !byId("access").hidden && !whole.has("code") && !whole.has("token");
  setText(byId("copied"), outside ? "OBS does not get in with this alone: see below." : "");
  byId("picture").className = byId("behind").value;
  scale();
  params.set("sample", byId("sample").value || " ");
  clearTimeout(later);
  later = setTimeout(() => show(`overlay?${params}`), PREVIEW_MS);
}

function show(address) {
  const preview = byId("preview");
  if (preview.dataset.shown === address) return;
  preview.dataset.shown = address;
  if (preview.contentWindow && preview.src) preview.contentWindow.location.replace(address); // no step in the history
  else preview.src = address;
}

/** The overlay in the picture's own size, made smaller to fit. */
function scale() {
  const [width, height] = byId("shape").value.split("x").map(Number);
  const picture = byId("picture");
  const most = Math.min(picture.parentElement.clientWidth, (0.5 * innerHeight * width) / height);
  const factor = most / width;
  picture.style.width = `${most}px`;
  picture.style.height = `${height * factor}px`;
  Object.assign(byId("preview").style, { width: `${width}px`, height: `${height}px`, transform: `scale(${factor})` });
}

async function copy() {
  const url = byId("url");
  url.select();
  let done = false;
  try {
    await navigator.clipboard.writeText(url.value);
    done = true;
  } catch {
    done = document.execCommand("copy"); // pages that came without TLS from another machine have no clipboard
  }
  setText(byId("copied"), done ? "Copied." : "Selected: copy it with the keyboard.");
}

/** Whether somebody without our cookie is let in is what OBS will find out: ask as it would. */
async function askForToken() {
  try {
    const answer = await fetch("overlay", { credentials: "omit", cache: "no-store" });
    byId("access").hidden = answer.status !== 401;
  } catch {
    byId("access").hidden = false;
  }
  update();
}
