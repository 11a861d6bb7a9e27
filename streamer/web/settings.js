// How the page looks and behaves, as this browser remembers it.

import { keepAwake } from "./awake.js";
import { byId, setText } from "./dom.js";

const WIDE_PX = 832; // from here on there is room for the side beside the captions
const FONTS = {
  sans: 'system-ui, "Segoe UI", "Noto Sans", sans-serif',
  wide: 'Verdana, "DejaVu Sans", "Atkinson Hyperlegible", sans-serif',
  serif: 'Georgia, "Noto Serif", serif',
  mono: 'ui-monospace, "DejaVu Sans Mono", monospace',
};

/** What is remembered of a control; null: nothing. */
export function stored(id) {
  try {
    return JSON.parse(localStorage.getItem(`streamer ${id}`));
  } catch {
    return null; // private windows may have no storage: then nothing is remembered
  }
}

/** Remember it. */
export function store(id, value) {
  try {
    localStorage.setItem(`streamer ${id}`, JSON.stringify(value));
  } catch {
    // as above
  }
}

/** A control whose state is remembered. apply(value) is called now and with each change. */
export function remembered(id, apply) {
  const input = byId(id);
  const property = input.type === "checkbox" ? "checked" : "value";
  const saved = stored(id);
  if (saved !== null) input[property] = saved;
  if (input.localName === "select" && input.selectedIndex < 0) input.selectedIndex = 0;
  input.addEventListener(input.type === "range" ? "input" : "change", () => {
    store(id, input[property]);
    apply(input[property]);
  });
  apply(input[property]);
}

/** The looks of the whole page. captions: see captions.js. */
export function dress(captions) {
  const root = document.documentElement;
  const light = matchMedia("(prefers-color-scheme: light)");
  const contrast = matchMedia("(prefers-contrast: more)");
  const theme = () => {
    const system = contrast.matches ? "contrast" : light.matches ? "light" : "dark";
    const chosen = byId("theme").value;
    root.dataset.theme = chosen === "auto" ? system : chosen;
  };
  light.addEventListener("change", theme);
  contrast.addEventListener("change", theme);
  remembered("theme", theme);
  remembered("text-size", (size) => {
    root.style.setProperty("--caption", `${size}px`);
    setText(byId("text-size-shown"), `${size} px`);
    captions.scroll();
  });
  remembered("font", (font) => {
    root.style.setProperty("--font", FONTS[font]);
    captions.scroll();
  });
  remembered("spacing", (spacing) => {
    root.style.setProperty("--spacing", spacing);
    captions.scroll();
  });
  remembered("times", (times) => captions.restyle({ times }));
  remembered("unsure", (unsure) => captions.restyle({ unsure }));
  remembered("keywords", (text) => {
    captions.restyle({ keywords: text.split(",").map((word) => word.trim()).filter(Boolean) });
  });
  remembered("timeline-sounds", (on) => byId("timeline").classList.toggle("alerts-only", !on));
  side(captions);
  fullScreen();
  remembered("awake", keepAwake((text) => setText(byId("awake-trouble"), text)));
}

/** The side with sounds and timeline: hidden on narrow screens until somebody wants it. */
function side(captions) {
  const button = byId("side-button");
  const show = (shown) => {
    button.setAttribute("aria-expanded", String(shown));
    byId("side").hidden = !shown;
    document.body.classList.toggle("alone", !shown);
    captions.scroll();
  };
  show(stored("side") ?? innerWidth > WIDE_PX);
  button.addEventListener("click", () => {
    const shown = byId("side").hidden;
    show(shown);
    store("side", shown);
    if (shown && innerWidth <= WIDE_PX) byId("side").scrollIntoView({ block: "nearest" });
  });
}

function fullScreen() {
  const button = byId("full");
  button.hidden = !document.fullscreenEnabled;
  button.addEventListener("click", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen().catch(() => {});
  });
  document.addEventListener("fullscreenchange", () => {
    setText(button, document.fullscreenElement ? "Leave full screen" : "Full screen");
  });
}
