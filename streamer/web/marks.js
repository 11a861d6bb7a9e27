// What people said of alerts: false alarms, kept by the server beside its history of alerts, the same on every page.

const PATIENCE_MS = 8000; // so long a mark may take to be stored

const keyOf = (alert) => `${alert.session} ${alert.id}`;

export class Marks {
  /** send(message): to the server, false when there is no connection. changed(alert): draw it again; null: all. */
  constructor(send, changed) {
    this.send = send;
    this.changed = changed;
    this.possible = false; // the server keeps marks
    this.sessions = new Map(); // session -> {falseAlarms, trueAlerts}, sets of ids
    this.waiting = new Map(); // key -> {alert, wanted, timer}
    this.troubles = new Map(); // key -> why it is not stored
  }

  /** Whether this alert can be marked: what a recording held is in no history. */
  can(alert) {
    return this.possible && (alert.source ?? "live") === "live";
  }

  able(possible) {
    this.possible = possible;
    this.changed(null);
  }

  /** "storing", "false", "true" or "none". */
  of(alert) {
    if (this.waiting.has(keyOf(alert))) return "storing";
    const known = this.sessions.get(alert.session);
    if (known?.falseAlarms.has(alert.id)) return "false";
    return known?.trueAlerts.has(alert.id) ? "true" : "none";
  }

  /** Why the last mark of an alert was not stored; empty when it was. */
  trouble(alert) {
    return this.troubles.get(keyOf(alert)) ?? "";
  }

  mark(alert, falseAlarm) {
    const key = keyOf(alert);
    if (this.waiting.has(key)) return;
    this.troubles.delete(key);
    if (!this.send({ type: "mark", session: alert.session, id: alert.id, false_alarm: falseAlarm })) {
      this.fail(key, alert, "Not stored: there is no connection");
      return;
    }
    const timer = setTimeout(() => this.fail(key, alert, "Not stored (yet): the server did not answer"), PATIENCE_MS);
    this.waiting.set(key, { alert, wanted: falseAlarm, timer });
    this.changed(alert);
  }

  /** The server's word on a session, all marks at once. */
  take(message) {
    const falseAlarms = new Set(message.false_alarms);
    this.sessions.set(message.session, { falseAlarms, trueAlerts: new Set(message.true_alerts) });
    for (const [key, { alert, wanted, timer }] of this.waiting) {
      if (alert.session !== message.session || falseAlarms.has(alert.id) !== wanted) continue;
      clearTimeout(timer);
      this.waiting.delete(key);
    }
    this.troubles.clear();
    this.changed(null);
  }

  refused(detail) {
    for (const [key, { alert }] of this.waiting) this.fail(key, alert, `Not stored: ${detail.replace(/^mark: /, "")}`);
  }

  fail(key, alert, why) {
    clearTimeout(this.waiting.get(key)?.timer);
    this.waiting.delete(key);
    this.troubles.set(key, why);
    this.changed(alert);
  }

  clear() {
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
    this.sessions.clear();
    this.troubles.clear();
  }
}
