// The viewer: captions, sounds, tags, alerts. All text from outside goes in as textContent, never as markup.

import { Alerts } from "./alerts.js";
import { Notifications, install } from "./background.js";
import { Captions } from "./captions.js";
import { Condition } from "./condition.js";
import { byId, setText } from "./dom.js";
import { Feed, options } from "./feed.js";
import { Listening } from "./listening.js";
import { Marks } from "./marks.js";
import { Panels } from "./panels.js";
import { Transcripts } from "./saving.js";
import { dress, remembered } from "./settings.js";
import { SceneLine } from "./scene.js";
import { Sounds } from "./sounds.js";
import { speaking } from "./speaking.js";
import { Teaching } from "./teaching.js";
import { Timeline } from "./timeline.js";

const BACKLOG = 3000; // events, of the types that are not wanted completely
const SETTLED_MS = 1500; // so long the replay takes, which no screen reader should read out

const only = options.get("session") || null;
const openedAt = new Map(); // session -> Unix time of its beginning, where it is heard as it happens
const known = new Set(); // sessions
const cleared = new Map(); // session -> the number up to which this page shows no captions any more
let run = null;

const captions = new Captions(openedAt);
const sounds = new Sounds();
const condition = new Condition(only);
const panels = new Panels();
const transcripts = new Transcripts(captions, options.get("token"), only);
const notifications = new Notifications();
const feed = new Feed({
  types: ["status", "transcript", "tags", "sound", "scene", "alert", "gap", "level", "marks"],
  session: only,
  backlog: BACKLOG,
  complete: ["status", "transcript", "sound", "alert", "gap"],
  on: {
    hello,
    event: take,
    missed,
    state: connected,
    reset,
    heartbeat: (message) => condition.heartbeat(message),
    level,
    marks: (message) => marks.take(message),
    set: (message) => ("program" in message ? sceneLine : listening).done(message),
    taught: (message) => teaching.take(message),
    error: (message) => sceneLine.refused(message.detail) || listening.refused(message.detail) || teaching.refused(message.detail) || marks.refused(message.detail),
  },
});
const listening = new Listening((message) => feed.send(message), only);
const sceneLine = new SceneLine((message) => feed.send(message));
const teaching = new Teaching((message) => feed.send(message), only, () => timeline.drawTeaching());
const marks = new Marks((message) => feed.send(message), (alert) => {
  alerts.marked(alert);
  timeline.marked(alert);
});
const alerts = new Alerts((alert) => feed.send({ type: "ack", id: alert.id, session: alert.session }), marks, notifications);
const timeline = new Timeline(marks, teaching, (session, seconds) => {
  const opened = openedAt.get(session);
  return opened === undefined ? null : new Date(1000 * (opened + seconds));
});

function hello(message) {
  const sessions = message.sessions ?? [];
  for (const item of sessions) {
    if (typeof item.opened_at === "number") openedAt.set(item.session, item.opened_at);
    known.add(item.session);
    transcripts.meet(item.session, item.oldest_seq > 1);
  }
  run = message.run;
  restoreCleared();
  sounds.hello(sessions);
  condition.hello(sessions);
  listening.hello(message);
  teaching.hello(message);
  sceneLine.hello(message);
  marks.able((message.capabilities ?? []).includes("mark"));
}

function connected(state, detail) {
  condition.connected(state, detail);
  if (state === "live") setTimeout(() => { captions.quiet = false; }, SETTLED_MS);
  else captions.quiet = true; // the backlog is there to be read, not to be read out
}

function take(event, early) {
  if (!known.has(event.session)) {
    known.add(event.session); // a sender's, which came after `hello`: as exact as this browser's clock
    openedAt.set(event.session, Date.now() / 1000 - event.audio_t);
  }
  teaching.heard(event.session, event.type === "status" && event.state === "stopped");
  alerts.at(event.session, event.audio_t);
  timeline.at(event.session, event.audio_t);
  transcripts.meet(event.session, false);
  const written = event.seq > (cleared.get(event.session) ?? 0);
  if (event.type === "transcript" && written) captions.transcript(event);
  else if (event.type === "tags") sounds.tags(event);
  else if (event.type === "scene") sceneLine.take(event);
  else if (event.type === "alert") {
    alerts.take(event);
    timeline.alert(event);
  } else if (event.type === "status") {
    condition.session(event);
    if (event.state === "stopped") sounds.stopped(event.session);
  } else if (event.type === "sound") {
    sounds.sound(event);
    timeline.sound(event, early ? [] : sounds.heard(event.session), early ? "" : captions.said(event));
    if (event.state === "start" && written) captions.heard(event);
  } else if (event.type === "gap" && written) {
    captions.note(`${(event.end - event.start).toFixed(1)} s of sound was lost here: ${event.reason}`, event.session, event.start);
  }
}

function missed({ session, count }) {
  transcripts.meet(session, true); // their text may still be had
  if (!captions.sessions.has(session)) return; // they are from before this page
  captions.note(`${count} events were missed here: the server no longer has them. Captions may be incomplete.`);
}

function reset() {
  captions.newRun();
  captions.note("The server was started anew.");
  openedAt.clear();
  known.clear();
  cleared.clear();
  transcripts.newRun();
  sounds.clear();
  sceneLine.clear();
  alerts.clear();
  timeline.clear();
  marks.clear();
  teaching.clear();
  condition.clear();
}

function level(message) {
  sounds.level(message);
  byId("level").hidden = false;
  byId("meter").value = Math.max(-60, sounds.loudest());
}

/** What was cleared stays away when the page is loaded again; the server keeps it, and so does what is saved. */
function clear() {
  for (const [session, event] of captions.latest) cleared.set(session, event.final ? event.seq : event.seq - 1);
  try {
    sessionStorage.setItem("streamer cleared", JSON.stringify([run, ...cleared]));
  } catch {
    // private windows may have no storage
  }
  captions.clear();
  setText(byId("saved"), "The page is clear. What is saved still holds all of the session.");
}

function restoreCleared() {
  try {
    const [of, ...numbers] = JSON.parse(sessionStorage.getItem("streamer cleared")) ?? [];
    if (of === run) for (const [session, seq] of numbers) cleared.set(session, seq);
  } catch {
    // as above
  }
}

byId("pause").addEventListener("click", () => {
  const on = byId("pause").getAttribute("aria-pressed") !== "true";
  byId("pause").setAttribute("aria-pressed", String(on));
  setText(byId("pause"), on ? "Go on" : "Pause");
  captions.pause(on);
});
byId("clear").addEventListener("click", clear);
dress(captions);
remembered("sound", (on) => alerts.useSound(on));
if (!("vibrate" in navigator)) byId("vibration-label").hidden = true;
remembered("vibration", (on) => alerts.useVibration(on));
remembered("notify", (on) => notifications.use(on));
panels.whenOpened("find-panel", () => byId("query").select());
speaking();
install();
feed.start();
