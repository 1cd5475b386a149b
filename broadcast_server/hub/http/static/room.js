// The page of a room: what is said, who is here, and a box to say something.

import { Link } from "./link.js";
import { Log } from "./log.js";
import { Members } from "./members.js";
import { roomName } from "./place.js";
import { Prompt, takeTokenFromAddress } from "./prompt.js";
import { secondsLeft, showState, wakeWithPage } from "./state.js";
import { leaveTab, readName, readToken, takeTab, writeName, writeToken } from "./store.js";
import { cleanName, make, number, show } from "./text.js";

const HISTORY = 50;
const GAPS = {
  trimmed: "more was said than the hub keeps",
  restarted: "the hub has been restarted",
  unknown: "the hub does not know where you were",
};

const $ = (id) => document.getElementById(id);
const room = roomName();
const box = $("text");
const nameField = $("name");
const encoder = new TextEncoder();

let unread = 0; // while the tab is hidden
let newest = null; // the end of the history that is coming in
let quiet = true; // nothing was said here as far as we know

takeTokenFromAddress();
const log = new Log(drawRest);
const members = new Members(() => link.askWho());
const link = new Link(
  {
    history: HISTORY,
    echo: true,
    name: cleanName(readName()),
    token: readToken(),
    event: take,
    changed: drawState,
    outboxChanged: () => log.refresh(),
    tokenLost: () => writeToken(null),
  },
  takeTab(location.pathname),
);
const prompt = new Prompt(link);

// What the hub says.

function take(event) {
  members.take(event);
  switch (event.type) {
    case "welcome":
      newest = event.newest;
      log.busy = newest !== event.after;
      if (newest !== event.after) quiet = false;
      if (document.activeElement !== nameField) nameField.value = link.name ?? "";
      drawRights();
      break;
    case "message":
      takeMessage(event);
      break;
    case "gap":
      quiet = false;
      if (event.after === newest) log.busy = false;
      log.note(`Messages may be missing here: ${GAPS[event.reason] ?? event.reason}.`);
      break;
    case "rename":
      if (event.member.id === link.id && document.activeElement !== nameField) {
        nameField.value = event.member.name ?? "";
      }
      break;
    case "error":
      complain(`The hub did not take that: ${event.detail}`);
      break;
  }
  log.refresh();
}

function takeMessage(event) {
  quiet = false;
  const own = event.from !== null && event.from.id === link.id;
  log.message(event, own);
  if (event.id === newest) log.busy = false;
  if (document.hidden && !own) {
    unread += 1;
    drawTitle();
  }
}

// What the user does.

function say() {
  const text = box.value;
  if (!text.trim()) return;
  const most = link.limits?.max_message_bytes;
  const size = encoder.encode(text).length;
  if (most && size > most) {
    complain(`That is too long: ${number(size)} bytes, and the hub takes ${number(most)}.`);
    return;
  }
  if (!link.send(text)) {
    complain("Too much is waiting to be sent already.");
    return;
  }
  complain("");
  box.value = "";
  fitBox();
  log.toEnd();
}

function rename() {
  const name = cleanName(nameField.value);
  nameField.value = name ?? "";
  if (name === link.name) return;
  complain("");
  writeName(name);
  link.setName(name);
}

function complain(text) {
  $("problem").textContent = text;
}

function fitBox() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
  box.focus();
});
box.addEventListener("keydown", (event) => {
  // 229: an input method is still at work (Safari says so after compositionend).
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  say();
});
box.addEventListener("input", fitBox);
nameField.addEventListener("change", rename);
nameField.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  rename();
  box.focus();
});
$("retry").addEventListener("click", () => {
  if (link.state.kind === "locked") prompt.show(link.state.why);
  else link.retry();
});
$("unlock").addEventListener("click", () => prompt.show("With a token you may be allowed to write."));

// What is shown beside the log.

function drawState() {
  const { state } = link;
  showState(state);
  const banner = $("banner");
  drawCountdown();
  if (state.kind === "connecting") return; // the banner stays as it is until we know
  banner.hidden = state.kind === "open";
  banner.dataset.kind = state.kind;
  const lost = link.id === null ? "The hub does not answer." : "The connection is lost.";
  $("banner-text").textContent = state.kind === "open" ? "" : (state.why ?? lost);
  const ways = { closed: "Connect again", locked: "Enter a token" };
  $("retry").textContent = ways[state.kind] ?? "Connect now";
  if (state.kind === "locked") prompt.show(state.why);
}

// Who may not write has no box to write into, and whose name is in the token cannot change it.
function drawRights() {
  const { publish, rename: mayRename } = link.rights;
  $("reader").hidden = publish;
  box.parentElement.hidden = $("send").hidden = $("hint").hidden = !publish;
  if (!mayRename) nameField.value = link.name ?? "";
  nameField.disabled = !mayRename;
  nameField.title = mayRename ? "" : "Your token says who you are.";
}

function drawCountdown() {
  const { state } = link;
  const words = { waiting: `Reconnecting in ${secondsLeft(state)} s.`, connecting: "Reconnecting …" };
  $("countdown").textContent = words[state.kind] ?? "";
}

function drawTitle() {
  document.title = unread ? `(${unread}) ${room}` : room;
}

function drawRest() {
  $("empty").hidden = !(quiet && link.id !== null && link.outbox.length === 0);
  members.draw();
  drawOutbox();
}

const outboxLines = new Map(); // item -> its line

function drawOutbox() {
  for (const [item, line] of outboxLines) {
    if (link.outbox.includes(item)) continue;
    line.remove();
    outboxLines.delete(item);
  }
  for (const item of link.outbox) {
    if (!outboxLines.has(item)) outboxLines.set(item, outboxLine(item));
    const line = outboxLines.get(item);
    line.hidden = item.shown;
    if (line.dataset.state === item.state) continue;
    line.dataset.state = item.state;
    line.lastChild.replaceChildren(...outboxState(item));
  }
}

function outboxLine(item) {
  const line = make("li");
  const text = make("div", "body");
  text.dir = "auto";
  show(text, item.data);
  line.append(text, make("p", "fate"));
  $("outbox").append(line);
  return line;
}

function outboxState(item) {
  if (item.state === "sent") return ["sending"];
  if (item.state === "waiting") return ["waits for the connection"];
  const again = make("button", "", "Send again");
  const discard = make("button", "", "Discard");
  again.type = discard.type = "button";
  again.addEventListener("click", () => link.again(item));
  discard.addEventListener("click", () => link.discard(item));
  return [`not sent: ${item.why} `, again, " ", discard];
}

function shellUrl() {
  const url = location.origin + location.pathname;
  return /^[\w/:.%~+-]+$/.test(url) ? url : `'${url.replaceAll("'", "%27")}'`;
}

show($("room"), room);
$("example").textContent = `curl -d hello ${shellUrl()}`;
nameField.value = link.name ?? "";
drawTitle();
setInterval(drawCountdown, 500);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  drawTitle();
});
addEventListener("pagehide", () => leaveTab(location.pathname, link.save()));
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) takeTab(location.pathname); // we are still here, and have it ourselves
});
wakeWithPage(link);
link.start();
if (matchMedia("(pointer: fine)").matches) box.focus();
