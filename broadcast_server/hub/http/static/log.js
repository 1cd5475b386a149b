// What has been said, line by line: the newest below, at most a thousand lines. New lines are put in
// once per frame of the screen, however many arrive. The view goes along with them if the reader is
// at the end; else it stays where it is, and a button tells how many are new.

import { author, binaryNotice, clip, day, make, number, show, timeElement } from "./text.js";

const MAX_LINES = 1000;
const MAX_CHARACTERS = 4_000_000; // of all lines together
const GROUP_MS = 5 * 60_000; // a name is not repeated within this time
const NEAR_PX = 40; // as close to the end as this is at the end

export class Log {
  #scroller = document.getElementById("scroller");
  #log = document.getElementById("log");
  #newer = document.getElementById("newer");
  #queue = []; // what the next frame puts in: messages and notes
  #costs = []; // the characters of each line that is there
  #characters = 0;
  #previous = null; // {who, date} of the line above, if that is a message
  #lastDate = null; // of the last message, whatever came between
  #atEnd = true;
  #unseen = 0;
  #frame = 0;
  #afterwards;

  // afterwards: called in each frame in which something was put in or asked for.
  constructor(afterwards) {
    this.#afterwards = afterwards;
    this.#scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    this.#newer.addEventListener("click", () => {
      this.toEnd();
      this.#scroller.focus({ preventScroll: true });
    });
    new ResizeObserver(() => this.#stay()).observe(this.#scroller);
  }

  // While the history comes in nothing is read aloud.
  set busy(value) {
    this.#log.ariaBusy = String(value);
  }

  message(event, own) {
    this.#add({ event, own });
  }

  note(text) {
    this.#add({ note: text });
  }

  // Have the page drawn anew in the next frame.
  refresh() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  toEnd() {
    this.#atEnd = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#count(0);
  }

  #add(entry) {
    this.#queue.push(entry);
    // Frames stand still while the tab is hidden.
    if (this.#queue.length > 2 * MAX_LINES) this.#queue.splice(0, MAX_LINES);
    this.refresh();
  }

  #draw() {
    this.#frame = 0;
    const entries = this.#queue.splice(0);
    const fragment = new DocumentFragment();
    for (const entry of entries) {
      if (entry.note) this.#put(fragment, make("p", "note", entry.note), entry.note.length);
      else this.#putMessage(fragment, entry);
    }
    this.#log.append(fragment);
    this.#afterwards();
    this.#trim();
    if (!this.#atEnd) this.#count(this.#unseen + entries.length);
    this.#stay();
  }

  #put(fragment, line, cost) {
    fragment.append(line);
    this.#costs.push(cost);
    this.#characters += cost;
    if (!line.classList.contains("said")) this.#previous = null;
  }

  #putMessage(fragment, { event, own }) {
    const date = new Date(event.time);
    const before = this.#lastDate;
    if (before ? day(before) !== day(date) : day(date) !== day(new Date())) {
      this.#put(fragment, make("p", "day", day(date)), 0);
    }
    this.#lastDate = date;
    const from = author(event.from);
    const who = `${event.from?.id}\n${from.label}`;
    const same = this.#previous?.who === who && date - this.#previous.date < GROUP_MS;
    const line = make("div", own ? "said own" : "said");
    if (same) line.classList.add("same");

    const name = make("bdi", from.className);
    show(name, from.label);
    name.title = from.title;
    const head = make("p", "head");
    head.append(name);
    if (own) head.append(make("span", "you", " (you)"));

    line.append(head, body(event), timeElement(date));
    this.#put(fragment, line, event.data?.length ?? 0);
    this.#previous = { who, date };
  }

  #trim() {
    const lines = this.#log.children;
    const before = this.#atEnd ? 0 : this.#scroller.scrollHeight;
    let gone = 0;
    while (this.#costs.length > MAX_LINES || (this.#characters > MAX_CHARACTERS && lines.length > 1)) {
      this.#characters -= this.#costs.shift();
      lines[0].remove();
      gone += 1;
    }
    if (!gone) return;
    lines[0].classList.remove("same");
    if (!this.#atEnd) this.#scroller.scrollTop -= before - this.#scroller.scrollHeight;
  }

  #stay() {
    if (this.#atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    if (this.#atEnd) this.#count(0);
  }

  #count(unseen) {
    this.#unseen = unseen;
    this.#newer.hidden = unseen === 0;
    if (unseen) {
      this.#newer.textContent = unseen === 1 ? "1 new message" : `${number(unseen)} new messages`;
    }
  }
}

function body(event) {
  if (event.data_base64 !== undefined) return make("p", "body binary", binaryNotice(event.data_base64));
  const text = make("div", "body");
  text.dir = "auto";
  const start = clip(event.data);
  if (start === null) {
    show(text, event.data);
    return text;
  }
  const part = make("span");
  show(part, start);
  const more = make("button", "more", `Show all ${number(event.data.length)} characters`);
  more.type = "button";
  more.addEventListener("click", () => show(text, event.data), { once: true });
  text.append(part, "… ", more);
  return text;
}
