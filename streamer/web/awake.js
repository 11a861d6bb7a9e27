// Keeps the screen on, where the browser can.

/**
 * A function that is told whether the screen is to stay on. say(text): why it does not, "" where it does. Browsers let go
 * of the screen when the page is hidden: it is asked for again.
 */
export function keepAwake(say) {
  let wanted = false;
  let lock = null;
  const ask = async () => {
    if (!wanted || document.hidden || (lock && !lock.released)) return;
    if (!navigator.wakeLock) {
      say(isSecureContext ? "This browser cannot do that." : "Browsers allow that only over https, or on this machine.");
      return;
    }
    try {
      lock = await navigator.wakeLock.request("screen");
      say("");
      if (!wanted) lock.release();
    } catch {
      say("The system does not allow it now, perhaps to save its battery.");
    }
  };
  document.addEventListener("visibilitychange", ask);
  return (on) => {
    wanted = on;
    if (on) ask();
    else {
      lock?.release();
      say("");
    }
  };
}
