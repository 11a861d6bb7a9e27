// The fitting page: an audiogram to enter and to look at, a self-check with tones, and what the hearing aid does now.
// Nothing that is entered or heard here leaves the page, but through the clipboard or the file that a person saves.

import { byId, capitalised, element, setText, title } from "./dom.js";
import { Feed, options } from "./feed.js";
import { SCENES } from "./scene.js";
import { SelfCheck, TONES_HZ, comfortNoise } from "./selfcheck.js";

const FREQUENCIES = [250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000];
const NEEDED = [500, 1000, 2000, 4000];
const EARS = ["right", "left"];
// Bisgaard et al. 2010, N2, N3 and S2: as streamer/monitor/audiogram.py has them.
const PRESETS = {
  mild: [20, 20, 22.5, 25, 30, 35, 40, 45, 50],
  moderate: [35, 35, 35, 40, 45, 50, 55, 60, 65],
  sloping: [20, 20, 22.5, 25, 35, 55, 75, 95, 95],
};
const LEAST = -10;
const MOST = 120;
const SVG = "http://www.w3.org/2000/svg";
const AREA = { left: 52, right: 500, top: 46, bottom: 400 };

const levels = { right: new Map(), left: new Map() };
const inputs = { right: new Map(), left: new Map() };

const x = (hz) => AREA.left + ((Math.log2(hz) - Math.log2(125)) / 6.2) * (AREA.right - AREA.left);
const y = (level) => AREA.top + ((level - LEAST) / (MOST - LEAST)) * (AREA.bottom - AREA.top);

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const line = (x1, y1, x2, y2, kind) => shape("line", { x1, y1, x2, y2, class: kind });

function drawGrid(into) {
  // Where the sounds of speech at 65 dB SPL lie, roughly: lows are louder than highs.
  const talk = [[250, 35], [500, 40], [1000, 35], [2000, 28], [4000, 22], [6000, 20], [6000, 50], [4000, 52], [2000, 58], [1000, 62], [500, 65], [250, 60]];
  into.append(shape("polygon", { class: "talk", points: talk.map(([hz, level]) => `${x(hz)},${y(level)}`).join(" ") }));
  into.append(shape("text", { x: x(270), y: y(50) }, "speech"));
  for (const hz of [125, 250, 500, 1000, 2000, 4000, 8000]) {
    into.append(line(x(hz), AREA.top, x(hz), AREA.bottom, "grid"));
    into.append(shape("text", { x: x(hz), y: AREA.top - 8, "text-anchor": "middle" }, String(hz)));
  }
  for (let level = LEAST; level <= MOST; level += 10) {
    into.append(line(AREA.left, y(level), AREA.right, y(level), "grid"));
    if (level % 20 === 0) into.append(shape("text", { x: AREA.left - 6, y: y(level) + 4, "text-anchor": "end" }, String(level)));
  }
  into.append(line(AREA.left, y(20), AREA.right, y(20), "normal"));
  into.append(shape("text", { x: AREA.right, y: 16, "text-anchor": "end" }, "Hz"));
  into.append(shape("text", { x: 6, y: 16 }, "dB HL"));
  into.append(shape("text", { x: 170, y: 16, class: "ear-right" }, "O right"));
  into.append(shape("text", { x: 250, y: 16, class: "ear-left" }, "X left"));
}

function drawEar(into, ear) {
  const points = FREQUENCIES.filter((hz) => levels[ear].has(hz)).map((hz) => [x(hz), y(levels[ear].get(hz))]);
  if (points.length > 1) into.append(shape("polyline", { class: ear, points: points.map((one) => one.join(",")).join(" ") }));
  for (const [px, py] of points) {
    if (ear === "right") into.append(shape("circle", { class: ear, cx: px, cy: py, r: 7 }));
    else into.append(line(px - 6, py - 6, px + 6, py + 6, ear), line(px - 6, py + 6, px + 6, py - 6, ear));
  }
}

function draw() {
  const picture = byId("picture");
  for (const old of [...picture.querySelectorAll(":scope > :not(title)")]) old.remove();
  drawGrid(picture);
  for (const ear of EARS) drawEar(picture, ear);
}

function tellYaml() {
  const ear = (name) => FREQUENCIES.filter((hz) => levels[name].has(hz)).map((hz) => `${hz}: ${levels[name].get(hz)}`).join(", ");
  byId("yaml").value = `audiogram:\n  left: {${ear("left")}}\n  right: {${ear("right")}}\n`;
  const missing = EARS.flatMap((name) => NEEDED.filter((hz) => !levels[name].has(hz)).map((hz) => `${name} ${hz} Hz`));
  setText(byId("problem"), missing.length > 0 ? `Still missing: ${missing.join(", ")}` : "");
  byId("save").disabled = missing.length > 0;
}

function set(ear, hz, level) {
  const input = inputs[ear].get(hz);
  if (level === null) levels[ear].delete(hz);
  else levels[ear].set(hz, level);
  if (document.activeElement !== input) input.value = level === null ? "" : String(level);
  draw();
  tellYaml();
}

function buildTable() {
  const body = byId("levels").tBodies[0];
  for (const hz of FREQUENCIES) {
    const row = body.insertRow();
    row.append(element("th", "", String(hz)));
    row.firstChild.scope = "row";
    for (const ear of EARS) {
      const input = element("input");
      Object.assign(input, { type: "number", min: LEAST, max: MOST, step: 2.5 });
      input.setAttribute("aria-label", `${capitalised(ear)} ear, ${hz} Hz, dB HL`);
      input.addEventListener("input", () => {
        const level = input.valueAsNumber;
        set(ear, hz, Number.isFinite(level) && level >= LEAST && level <= MOST ? level : null);
      });
      inputs[ear].set(hz, input);
      row.insertCell().append(input);
    }
  }
}

