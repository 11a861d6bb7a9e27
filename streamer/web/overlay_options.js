// The options of /overlay in its address: one table for the overlay, which reads it, and for the page that makes it.
//
// A wrong value never stops the overlay: the nearest that is right is taken, or the default. `read` says so in
// `troubles`, which the set-up page shows; the overlay shows nothing but captions.

export const OPTIONS = [
  { name: "lines", kind: "whole", fallback: 2, low: 1, high: 4, label: "Lines" },
  { name: "chars", kind: "whole", fallback: 42, low: 20, high: 60, label: "Characters a line" },
  { name: "size", kind: "whole", fallback: 40, low: 8, high: 400, label: "Text size (px)" },
  { name: "font", kind: "style", property: "font-family", label: "Font", example: "Georgia, serif" },
  { name: "color", kind: "color", property: "color", picker: "#ffffff", label: "Text colour", example: "ffffff" },
  {
    name: "background", kind: "color", property: "background-color", words: ["none"], picker: "#000000",
    label: "Background", example: "none, or 000000c7",
  },
  {
    name: "outline", kind: "color", property: "color", words: ["none"], picker: "#000000",
    label: "Outline", example: "none, or 000000",
  },
  { name: "outlinesize", kind: "number", fallback: 0, low: 0, high: 20, label: "Outline's width (px; 0: fitting)" },
  {
    name: "position", kind: "choice", choices: ["bottom", "top", "middle"], label: "Height in the picture",
    says: { bottom: "at the bottom", top: "at the top", middle: "in the middle" },
  },
  {
    name: "align", kind: "choice", choices: ["steady", "left", "center", "right"], label: "Alignment",
    says: { steady: "in the middle, steady", left: "left", center: "centred", right: "right" },
  },
  { name: "uppercase", kind: "flag", fallback: false, label: "Capital letters" },
  { name: "partial", kind: "flag", fallback: true, label: "Also words that may still change" },
  { name: "sounds", kind: "flag", fallback: true, label: "Also sounds, in brackets" },
  { name: "hold", kind: "whole", fallback: 8, low: 1, high: 3600, label: "Seconds until the text goes away" },
  { name: "fade", kind: "number", fallback: 0, low: 0, high: 10, label: "Seconds that it takes to go" },
  { name: "session", kind: "text", label: "Only this source", example: "all" },
];
const OTHERS = ["token", "code", "sample"]; // in the address, and nothing to choose

const NO = ["0", "false", "no", "off"];
const YES = ["1", "true", "yes", "on", ""];

/** The values of all options, by name ("" or null: not given), and what is wrong with the address, a line each. */
export function read(params) {
  const values = {};
  const troubles = [];
  for (const option of OPTIONS) {
    const given = params.get(option.name);
    const { value, trouble } = READERS[option.kind](option, given);
    values[option.name] = value;
    if (trouble) troubles.push({ name: option.name, text: trouble });
  }
  for (const name of new Set(params.keys())) {
    if (!OTHERS.includes(name) && !OPTIONS.some((option) => option.name === name)) {
      troubles.push({ name, text: "is no option" });
    }
  }
  return { values, troubles };
}

const READERS = {
  whole: (option, given) => numeric(option, given, Number.parseInt(given, 10), /^\s*[+-]?\d+\s*$/),
  number: (option, given) => numeric(option, given, Number.parseFloat(given), /^\s*[+-]?(\d+\.?\d*|\.\d+)\s*$/),
  flag(option, given) {
    if (given === null) return { value: option.fallback };
    const word = given.toLowerCase();
    const trouble = NO.includes(word) || YES.includes(word) ? "" : "must be 0 or 1; taken as 1";
    return { value: !NO.includes(word), trouble };
  },
  choice(option, given) {
    if (given === null || option.choices.includes(given)) return { value: given ?? option.choices[0] };
    return { value: option.choices[0], trouble: `must be ${option.choices.join(", ")}; taken as ${option.choices[0]}` };
  },
  style(option, given) {
    if (!given || CSS.supports(option.property, given)) return { value: given };
    return { value: null, trouble: "is no font that a style could name; the default is taken" };
  },
  color(option, given) {
    if (!given || option.words?.includes(given)) return { value: given };
    const hex = /^[0-9a-f]{3,8}$/i.test(given) ? `#${given}` : given; // "#" in an address starts its fragment
    for (const value of [given, hex]) if (CSS.supports(option.property, value)) return { value };
    return { value: null, trouble: "is no colour such as ffcc00 or white; the default is taken" };
  },
  text: (option, given) => ({ value: given }),
};

function numeric(option, given, number, form) {
  const usual = option.fallback;
  if (given === null) return { value: usual };
  if (!Number.isFinite(number)) return { value: usual, trouble: `must be a number; taken as ${usual}` };
  const value = Math.min(option.high, Math.max(option.low, number));
  const right = value === number && form.test(given);
  return { value, trouble: right ? "" : `must be from ${option.low} to ${option.high}; taken as ${value}` };
}
