// Alerts: a steady banner for each that lasts, an optional sound and vibration when one is raised, and the timeline.

const TIMELINE_S = 600;
const MAX_TIMELINE = 100;
const FRESH_S = 20; // an alert that was raised longer ago, in the replay after a reload, makes no noise
const NAMES = { critical: "Critical", warning: "Warning", info: "Notice" };

const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function title(alert) {
  const words = String(alert.rule).replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export class Alerts {
  /** acknowledge(alert): tells the server. clock(seconds): how a time reads. */
  constructor(acknowledge, clock) {
    this.acknowledge = acknowledge;
    this.clock = clock;
    this.known = new Map(); // session and id -> {alert, banner, entry, raised}
    this.now = new Map(); // session -> seconds
    this.sound = this.vibration = false;
    this.pending = null;
  }

  useSound(on) {
    this.sound = on;
    if (on) this.audio ??= new AudioContext();
    if (on && this.audio.state === "suspended") {
      // without a gesture browsers keep quiet: the first click or key anywhere opens the way
      const open = () => this.audio.resume();
      addEventListener("pointerdown", open, { once: true });
      addEventListener("keydown", open, { once: true });
    }
  }

  useVibration(on) {
    this.vibration = on;
  }

  at(session, seconds) {
    this.now.set(session, seconds);
    const lasting = [...this.known.values()].some((item) => item.alert.end === null);
    if (this.known.size > 0 && (lasting || Math.floor(seconds) !== this.drawnAt)) {
      this.drawnAt = Math.floor(seconds);
      this.drawStrip();
    }
  }

  take(alert) {
    const key = `${alert.session} ${alert.id}`;
    let item = this.known.get(key);
    if (!item) {
      item = { alert, raised: alert.audio_t, banner: null, entry: element("li") };
      this.known.set(key, item);
      byId("timeline").prepend(item.entry);
      this.forgetOldest();
    }
    const isNew = alert.state === "raised" && item.banner === null;
    item.acknowledged ||= alert.state === "acknowledged";
    item.alert = alert;
    if (alert.state === "cleared") {
      item.banner?.remove();
      item.banner = null;
    } else {
      this.drawBanner(item);
    }
    this.drawEntry(item);
    this.drawStrip();
    if (isNew) this.announce(item);
  }

  drawBanner(item) {
    if (!item.banner) {
      item.banner = element("div");
      const button = element("button", "", "Acknowledge");
      button.type = "button";
      button.addEventListener("click", () => this.acknowledge(item.alert) && (button.disabled = true));
      const details = element("span", "details");
      details.setAttribute("aria-live", "off"); // a screen reader says once what happens, not each change of detail
      item.banner.append(element("strong"), details, button);
      byId("alerts").append(item.banner);
    }
    const { alert } = item;
    item.banner.className = `alert ${alert.severity in NAMES ? alert.severity : "info"}`;
    const [name, details, last] = item.banner.children;
    setText(name, `${NAMES[alert.severity] ?? "Notice"}: ${title(alert)}`);
    const heard = (alert.heard ?? []).map((tag) => tag.label).slice(0, 3).join(", ");
    const parts = [`since ${this.clock(alert.start)}`];
    if (heard) parts.push(`heard: ${heard}`);
    if (alert.text) parts.push(`said: “${alert.text}”`);
    setText(details, parts.join(" · "));
    if (item.acknowledged && last.tagName === "BUTTON") last.replaceWith(element("span", "seen", "Acknowledged"));
  }

  drawEntry(item) {
    const { alert, entry } = item;
    entry.className = alert.severity;
    const end = alert.end === null ? "still on" : `for ${Math.max(1, Math.round(alert.end - alert.start))} s`;
    const labels = (alert.labels ?? []).join(", ");
    entry.replaceChildren(
      element("span", "", `${this.clock(alert.start)} ${title(alert)}`),
      element("small", "", [end, item.acknowledged ? "acknowledged" : "", labels].filter(Boolean).join(" · ")),
    );
    byId("no-timeline").hidden = true;
  }

  drawStrip() {
    const bars = byId("bars");
    const now = Math.max(...this.now.values(), 1);
    const from = Math.max(0, now - TIMELINE_S);
    const place = (seconds) => 100 * Math.min(1, Math.max(0, (seconds - from) / (now - from)));
    const shown = [...this.known.values()].filter(({ alert }) => (alert.end ?? now) > from);
    while (bars.children.length > shown.length) bars.lastChild.remove();
    while (bars.children.length < shown.length) bars.append(element("div"));
    shown.forEach(({ alert }, index) => {
      const bar = bars.children[index];
      bar.className = alert.severity;
      bar.style.setProperty("left", `${place(alert.start)}%`);
      bar.style.setProperty("width", `${place(alert.end ?? now) - place(alert.start)}%`);
    });
    byId("strip").hidden = this.known.size === 0;
    setText(byId("strip-from"), this.clock(from));
  }

  forgetOldest() {
    for (const [key, item] of this.known) {
      if (this.known.size <= MAX_TIMELINE) return;
      if (item.banner) continue;
      item.entry.remove();
      this.known.delete(key);
    }
  }

  /** Once the events at hand are read: an alert from the replay may be over already, or long known. */
  announce(item) {
    setTimeout(() => {
      const now = this.now.get(item.alert.session) ?? 0;
      if (!item.banner || item.acknowledged || now - item.raised > FRESH_S) return;
      if (this.vibration) navigator.vibrate?.([400, 200, 400]);
      if (this.sound) this.beep(item.alert.severity === "critical" ? 3 : 1);
    }, 300);
  }

  beep(times) {
    const { audio } = this;
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
    for (const item of this.known.values()) item.banner?.remove();
    this.known.clear();
    this.now.clear();
    byId("timeline").replaceChildren();
    byId("no-timeline").hidden = false;
    byId("strip").hidden = true;
  }
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
