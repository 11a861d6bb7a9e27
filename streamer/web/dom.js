// Small things that all parts of the viewer need. Text from outside goes in as textContent, never as markup.

export const byId = (id) => document.getElementById(id);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** One choice of a select. */
export function choice(value, text) {
  const made = element("option", "", text);
  made.value = value;
  return made;
}

/** Only where it differs: what does not change is not said again by screen readers. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Seconds of the session as 1:02 or 1:00:02. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${pad(whole % 60)}` : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

/** What may still change, as it stands behind what is sure. */
export const joined = (text, partial) => (text && partial && !/^\s/.test(partial) ? ` ${partial}` : partial);

/** What stands where somebody spoke and nothing was sure enough to be shown. */
export const UNCLEAR = "[unclear]";

export const SEVERITIES = { critical: "Critical", warning: "Warning", info: "Notice" };

export const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** An alert's rule as words. */
export const title = (alert) => capitalised(String(alert.rule).replaceAll("_", " "));

/** With a space that never ends a line. */
export const percent = (score) => `${Math.round(100 * Math.min(1, Math.max(0, score)))}\u00a0%`;
