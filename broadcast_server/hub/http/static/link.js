// The connection to a room: it connects, comes back by itself, goes on where it was, and keeps what
// was said until the hub has acknowledged it. No element of the page is touched here.
//
// The page asks for its own messages, too (echo=1): so all members see one order, and a page that is
// loaded anew has the messages of its own that it finds in the history. An own message waits in the
// outbox until its ack. The ack never overtakes the message, so the one leaves when the other is
// there. What is not acknowledged when the connection is lost is sent again with the same key, and
// the hub takes it once.

import { askOverHttp, explain } from "./refusal.js";

const SUBPROTOCOL = "broadcast.v1.json";
const SESSION_PROTOCOL = "broadcast.session."; // and the session, so that no address has it
const TOKEN_PROTOCOL = "broadcast.token."; // and the token in base64url: a script can set no header
const EXPIRED = "token expired"; // the reason of a 1008

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
const STEADY_MS = 5_000; // a connection that lived as long as this was a good one
const CONNECT_MS = 15_000; // from the attempt to the welcome
const ASK_MS = 5_000; // over HTTP, when that time is over
const SILENT_MS = 20_000; // for an answer that the hub owes
const QUIET_MS = 45_000; // so long nothing was heard: ask something
const WATCH_MS = 1_000;
const KEY_MS = 9.5 * 60_000; // the hub remembers a key for ten minutes
const SEEN_IDS = 5_000;
const OUTBOX_ITEMS = 200;

// Whoever gets one of these would get it again.
const FINAL = new Map([
  [1000, "The hub has ended the connection."],
  [1002, "The hub did not understand this page."],
  [1003, "The hub did not understand this page."],
  [1007, "The hub did not understand this page."],
  [1008, "The hub does not allow this connection."],
]);

export class Link {
  // The states: {kind: "connecting" | "open" | "waiting" | "closed" | "locked", until, why}.
  state = { kind: "connecting" };
  id = null; // who we are, from the welcome
  limits = null;
  rights = { publish: true, rename: true };
  outbox = []; // {key, ref, data, time, tried, state: "waiting" | "sent" | "failed", why, shown}

  #options;
  #socket = null;
  #name;
  #token;
  #session = null;
  #last = null; // the id after which everything is still to come
  #seen = new Set();
  #attempts = 0;
  #timer = 0;
  #began = 0; // when this connection was asked for
  #welcomed = 0; // when it was welcomed, 0 if it is not yet
  #owed = 0; // since when the hub owes an answer, 0 if it does not
  #heard = 0; // when the last frame came
  #patience = QUIET_MS * (0.9 + Math.random() / 5); // not all pages of a room at once
  #ref = 0;
  #refused = false; // the last time the hub answered over HTTP and took no WebSocket

