// Panels that open below the alerts, one at a time, and take their room from the captions: they cover nothing.

import { byId } from "./dom.js";

export class Panels {
  constructor() {
    this.buttons = [...document.querySelectorAll(".tools [aria-controls$='-panel']")];
    this.opened = new Map(); // panel -> what is done when it opens
    for (const button of this.buttons) button.addEventListener("click", () => this.toggle(button));
    for (const close of document.querySelectorAll(".panel .close")) close.addEventListener("click", () => this.close());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.close()) event.preventDefault();
    });
  }

  /** act: when a panel opens. */
  whenOpened(id, act) {
    this.opened.set(id, act);
  }

  toggle(button) {
    const open = button.getAttribute("aria-expanded") === "true";
    this.close();
    if (open) return;
    button.setAttribute("aria-expanded", "true");
    const panel = byId(button.getAttribute("aria-controls"));
    panel.hidden = false;
    this.opened.get(panel.id)?.();
    panel.querySelector("input, select, button")?.focus();
  }

  /** Close what is open; the focus goes back to its button. False: nothing was open. */
  close() {
    const button = this.buttons.find((one) => one.getAttribute("aria-expanded") === "true");
    if (!button) return false;
    const panel = byId(button.getAttribute("aria-controls"));
    if (panel.contains(document.activeElement)) button.focus();
    button.setAttribute("aria-expanded", "false");
    panel.hidden = true;
    return true;
  }
}
