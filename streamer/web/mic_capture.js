// The microphone of this browser: asked for, opened, muted, closed; and what goes wrong with it, in words.

const FLUSH_MS = 500; // so long the audio thread may take for the last samples

/** Why this page cannot have a microphone at all; "" where it can. */
export function obstacle() {
  if (!window.isSecureContext) {
    return "Browsers lend a microphone only to pages that come by https, and this one came by http. Start Streamer with --tls self-signed and open the address that it prints then.";
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    return "This browser is too old to record sound for a page: take a newer Chrome, Firefox or Safari.";
  }
  return "";
}

/** A failure of the microphone for people. */
export function inWords(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "This browser did not give the page its microphone. Allow it (the sign beside the address, then Permissions, Microphone; on an iPhone: aA, Website Settings) and press Start again.";
    case "NotFoundError":
      return "No microphone was found. Connect one, then press Start again.";
    case "NotReadableError":
    case "AbortError":
      return "The microphone cannot be used now: perhaps another program or a call has it. End that, then press Start again.";
    default:
      return `The microphone cannot be used: ${error.message || error.name}`;
  }
}

/** Those that there are; their names are known only after the first permission. */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices.filter((device) => device.kind === "audioinput" && device.deviceId !== "");
}

export class Capture {
  /** on: {piece(Int16Array), gone(): the device ended, held(true|false): the system took it away for a while} */
  constructor(on) {
    this.on = on;
    this.muted = false;
    this.stream = this.context = this.node = null;
    this.last = Promise.resolve(); // opening and closing, one after the other
  }

  /**
   * Instead of the one that is open, if any. wish: {deviceId, echoCancellation, noiseSuppression, autoGainControl}.
   * Throws what browsers throw.
   */
  open(wish) {
    return this.inTurn(async () => {
      await this.end();
      await this.begin(wish);
    });
  }

  /** Whoever opens and whoever closes may come at once: none of them must leave a microphone open that nobody knows of. */
  inTurn(work) {
    const done = this.last.then(work);
    this.last = done.catch(() => {});
    return done;
  }

  async begin(wish) {
    const stream = await this.ask(wish);
    try {
      this.context = await this.listen(stream);
    } catch (error) {
      stopTracks(stream);
      throw error;
    }
    this.stream = stream;
    this.mute(this.muted);
    const [track] = stream.getAudioTracks();
    track.onended = () => stream === this.stream && this.on.gone();
    track.onmute = () => stream === this.stream && this.on.held(true);
    track.onunmute = () => stream === this.stream && this.on.held(false);
    await this.wake();
  }

  async ask({ deviceId, ...processing }) {
    const audio = { channelCount: 1, ...processing };
    try {
      return await navigator.mediaDevices.getUserMedia({ audio: deviceId ? { ...audio, deviceId: { exact: deviceId } } : audio });
    } catch (error) {
      if (!deviceId || !["OverconstrainedError", "NotFoundError"].includes(error.name)) throw error;
      return navigator.mediaDevices.getUserMedia({ audio }); // the chosen one is not here any more: the usual one
    }
  }

  /**
   * At the browser's own rate, whatever it is; `mic_resampler.js` makes 16 kHz of it. Firefox takes no other rate for a
   * microphone, and Chromium's own way to 16 kHz is worse: 35 pieces of 0.25 s of speech had a median correlation of
   * 0.992 with what was said, with ours 0.9999.
   */
  async listen(stream) {
    const context = new AudioContext();
    try {
      const source = context.createMediaStreamSource(stream);
      await context.audioWorklet.addModule(new URL("mic_worklet.js", import.meta.url));
      const node = new AudioWorkletNode(context, "streamer-microphone");
      node.port.onmessage = ({ data }) => {
        if (data.length === 0) this.flushed?.();
        else if (node === this.node) this.on.piece(data);
      };
      source.connect(node).connect(context.destination); // it plays silence: what leads nowhere is not run everywhere
      this.node = node;
      return context;
    } catch (error) {
      await context.close();
      throw error;
    }
  }

  mute(muted) {
    this.muted = muted;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted; // then it gives silence
  }

  /** Browsers pause what is in the background, and after a call. */
  async wake() {
    if (this.context && this.context.state !== "running") await this.context.resume().catch(() => {});
  }

  /** The microphone is free again; its last samples are handed on before. */
  close() {
    return this.inTurn(() => this.end());
  }

  async end() {
    const { node, context, stream } = this;
    if (!context) return;
    if (context.state === "running") {
      await new Promise((done) => {
        this.flushed = done;
        node.port.postMessage("finish");
        setTimeout(done, FLUSH_MS);
      });
    }
    this.stream = this.context = this.node = null;
    stopTracks(stream);
    await context.close();
  }
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}
