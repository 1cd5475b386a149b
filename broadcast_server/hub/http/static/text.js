// What other people have written, made fit to be shown. All of it goes into the page as text, never
// as markup; here is what text alone can do: characters that nobody sees or that turn the
// direction of what follows, texts without an end, names that are not there.

// C0 without tab and line feed, DEL, C1, and the bidi embeddings, overrides and isolates.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/;
const COLOURS = 12; // as many as app.css has

const CLIP_CHARACTERS = 4000;
const CLIP_LINES = 60;

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const numberFormat = new Intl.NumberFormat();

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Show a text in an element; each unseen character stands as its code point in a box.
export function show(element, text) {
  const lines = text.replace(/\r\n?/g, "\n");
  if (!UNSEEN.test(lines)) {
    element.textContent = lines;
    return;
  }
  const pieces = [];
  let plain = "";
  for (const character of lines) {
    if (UNSEEN.test(character)) {
      const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      pieces.push(plain, make("span", "unseen", `U+${code}`));
      plain = "";
    } else {
      plain += character;
    }
  }
  element.replaceChildren(...pieces, plain);
}

// The beginning of a text that is too long to be shown whole; null if it is not too long.
export function clip(text) {
  let end = Math.min(text.length, CLIP_CHARACTERS);
  let at = -1;
  for (let lines = 0; lines < CLIP_LINES; lines += 1) {
    at = text.indexOf("\n", at + 1);
    if (at < 0 || at >= end) break;
    if (lines === CLIP_LINES - 1) end = at;
  }
  if (end === text.length) return null;
  const last = text.charCodeAt(end - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? end - 1 : end);
}

// Who a message or a member is from: {label, className, title}. Only a name that somebody has chosen
// has a colour, so that nobody can pass for the hub by calling himself so.
export function author(from) {
  if (!from) return { label: "hub", className: "who unnamed", title: "the hub's own program" };
  const title = from.id ?? "published over HTTP";
  if (from.name) return { label: from.name, className: `who c${colour(from.name)}`, title };
  return { label: from.id ? `guest ${from.id}` : "guest", className: "who unnamed", title };
}

function colour(name) {
  let hash = 0x811c9dc5; // FNV-1a
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return ((hash ^ (hash >>> 15)) >>> 0) % COLOURS;
}

// A name as the hub takes it; null for none.
export function cleanName(name) {
  const seen = String(name ?? "").replace(/[\p{Cc}\p{Cs}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, "");
  return [...seen.trim()].slice(0, 64).join("").trim() || null;
}

export function binaryNotice(base64) {
  const padding = base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
  const bytes = (base64.length / 4) * 3 - padding;
  if (bytes === 1) return "1 byte of binary data";
  if (bytes < 1024) return `${bytes} bytes of binary data`;
  const big = bytes >= 1024 * 1024;
  const size = (bytes / (big ? 1024 * 1024 : 1024)).toFixed(1);
  return `${size} ${big ? "MiB" : "KiB"} of binary data`;
}

export function number(value) {
  return numberFormat.format(value);
}

export function day(date) {
  return dayFormat.format(date);
}

export function timeElement(date) {
  const element = make("time", "", timeFormat.format(date));
  element.dateTime = date.toISOString();
  element.title = fullFormat.format(date);
  return element;
}
