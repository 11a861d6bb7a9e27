// Keeps the viewer's shell: its page, scripts, styles and icon. Never captions, never an address with a token or a code.
//
// The server is asked first, always, so that an update of the program is there with the next load; what is kept is for
// when no server answers: then the page opens all the same and says that nobody listens.

const SHELL = new URL("./", self.registration.scope).href;
const ASSETS = new URL("static/", self.registration.scope).href;
const STORE = `streamer shell of ${SHELL}`;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const address = request.url.split(/[?#]/)[0];
  if (request.method !== "GET" || !(address.startsWith(ASSETS) || (address === SHELL && request.mode === "navigate"))) return;
  event.respondWith(answer(request, address));
});

async function answer(request, address) {
  const store = await caches.open(STORE);
  try {
    const response = await fetch(request);
    if (response.ok && response.type === "basic" && !response.redirected) await store.put(address, response.clone());
    return response;
  } catch (error) {
    const kept = await store.match(address);
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(
    self.clients.matchAll({ type: "window" }).then((pages) => {
      const page = pages.find((one) => one.url.split(/[?#]/)[0] === SHELL);
      return page ? page.focus() : self.clients.openWindow(SHELL);
    }),
  );
});
