// This page's own connection to the server that it came from.

import { Client } from "./client.js";

/**
 * The options of a page: its own address. A token is taken out of the address bar, where it would stay in history and
 * bookmarks: the server gave a cookie along with the page, and this page's connections know the token from here.
 */
export const options = new URLSearchParams(location.search);
if (options.has("token")) {
  const shown = new URL(location.href);
  shown.searchParams.delete("token");
  history.replaceState(history.state, "", shown);
}

const RENEW_MS = 12 * 3600 * 1000;

/** The cookie lets in for 30 days, and a page is given a new one: one that stays open for months has to ask for it. */
export function stayLetIn() {
  return setInterval(() => fetch(location.pathname, { method: "HEAD" }).catch(() => {}), RENEW_MS);
}

export class Feed extends Client {
  /** As `Client`, without an address and a token of one's own. */
  constructor(wishes) {
    super({ url: location.href, token: options.get("token"), ...wishes });
  }

  start() {
    super.start();
    this.renewing = stayLetIn();
  }

  stop() {
    clearInterval(this.renewing);
    super.stop();
  }
}