function usePreset(name) {
  for (const ear of EARS) FREQUENCIES.forEach((hz, place) => set(ear, hz, PRESETS[name][place] ?? null));
}

function save() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([byId("yaml").value], { type: "application/yaml" }));
  link.download = "ears.yaml";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// What is in use

async function showInUse() {
  const headers = options.has("token") ? { Authorization: `Bearer ${options.get("token")}` } : {};
  let found = null;
  try {
    const response = await fetch("fitting.json", { headers, cache: "no-store" });
    if (!response.ok) throw new Error(response.statusText);
    found = (await response.json()).hearing_aid;
  } catch (error) {
    setText(byId("in-use"), `What is in use cannot be shown: ${error.message}`);
    return;
  }
  if (found === null) {
    setText(byId("in-use"), "No hearing aid runs here. It is started with streamer run --monitor NAME.");
    return;
  }
  const inTheEar = found.limit_db_spl === null ? "" : ` (${found.limit_db_spl} dB SPL in the ear)`;
  const limit = `No sample is above ${found.limit_dbfs} dBFS${inTheEar}; volume ${found.volume_db} dB.`;
  byId("program").value = found.program;
  if (found.audiogram === null) {
    setText(byId("in-use"), `No audiogram: sound is not corrected. ${limit}`);
    return;
  }
  setText(byId("in-use"), `The audiogram below, as long as nothing is changed in it. ${limit}`);
  for (const ear of EARS) for (const hz of FREQUENCIES) set(ear, hz, found.audiogram[ear][hz] ?? null);
  const body = byId("gains").tBodies[0];
  found.at_hz.forEach((hz, place) => {
    const row = body.insertRow();
    row.append(element("th", "", String(hz)));
    row.firstChild.scope = "row";
    for (const ear of EARS) for (const gains of found.gains) row.insertCell().textContent = String(Math.round(gains[ear][place]) || 0);
  });
  byId("gains-area").hidden = false;
}

// The self-check

const check = new SelfCheck({
  step: (number, count, ear, hz) => setText(byId("progress"), `Tone ${number} of ${count}: ${ear} ear, ${hz} Hz`),
  found: (ear, hz, level) => set(ear, hz, level),
  over: (missed) => {
    byId("heard").disabled = true;
    byId("start").disabled = false;
    const rest = missed > 0 ? ` ${missed} of the tones were not heard and count as the loudest.` : "";
    setText(byId("progress"), `Done: a proposal, no measurement.${rest}`);
  },
});

function startCheck() {
  for (const ear of EARS) for (const hz of FREQUENCIES) if (!TONES_HZ.includes(hz)) set(ear, hz, null);
  byId("start").disabled = true;
  byId("heard").disabled = false;
  byId("heard").focus();
  check.start();
}

// While it runs

const shown = new Map(); // alerts that stand

const keyOf = (alert) => `${alert.session} ${alert.id}`;

function showAlerts() {
  // What this person would have missed comes first.
  const standing = [...shown.values()].sort((one, other) => Number(other.too_quiet ?? false) - Number(one.too_quiet ?? false));
  byId("alerts").replaceChildren(
    ...standing.map((alert) => {
      const item = element("p", `alert ${alert.severity}`, title(alert));
      if (alert.too_quiet) item.append(" ", element("span", "missed", "too quiet for you"));
      const seen = element("button", "", "Seen");
      seen.type = "button";
      seen.addEventListener("click", () => feed.send({ type: "ack", id: alert.id, session: alert.session }));
      item.append(" ", seen);
      return item;
    }),
  );
}

function takeAlert(alert, early) {
  const isNew = alert.state === "raised" && !early;
  if (alert.state === "cleared" || alert.state === "acknowledged") shown.delete(keyOf(alert));
  else shown.set(keyOf(alert), alert);
  showAlerts();
  if (isNew && byId("speak").checked && "speechSynthesis" in window) {
    speechSynthesis.speak(new SpeechSynthesisUtterance(alert.too_quiet ? `${title(alert)}. Too quiet for you.` : title(alert)));
  }
}

const STATES = { connecting: "Connecting …", live: "Connected", silent: "Nothing comes from the server", refused: "Not allowed" };

const feed = new Feed({
  types: ["scene", "alert", "set"],
  backlog: 200,
  on: {
    state: (name, detail) => {
      byId("state").dataset.state = name;
      setText(byId("state"), detail || STATES[name]);
    },
    hello: (hello) => {
      const may = (hello.capabilities ?? []).includes("program");
      byId("program").disabled = !may;
      setText(byId("program-hint"), may ? "" : "Holding a program needs the hearing aid, server.allow_set and a token; or start with --set monitor.program=speech.");
    },
    event: (event, early) => {
      if (event.type === "scene") setText(byId("scene"), `It sounds like ${SCENES[event.scene] ?? event.scene}`);
      else if (event.type === "alert") takeAlert(event, early);
    },
    reset: () => {
      shown.clear();
      showAlerts();
    },
    error: (error) => setText(byId("program-hint"), error.detail),
  },
});

document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
buildTable();
draw();
tellYaml();
showInUse();
for (const button of document.querySelectorAll("[data-preset]")) button.addEventListener("click", () => usePreset(button.dataset.preset));
byId("save").addEventListener("click", save);
byId("noise").addEventListener("click", comfortNoise);
byId("start").addEventListener("click", startCheck);
byId("heard").addEventListener("click", () => check.heard());
byId("program").addEventListener("change", () => {
  setText(byId("program-hint"), "");
  feed.send({ type: "set", program: byId("program").value });
});
feed.start();
