// The page as an app of its own, and alerts as notifications while nobody sees it.

import { SEVERITIES, byId, setText, title } from "./dom.js";

/** The service worker keeps the shell, so that an installed page opens, and says what is wrong, without its server. */
export function install() {
  if ("serviceWorker" in navigator) navigator.serviceWorker.register("service_worker.js").catch(() => {});
}

export class Notifications {
  constructor() {
    this.on = false;
  }

  async use(on) {
    const say = (text) => setText(byId("notify-trouble"), text);
    this.on = false;
    say("");
    if (!on) return;
    if (!("Notification" in globalThis) || !("serviceWorker" in navigator)) {
      say(isSecureContext ? "This browser has no notifications." : "Browsers allow that only over https, or on this machine.");
    } else if (Notification.permission === "granted" || (await Notification.requestPermission()) === "granted") this.on = true;
    else say("This browser does not allow it; its settings for this page can change that.");
  }

  async raise(alert) {
    if (!this.on || !document.hidden) return;
    const worker = await navigator.serviceWorker.ready;
    await worker.showNotification(`${SEVERITIES[alert.severity] ?? "Notice"}: ${title(alert)}`, {
      tag: tag(alert),
      renotify: true,
      requireInteraction: alert.severity === "critical",
      icon: "static/icon.svg",
      body: (alert.heard ?? []).map((item) => item.label).slice(0, 3).join("; "),
    });
  }

  /** It is over, or somebody has seen it. */
  async lower(alert) {
    if (!this.on) return;
    const worker = await navigator.serviceWorker.ready;
    for (const shown of await worker.getNotifications({ tag: tag(alert) })) shown.close();
  }
}

const tag = (alert) => `${alert.session} ${alert.id}`;
