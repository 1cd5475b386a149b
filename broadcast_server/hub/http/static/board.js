// The board (?view=board): the newest message of a room, as large as the window allows.

import { Link } from "./link.js";
import { roomName } from "./place.js";
import { Prompt, takeTokenFromAddress } from "./prompt.js";
import { showState, wakeWithPage } from "./state.js";
import { readToken, writeToken } from "./store.js";
import { author, binaryNotice, clip, day, make, show, timeElement } from "./text.js";

const SMALLEST_PX = 16;

const $ = (id) => document.getElementById(id);
const room = roomName();
const stage = $("stage");
const newest = $("newest");

let message = null;
let frame = 0;

takeTokenFromAddress();
const link = new Link({
  history: 1,
  name: "board",
  token: readToken(),
  event: take,
  changed: drawState,
  tokenLost: () => writeToken(null),
});
const prompt = new Prompt(link);

function drawState() {
  const { state } = link;
  const locked = state.kind === "locked";
  showState(state);
  $("unlock").hidden = !locked;
  if (locked) {
    // A board that does not follow any more should not look as if it did.
    message = null;
    prompt.show(state.why);
  }
  redraw();
}

function take(event) {
  if (event.type === "welcome" && event.newest === event.after) redraw();
  if (event.type !== "message") return;
  message = event;
  redraw();
}

// However many messages arrive, the text is fitted once per frame of the screen.
function redraw() {
  frame ||= requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  newest.classList.toggle("faint", message === null || message.data === undefined);
  if (link.state.kind === "locked") {
    newest.textContent = link.state.why;
  } else if (message === null && link.id === null) {
    // Why it does not get in stays there while it tries again.
    if (link.state.kind !== "connecting") newest.textContent = link.state.why ?? "";
  } else if (message === null) {
    newest.textContent = "Nothing has been said here yet";
  } else if (message.data === undefined) {
    newest.textContent = binaryNotice(message.data_base64);
  } else {
    show(newest, (clip(message.data) ?? message.data).replace(/^\s*\n|\s+$/g, ""));
  }
  if (message !== null) {
    const from = author(message.from);
    const name = make("bdi", from.className);
    show(name, from.label);
    const date = new Date(message.time);
    const before = day(date) === day(new Date()) ? " " : ` ${day(date)}, `;
    $("source").replaceChildren(name, before, timeElement(date));
  } else {
    $("source").replaceChildren();
  }
  fit();
}

// Words are broken only where leaving them whole would make the text much smaller. What does not fit
// at the smallest size can be scrolled.
function fit() {
  stage.classList.remove("long");
  newest.classList.remove("broken");
  const whole = largest();
  newest.classList.add("broken");
  const broken = largest();
  const breaks = broken > 2 * whole;
  newest.classList.toggle("broken", breaks || whole === 0);
  stage.classList.toggle("long", whole === 0 && broken === 0);
  newest.style.fontSize = `${(breaks ? broken : whole) || SMALLEST_PX}px`;
}

// The largest size at which all of the text is in the window; 0 if there is none.
function largest() {
  let low = 0;
  let high = Math.max(SMALLEST_PX, Math.min(stage.clientHeight, stage.clientWidth * 2)) + 1;
  let size = SMALLEST_PX;
  while (high - low > 1) {
    newest.style.fontSize = `${size}px`;
    const fits =
      newest.scrollWidth <= stage.clientWidth && newest.scrollHeight <= stage.clientHeight;
    if (!fits && size === SMALLEST_PX) return 0;
    if (fits) low = size;
    else high = size;
    size = Math.floor((low + high) / 2);
  }
  return low;
}

show($("room"), room);
document.title = room;
new ResizeObserver(redraw).observe(stage);
$("unlock").addEventListener("click", () => prompt.show(link.state.why));
wakeWithPage(link);
link.start();
