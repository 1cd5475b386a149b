// Where the page is: the hub may be at the root of a site or, behind a proxy, below a prefix that it
// does not know of itself.

// "/", or a prefix like "/hub/". This file is in ROOT/-/static/.
export const ROOT = new URL("../..", import.meta.url).pathname;

// The room that this page shows, as the hub names it.
export function roomName() {
  const { pathname } = location;
  const path = pathname.startsWith(ROOT) ? pathname.slice(ROOT.length - 1) : pathname;
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