  // options: history, echo, name, token, and the callbacks event(event), changed() for a new state,
  // outboxChanged(), and tokenLost() when the hub does not take the token. saved: what save() gave to the tab's page before this one.
  constructor(options, saved = {}) {
    this.#options = options;
    this.#name = options.name ?? null;
    this.#token = options.token ?? null;
    this.#session = saved.session ?? null;
    for (const item of saved.outbox ?? []) {
      this.outbox.push({ ...item, ref: (this.#ref += 1), state: "waiting", shown: false });
    }
  }

  start() {
    setInterval(() => this.#watch(), WATCH_MS);
    this.#open();
  }

  get name() {
    return this.#name;
  }

  save() {
    const outbox = this.outbox.filter((item) => item.state !== "failed");
    return {
      session: this.#session,
      outbox: outbox.map(({ key, data, time, tried }) => ({ key, data, time, tried })),
    };
  }

  // Say something; false if too much waits already.
  send(data) {
    if (this.outbox.length >= OUTBOX_ITEMS) return false;
    const ref = (this.#ref += 1);
    const time = Date.now();
    const item = { key: newKey(), ref, data, time, tried: 0, state: "waiting", shown: false };
    this.outbox.push(item);
    this.#flush();
    return true;
  }

  // Try a message again that has failed; nobody knows its old key any more.
  again(item) {
    Object.assign(item, { key: newKey(), tried: 0, state: "waiting", shown: false });
    this.#flush();
  }

  discard(item) {
    this.outbox = this.outbox.filter((other) => other !== item);
    this.#options.outboxChanged?.();
  }

  setName(name) {
    this.#name = name;
    if (this.state.kind === "open") this.#put({ type: "name", name, ref: "name" });
  }

  askWho() {
    if (this.state.kind === "open") this.#ask({ type: "who" });
  }

  // The user has a token, or another one. It is shown with a new connection, also if there is one.
  setToken(token) {
    this.#token = token;
    this.#attempts = 0;
    this.#drop();
    this.#rest();
    this.#open();
  }

  // The user wants to try it now.
  retry() {
    if (this.state.kind !== "waiting" && this.state.kind !== "closed") return;
    this.#attempts = 0;
    this.#open();
  }

  // The network is there again, or the reader.
  wake() {
    if (this.state.kind === "waiting") {
      this.retry();
    } else if (this.state.kind === "open" && performance.now() - this.#heard > SILENT_MS) {
      this.askWho(); // after a sleep the connection may be dead without knowing it
    }
  }

  #url() {
    const url = new URL(location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    const query = new URLSearchParams();
    if (this.#name) query.set("name", this.#name);
    if (this.#options.echo) query.set("echo", "1");
    if (this.#last !== null) query.set("since", this.#last);
    else query.set("history", this.#options.history);
    url.search = query.toString();
    return url.href;
  }

  #open() {
    clearTimeout(this.#timer);
    this.#began = performance.now();
    this.#welcomed = 0;
    this.#owed = 0;
    let socket;
    let opened = false;
    const protocols = [SUBPROTOCOL];
    if (this.#token) protocols.push(TOKEN_PROTOCOL + base64url(this.#token));
    if (this.#session) protocols.push(SESSION_PROTOCOL + base64url(this.#session));
    try {
      socket = new WebSocket(this.#url(), protocols);
    } catch (error) {
      this.#set({ kind: "closed", why: `The browser does not allow the connection (${error.name}).` });
      return;
    }
    this.#socket = socket;
    this.#set({ kind: "connecting" });
    socket.onopen = () => {
      opened = true;
      if (socket.protocol === SUBPROTOCOL) return;
      this.#drop();
      this.#set({ kind: "closed", why: `The hub does not speak ${SUBPROTOCOL}.` });
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => {
      if (opened) this.#lost(code, reason);
      else this.#learnWhy(socket, CONNECT_MS);
    };
  }

  // A browser does not tell a script why an upgrade was refused. The same question over HTTP gets an
  // answer (refusal.js).
  async #learnWhy(socket, milliseconds) {
    this.#began = Infinity; // the question has a bound of its own
    const answer = await askOverHttp(this.#token, milliseconds);
    if (this.#socket !== socket) return; // something else has begun
    const { ends, why } = explain(answer, this.#token !== null, this.#refused);
    this.#refused = answer?.kind === "hub" && answer.status < 300;
    if (ends === "locked") this.#lock(why);
    else if (ends === "closed") this.#end(why);
    else this.#wait(why);
  }

  // Without another token there is no way on.
  #lock(why) {
    this.#socket = null;
    this.#token = null;
    this.#rest();
    this.#options.tokenLost?.();
    this.#set({ kind: "locked", why });
    this.#options.outboxChanged?.();
  }

  // What was sent and has no answer is to be sent again.
  #rest() {
    for (const item of this.outbox) {
      if (item.state !== "sent") continue;
      item.state = "waiting";
      item.shown = false;
    }
  }

  // Forget the socket; whatever it still has to say is not for us.
  #drop() {
    this.#silence(this.#socket);
    this.#socket = null;
  }

  #silence(socket) {
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #lost(code, reason) {
    if (code === 1008 && reason === EXPIRED) {
      this.#lock("The token has expired.");
      return;
    }
    this.#socket = null;
    if (code === 1009) {
      const culprit = this.outbox.find((item) => item.state === "sent");
      if (culprit) this.#fail(culprit, "too big for this hub");
    }
    if (code === 1008) this.#session = null; // whoever has it now keeps it
    const final = FINAL.get(code) ?? (code >= 3000 ? FINAL.get(1000) : undefined);
    if (final) this.#end(reason ? `${final} It says: ${reason}` : final);
    else this.#wait();
  }

  // Only the user may begin again.
  #end(why) {
    this.#socket = null;
    this.#rest();
    this.#set({ kind: "closed", why });
    this.#options.outboxChanged?.();
  }

  // Try again in a while.
  #wait(why) {
    this.#socket = null;
    this.#rest();
    if (this.#welcomed && performance.now() - this.#welcomed > STEADY_MS) this.#attempts = 0;
    const most = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#attempts);
    const wait = most * (0.5 + Math.random() / 2); // not all pages at once
    this.#attempts += 1;
    this.#timer = setTimeout(() => this.#open(), wait);
    this.#set({ kind: "waiting", until: Date.now() + wait, why });
    this.#options.outboxChanged?.();
  }

  // A connection can die without a word, and scripts do not see the pings of the hub: ask for an
  // answer when nothing was heard for a while, and give it up when an answer is overdue.
  #watch() {
    const now = performance.now();
    const open = this.state.kind === "open";
    if (open && !this.#owed && now - this.#heard > this.#patience) this.askWho();
    if (this.state.kind === "connecting" && now - this.#began > CONNECT_MS) {
      this.#silence(this.#socket);
      this.#learnWhy(this.#socket, ASK_MS);
    } else if (open && this.#owed && now - this.#owed > SILENT_MS) {
      this.#drop();
      this.#lost(1006, "");
    }
  }

  #receive(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    this.#heard = performance.now();
    if (this.#owed) this.#owed = this.#heard; // it lives
    switch (event?.type) {
      case "welcome":
        this.#welcome(event);
        return;
      case "message":
        if (!this.#note(event)) return;
        break;
      case "gap":
        this.#last = event.after;
        break;
      case "session":
        this.#session = event.session;
        return;
      case "ack":
        this.#acknowledge(event);
        return;
      case "error":
        if (this.#takeError(event)) return;
        break;
      case "members":
        if (!this.#inFlight()) this.#owed = 0;
        break;
      case "rename":
        if (event.member.id === this.id) this.#name = event.member.name;
        break;
    }
    this.#options.event(event);
  }

  #welcome(event) {
    this.id = event.id;
    this.limits = event.limits;
    this.rights = event.rights ?? this.rights;
    if (!this.rights.rename) this.#name = event.name;
    this.#session = event.session;
    this.#last = event.after;
    this.#welcomed = performance.now();
    this.#refused = false;
    this.#set({ kind: "open" });
    this.#options.event(event);
    if (event.name !== this.#name) this.setName(this.#name);
    this.#flush();
  }

  // Take note of a message; false if it was here before.
  #note(event) {
    if (event.id !== null) {
      if (this.#seen.has(event.id)) return false;
      this.#seen.add(event.id);
      if (this.#seen.size > SEEN_IDS) this.#seen.delete(this.#seen.values().next().value);
      this.#last = event.id;
    }
    if (event.from && event.from.id === this.id) {
      // Hide its twin in the outbox at once: the ack may be a moment behind.
      const twin = this.outbox.find(
        (item) => item.state === "sent" && !item.shown && item.data === event.data,
      );
      if (twin) twin.shown = true;
      this.#options.outboxChanged?.();
    }
    return true;
  }

  #acknowledge({ ref, id }) {
    const item = this.outbox.find((other) => other.ref === ref);
    if (!item) return;
    this.discard(item);
    if (!this.#inFlight()) this.#owed = 0;
    if (this.#seen.has(id)) return;
    // It was accepted before the connection was lost, and fell into a gap. Others have it.
    const from = { id: this.id, name: this.#name };
    const time = new Date(item.time).toISOString();
    this.#seen.add(id);
    this.#options.event({ type: "message", id, time, from, data: item.data });
  }

  #takeError({ ref, detail }) {
    const item = this.outbox.find((other) => other.ref === ref);
    if (!item) return false;
    this.#fail(item, detail);
    if (!this.#inFlight()) this.#owed = 0;
    this.#options.outboxChanged?.();
    return true;
  }

  #fail(item, why) {
    Object.assign(item, { state: "failed", why, shown: false });
  }

  #inFlight() {
    return this.outbox.some((item) => item.state === "sent");
  }

  #flush() {
    for (const item of this.outbox) {
      if (item.state !== "waiting") continue;
      if (item.tried && Date.now() - item.tried > KEY_MS) {
        this.#fail(item, "it may have been sent before the connection was lost");
        continue;
      }
      if (this.state.kind !== "open") continue;
      item.tried ||= Date.now();
      item.state = "sent";
      this.#ask({ type: "send", data: item.data, ref: item.ref, key: item.key });
    }
    this.#options.outboxChanged?.();
  }

  // Send a frame that will be answered.
  #ask(frame) {
    this.#owed ||= performance.now();
    this.#put(frame);
  }

  #put(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #set(state) {
    this.state = state;
    this.#options.changed();
  }
}

// The token is ASCII.
function base64url(token) {
  return btoa(token).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// crypto.randomUUID() exists in secure contexts only, and http:// to another machine is none.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
