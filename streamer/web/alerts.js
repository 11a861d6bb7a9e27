// Alerts that stand: a steady banner for each, and sound and vibration when one is raised or repeated.

import { SEVERITIES, byId, clock, element, setText, title } from "./dom.js";

const FRESH_S = 20; // an alert that was raised longer ago, in the replay after a reload, makes no noise
const REPEAT_S = 20; // an alert that nobody acknowledged is said again, not more often than this

export class Alerts {
  /** acknowledge(alert): tells the server; false: it could not. marks, notifications: see marks.js, background.js. */
  constructor(acknowledge, marks, notifications) {
    this.acknowledge = acknowledge;
    this.marks = marks;
    this.notifications = notifications;
    this.standing = new Map(); // session and id -> {alert, acknowledged, announcedAt, and the parts of its banner}
    this.now = new Map(); // session -> seconds
    this.sound = this.vibration = false;
  }

  useSound(on) {
    this.sound = on;
    if (on && !this.audio) {
      this.audio = new AudioContext();
      this.audio.addEventListener("statechange", () => this.hint());
    }
    this.hint();
  }

  useVibration(on) {
    this.vibration = on;
    this.hint();
  }

  /** Without a gesture browsers keep quiet: the first click or key anywhere opens the way, and we say so until then. */
  hint() {
    const moved = navigator.userActivation?.hasBeenActive ?? true;
    const muted = (this.sound && this.audio.state !== "running") || (this.vibration && !moved);
    byId("quiet-hint").hidden = !muted;
    if (!muted || this.opening) return;
    this.opening = true;
    const open = () => {
      this.opening = false;
      removeEventListener("pointerup", open);
      removeEventListener("keydown", open);
      this.audio?.resume();
      setTimeout(() => this.hint(), 200);
    };
    addEventListener("pointerup", open);
    addEventListener("keydown", open);
  }

  at(session, seconds) {
    this.now.set(session, seconds);
  }

  take(alert) {
    const key = `${alert.session} ${alert.id}`;
    let item = this.standing.get(key);
    if (alert.state === "cleared") {
      if (item) this.remove(item);
      this.standing.delete(key);
      this.notifications.lower(alert);
      return;
    }
    if (!item) {
      item = { alert, acknowledged: false, announcedAt: -Infinity, ...this.banner() };
      if (alert.too_quiet) byId("alerts").prepend(item.banner); // what this person would have missed comes first
      this.standing.set(key, item);
    }
    if (alert.state === "acknowledged") {
      item.acknowledged = true;
      this.notifications.lower(alert);
    }
    item.alert = alert;
    this.draw(item);
    if (!item.acknowledged && alert.audio_t - item.announcedAt >= REPEAT_S) {
      const again = item.announcedAt > -Infinity;
      item.announcedAt = alert.audio_t;
      this.announce(item, again);
    }
  }

  /** Draw an alert's marks again; null: all. */
  marked(alert) {
    for (const item of this.standing.values()) {
      if (alert === null || (item.alert.session === alert.session && item.alert.id === alert.id)) this.draw(item);
    }
  }

  banner() {
    const [banner, name, details] = [element("div"), element("strong"), element("span", "details")];
    const [seen, known, noise] = [element("button", "", "Acknowledge"), element("span", "seen"), element("button")];
    details.setAttribute("aria-live", "off"); // a screen reader says once what happens, not each change of detail
    noise.setAttribute("aria-live", "off");
    seen.type = noise.type = "button";
    banner.append(name, details, known, seen, noise);
    byId("alerts").append(banner);
    return { banner, name, details, seen, known, noise };
  }

  draw(item) {
    const { alert, seen, noise } = item;
    item.banner.className = `alert ${alert.severity in SEVERITIES ? alert.severity : "info"}`;
    setText(item.name, `${SEVERITIES[alert.severity] ?? "Notice"}: ${title(alert)}`);
    const heard = (alert.heard ?? []).map((tag) => tag.label).slice(0, 3).join("; ");
    const parts = [`since ${clock(alert.start)}`];
    if (alert.too_quiet) parts.unshift("too quiet for you");
    if (heard) parts.push(`heard: ${heard}`);
    if (alert.text) parts.push(`said: “${alert.text}”`);
    setText(item.details, parts.join(" · "));
    const mark = this.marks.of(alert);
    const state = [item.acknowledged && "Acknowledged", mark === "false" && "Marked as a false alarm"].filter(Boolean);
    setText(item.known, state.join(" · "));
    item.known.hidden = state.length === 0;
    if (item.acknowledged && document.activeElement === seen) byId("captions").focus();
    seen.hidden = item.acknowledged;
    seen.onclick = () => this.see(item);
    setText(noise, mark === "false" ? "Undo" : "False alarm");
    noise.setAttribute("aria-label", mark === "false" ? `Undo: ${title(alert)} is no false alarm` : `False alarm: ${title(alert)}`);
    noise.setAttribute("aria-disabled", String(mark === "storing"));
    noise.hidden = !this.marks.can(alert);
    noise.onclick = () => {
      this.marks.mark(alert, mark !== "false");
      if (mark !== "false" && !item.acknowledged) this.see(item); // who judges it has seen it
    };
  }

  see(item) {
    if (this.acknowledge(item.alert)) item.seen.setAttribute("aria-disabled", "true");
  }

  /** A banner goes; who was on one of its buttons is not sent back to the top of the page. */
  remove(item) {
    if (item.banner.contains(document.activeElement)) byId("captions").focus();
    item.banner.remove();
  }

  /** Once the events at hand are read: an alert from the replay may be over already, or long known. */
  announce(item, again) {
    setTimeout(() => {
      const now = this.now.get(item.alert.session) ?? 0;
      if (!item.banner.isConnected || item.acknowledged || now - item.announcedAt > FRESH_S) return;
      if (again) setText(byId("said"), `${title(item.alert)}: still there, since ${clock(item.alert.start)} (${clock(now)})`);
      this.notifications.raise(item.alert);
      if (this.vibration) navigator.vibrate?.([400, 200, 400]);
      if (this.sound) this.beep(item.alert.severity === "critical" ? 3 : 1);
    }, 300);
  }

  beep(times) {
    const { audio } = this;
    if (audio.state !== "running") return; // what is scheduled now would all sound at once, later
    for (let index = 0; index < times; index += 1) {
      const start = audio.currentTime + 0.45 * index;
      const tone = audio.createOscillator();
      const loudness = audio.createGain();
      tone.frequency.value = 880;
      loudness.gain.setValueAtTime(0, start);
      loudness.gain.linearRampToValueAtTime(0.4, start + 0.02);
      loudness.gain.setValueAtTime(0.4, start + 0.25);
      loudness.gain.linearRampToValueAtTime(0, start + 0.3);
      tone.connect(loudness).connect(audio.destination);
      tone.start(start);
      tone.stop(start + 0.32);
    }
  }

  clear() {
    for (const item of this.standing.values()) this.remove(item);
    this.standing.clear();
    this.now.clear();
  }
}
