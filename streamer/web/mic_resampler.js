// From a browser's sample rate to that of the server: a low-pass of windowed sines (Kaiser), evaluated at the output's
// own instants. Whatever the pieces, the output is the same. Nothing of the page is used: it runs in the audio thread.

const ZEROS = 32; // zero crossings of the sine on each side, at the lower of both rates
const BETA = 7.9; // of the window: 80 dB
const CUTOFF = 0.92; // of half the lower rate; at that half itself the 80 dB are reached

export class Resampler {
  constructor(fromHz, toHz) {
    const common = divisor(fromHz, toHz);
    this.up = toHz / common; // so many instants lie between two samples of the input
    this.step = fromHz / common; // an output every so many of them
    this.cutoff = (CUTOFF * Math.min(1, toHz / fromHz)) / 2; // cycles a sample of the input
    this.half = Math.ceil(ZEROS * Math.max(1, fromHz / toHz)); // samples of the input on each side
    this.filters = new Map(); // instant between two samples -> its weights
    this.held = new Float32Array(this.half - 1); // of the input, from `first` on; before the beginning there is silence
    this.first = 1 - this.half;
    this.next = 0; // the instant of the next output
  }

  /** Samples in, samples out: those of which everything is known that they depend on. */
  push(samples) {
    if (this.up === this.step) return samples;
    const held = new Float32Array(this.held.length + samples.length);
    held.set(this.held);
    held.set(samples, this.held.length);
    const end = this.first + held.length;
    const out = [];
    for (let at = Math.floor(this.next / this.up); at + this.half < end; at = Math.floor(this.next / this.up)) {
      const weights = this.filter(this.next % this.up);
      const from = at - this.half + 1 - this.first;
      let sum = 0;
      for (let index = 0; index < weights.length; index++) sum += weights[index] * held[from + index];
      out.push(sum);
      this.next += this.step;
    }
    const kept = Math.max(this.first, Math.floor(this.next / this.up) - this.half + 1);
    this.held = held.slice(kept - this.first);
    this.first = kept;
    return Float32Array.from(out);
  }

  /** The rest, as if silence followed. */
  finish() {
    return this.push(new Float32Array(this.up === this.step ? 0 : this.half));
  }

  filter(instant) {
    let weights = this.filters.get(instant);
    if (weights) return weights;
    weights = new Float32Array(2 * this.half);
    let sum = 0;
    for (let index = 0; index < weights.length; index++) {
      const away = index + 1 - this.half - instant / this.up;
      const x = 2 * this.cutoff * away;
      const sine = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
      const edge = away / this.half;
      weights[index] = sine * bessel(BETA * Math.sqrt(Math.max(0, 1 - edge * edge)));
      sum += weights[index];
    }
    for (let index = 0; index < weights.length; index++) weights[index] /= sum; // a constant stays what it is
    this.filters.set(instant, weights);
    return weights;
  }
}

function divisor(a, b) {
  return b === 0 ? a : divisor(b, a % b);
}

/** The modified Bessel function of order 0, by its series. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-10 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
