// A browser as the microphone: its sound goes to /ingest, what Streamer makes of it comes back and is shown.

import { keepAwake } from "./awake.js";
import { byId, choice, element, setText } from "./dom.js";
import { options, stayLetIn } from "./feed.js";
import { Captions } from "./mic_captions.js";
import { Capture, inWords, microphones, obstacle } from "./mic_capture.js";
import { RATE_HZ, Sender } from "./mic_sender.js";
import { store, stored } from "./settings.js";

const PROCESSING = ["echoCancellation", "noiseSuppression", "autoGainControl"];
const MISSED_S = 1; // so much sound that was not recorded is said
const DRIFT = 0.002; // of a sound card's clock against the time of day, at most
const SILENCE_S = 3; // of nothing but zeros: no microphone in a room is so quiet
const LATE_S = 3;
const FLOOR_DBFS = -60;
const FALL_DB = 3; // of the level meter, a piece: short sounds can be seen

const source = options.get("source") || null;

class Page {
  constructor() {
    this.captions = new Captions();
    this.capture = new Capture({
      piece: (piece) => this.piece(piece),
      gone: () => this.deviceGone(),
      held: (held) => {
        this.held = held;
      },
    });
    this.sender = new Sender({
      url: location.href,
      token: options.get("token"),
      source,
      on: {
        state: (...told) => this.connection(...told),
        event: (event) => this.event(event),
        missed: () => this.captions.missed(),
        heartbeat: ({ sessions }) => {
          this.lag = sessions?.find((item) => item.session === this.session)?.lag ?? 0;
        },
        started: (session, unsentSeconds) => this.started(session, unsentSeconds),
      },
    });
    this.running = false; // the microphone is open, or is being opened anew
    this.stopping = false; // it is being closed
    this.held = false; // the system has taken it away for a while
    this.awake = true; // the screen stays on: a phone that sleeps hears nothing
    this.keepAwake = keepAwake((trouble) => {
      this.awake = trouble === "";
    });
    this.session = null;
    this.retryAt = 0;
    this.silent = 0; // samples
    this.lag = 0; // seconds
    this.degraded = "";
    byId("start").addEventListener("click", () => (this.running || this.sender.state !== "off" ? this.stop() : this.start()));
    byId("mute").addEventListener("click", () => this.mute(!this.capture.muted));
    for (const id of ["device", ...PROCESSING]) {
      byId(id).addEventListener("change", () => {
        store(`mic ${id}`, id === "device" ? byId(id).value : byId(id).checked);
        if (this.running) this.reopen();
      });
    }
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.list());
    setInterval(() => this.tick(), 1000);
  }

  async start() {
    this.trouble("");
    this.draw("asking", "Waiting for your permission …");
    byId("start").disabled = true;
    try {
      await this.capture.open(wish());
    } catch (error) {
      this.trouble(inWords(error));
      this.draw("off", "Off");
      byId("start").disabled = false;
      return;
    }
    this.running = true;
    this.expectFromNow();
    byId("start").disabled = false;
    byId("mute").disabled = false;
    setText(byId("start"), "Stop");
    setText(byId("empty"), "Speak: what Streamer hears appears here.");
    this.sender.begin();
    this.keepAwake(true);
    this.list();
  }

  async stop(trouble = "") {
    if (this.stopping) return this.trouble(trouble); // pressed twice: the last words are awaited all the same
    this.stopping = true;
    this.running = false;
    byId("mute").disabled = true;
    this.say("");
    this.trouble(trouble);
    this.keepAwake(false);
    try {
      await this.capture.close();
    } finally {
      this.stopping = false;
      this.mute(false);
      this.sender.end();
      byId("meter").value = FLOOR_DBFS;
    }
  }

  /** Another device or other processing, in the same session. */
  async reopen() {
    try {
      await this.capture.open(wish());
      this.expectFromNow();
    } catch (error) {
      await this.stop(inWords(error));
    }
    this.list();
  }

  async deviceGone() {
    if (!this.running) return;
    this.captions.note("The microphone is gone; trying the usual one.");
    try {
      await this.capture.open({ ...wish(), deviceId: "" });
      this.expectFromNow();
    } catch {
      await this.stop("The microphone is gone. Connect it again or choose another one, then press Start.");
    }
    this.list();
  }

  mute(muted) {
    this.capture.mute(muted);
    byId("mute").setAttribute("aria-pressed", String(muted));
    setText(byId("mute"), muted ? "Muted" : "Mute");
    if (this.sender.state === "sending") this.connection("sending");
  }

  expectFromNow() {
    this.recordedUntil = performance.now() / 1000;
  }

  piece(piece) {
    const seconds = piece.length / RATE_HZ;
    const now = performance.now() / 1000;
    this.recordedUntil = Math.min(now, this.recordedUntil + seconds * (1 + DRIFT));
    if (now - this.recordedUntil > MISSED_S) {
      this.captions.notRecorded(now - this.recordedUntil);
      this.recordedUntil = now;
    }
    this.sender.push(piece);
    let power = 0;
    for (const sample of piece) power += (sample / 32_768) ** 2;
    const dbfs = 10 * Math.log10(power / piece.length + 1e-12);
    byId("meter").value = Math.max(FLOOR_DBFS, dbfs, byId("meter").value - FALL_DB);
    this.silent = power === 0 && !this.capture.muted ? this.silent + piece.length : 0;
  }

  connection(state, detail = "", waitMs = 0) {
    if (state === "connecting") this.draw("connecting", "Connecting …");
    if (state === "sending") this.draw(...(this.capture.muted ? ["muted", "Muted"] : ["sending", "Listening"]));
    if (state === "ending") this.draw("connecting", "Waiting for the last words …");
    if (state === "off") this.ended(detail);
    if (state === "refused") this.stop(refusal(detail));
    if (state === "waiting") {
      this.retryAt = performance.now() + waitMs;
      this.captions.close();
      this.draw("waiting", detail.startsWith("full") ? "Full" : "Not connected");
      this.why(detail);
    }
  }

  async why(detail) {
    if (detail.startsWith("off:")) {
      this.trouble(`Streamer takes no sound from here now (${detail.slice(5)}).`);
    } else if (detail.startsWith("full:")) {
      this.trouble(`No place for one more microphone:${detail.slice(5).replace(/; try in.*/, "")}. It is tried again by itself.`);
    } else if (detail.startsWith("ingest:")) {
      this.trouble("Streamer is still starting. It is tried again by itself.");
    } else if (detail) {
      this.trouble(`The server says: ${detail}`);
    } else if (this.sender.welcomed) {
      this.trouble("The connection is lost. It is tried again by itself.");
    } else {
      this.trouble("There is no connection for the sound. It is tried again by itself.");
      const answer = await fetch("certificate", { method: "HEAD" }).catch(() => null);
      if (!answer?.ok || this.sender.welcomed) return;
      const link = element("a", "", "certificate");
      link.href = "certificate";
      byId("trouble").append(" iPhones connect only after this ", link, " was installed and trusted in their settings.");
    }
  }

  started(session, unsentSeconds) {
    this.session = session;
    this.captions.begin();
    this.trouble("");
    if (unsentSeconds >= 0.1) this.captions.note(`There was no connection: ${unsentSeconds.toFixed(1)} s of sound was not sent.`);
  }

  ended(detail) {
    if (this.running) return;
    this.captions.close();
    this.lag = 0;
    this.degraded = "";
    setText(byId("start"), "Start");
    this.draw("off", "Off");
    if (detail) this.captions.note(detail);
  }

  event(event) {
    if (event.type === "status") this.degraded = event.state === "degraded" ? event.detail || "degraded" : "";
    else this.captions.take(event);
  }

  /** Once a second: what is not an event. */
  tick() {
    if (!this.running) return;
    this.capture.wake();
    const unsent = this.sender.unsentSeconds;
    if (this.sender.state === "waiting") {
      const left = Math.max(0, Math.round((this.retryAt - performance.now()) / 1000));
      this.say(`Trying again in ${left} s${unsent < 1 ? "" : `; ${unsent.toFixed(0)} s of sound not sent so far`}.`);
    } else if (this.held) {
      this.say("This device has taken the microphone away for now (a call?).");
    } else if (this.silent > SILENCE_S * RATE_HZ) {
      this.say("The microphone gives nothing but silence: is it switched off, or covered by its settings?");
    } else if (this.sender.state === "sending" && unsent > 0) {
      this.say(`This connection is too slow: ${unsent.toFixed(0)} s of sound was not sent.`);
    } else if (this.lag > LATE_S) {
      this.say(`Captions come ${this.lag.toFixed(0)} s late.`);
    } else {
      this.say(this.degraded || (this.awake ? "" : "Keep the screen on: asleep, this device hears nothing."));
    }
  }

  async list() {
    const found = await microphones();
    const select = byId("device");
    const wanted = select.value || stored("mic device") || "";
    select.replaceChildren(choice("", "the usual one"), ...found.map((device, index) => choice(device.deviceId, device.label || `Microphone ${index + 1}`)));
    select.value = found.some((device) => device.deviceId === wanted) ? wanted : "";
  }

  draw(state, text) {
    byId("state").dataset.state = state;
    setText(byId("state"), text);
  }

  trouble(text) {
    setText(byId("trouble"), text);
  }

  say(text) {
    setText(byId("hint"), text);
  }
}

function refusal(detail) {
  if (detail.startsWith("token")) return "The server does not know this browser any more. Open the link that Streamer printed, or scan its code.";
  return `The server refused this microphone: ${detail || "not allowed"}`;
}

function wish() {
  const processing = Object.fromEntries(PROCESSING.map((id) => [id, byId(id).checked]));
  return { deviceId: byId("device").value, ...processing };
}

for (const id of PROCESSING) byId(id).checked = stored(`mic ${id}`) === true;
setText(byId("name"), source ?? "");
stayLetIn();
const page = new Page();
const unable = obstacle();
if (unable) {
  page.trouble(unable);
  byId("start").disabled = true;
} else {
  page.list();
}
