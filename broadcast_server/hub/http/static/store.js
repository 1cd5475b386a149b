// What the page remembers: the name for all rooms (localStorage); for this tab the token, and for each
// room who it is and what it has not sent yet (sessionStorage). A browser may forbid either; then nothing is
// remembered, and all else works.

import { ROOT } from "./place.js";

const NAME = "broadcast-server:name";
// Below a prefix it is another hub than at the root, and may want another token.
const TOKEN = `broadcast-server:token${ROOT === "/" ? "" : `:${ROOT}`}`;
const TAB = "broadcast-server:tab:";

function storage(kind) {
  try {
    return window[kind];
  } catch {
    return null; // cookies are blocked: the mere access throws
  }
}

function read(kind, key) {
  try {
    return storage(kind)?.getItem(key) ?? null;
  } catch {
    return null;
  }
}

function write(kind, key, value) {
  try {
    if (value === null) storage(kind)?.removeItem(key);
    else storage(kind)?.setItem(key, value);
  } catch {
    // Full or forbidden: there is nothing to be done about it.
  }
}

export function readName() {
  return read("localStorage", NAME);
}

export function writeName(name) {
  write("localStorage", NAME, name);
}

export function readToken() {
  return read("sessionStorage", TOKEN);
}

export function writeToken(token) {
  write("sessionStorage", TOKEN, token);
}

// What the tab's last page has left. Taken out of the store for as long as the page lives: a browser
// copies the store when it duplicates a tab, and two tabs with one session would push each other out.
export function takeTab(room) {
  const value = read("sessionStorage", TAB + room);
  write("sessionStorage", TAB + room, null);
  try {
    return JSON.parse(value) ?? {};
  } catch {
    return {};
  }
}

export function leaveTab(room, state) {
  write("sessionStorage", TAB + room, JSON.stringify(state));
}
