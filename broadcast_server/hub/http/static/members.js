// Who is here. The hub tells who comes and goes while there are at most a hundred; above that it
// tells how many there are, and so do we.

import { author, make, number, show } from "./text.js";

const MOST = 100;

export class Members {
  #known = new Map(); // id -> name, oldest first
  #count = 0;
  #asked = false;
  #changed = true; // since it was drawn
  #own = null;
  #askWho;
  #toggle = document.getElementById("toggle");
  #panel = document.getElementById("members");

  constructor(askWho) {
    this.#askWho = askWho;
    this.#toggle.addEventListener("click", () => this.#open(!this.#isOpen()));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#isOpen()) return;
      this.#open(false);
      this.#toggle.focus();
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!this.#panel.contains(target) && !this.#toggle.contains(target)) this.#open(false);
    });
  }

  // Take in a welcome or one of the events of presence; others change nothing.
  take(event) {
    const { type, member } = event;
    if (event.count === undefined) return;
    this.#count = event.count;
    this.#changed = true;
    if (type === "welcome") this.#own = event.id;
    if (event.members) {
      this.#asked = false;
      this.#known = new Map(event.members.map(({ id, name }) => [id, name]));
      return;
    }
    if (type === "leave") this.#known.delete(member.id);
    if (type === "join") this.#known.set(member.id, member.name);
    if (type === "rename" && this.#known.has(member.id)) this.#known.set(member.id, member.name);
    // Below the limit again: what happened above it was not told.
    if (this.#count <= MOST && this.#known.size !== this.#count && !this.#asked) {
      this.#asked = true;
      this.#askWho();
    }
  }

  draw() {
    if (!this.#changed) return;
    this.#changed = false;
    document.getElementById("count").textContent = number(this.#count);
    document.getElementById("toggle-count").textContent = number(this.#count);
    const crowd = this.#count > MOST;
    document.getElementById("crowd").hidden = !crowd;
    const items = crowd ? [] : [...this.#known].map(([id, name]) => this.#item(id, name));
    document.getElementById("member-list").replaceChildren(...items);
  }

  #item(id, name) {
    const { label, className, title } = author({ id, name });
    const item = make("li");
    const who = make("bdi", className);
    show(who, label);
    who.title = title;
    item.append(who);
    if (id === this.#own) item.append(make("span", "you", " (you)"));
    return item;
  }

  #isOpen() {
    return this.#toggle.ariaExpanded === "true";
  }

  #open(open) {
    this.#toggle.ariaExpanded = String(open);
    this.#panel.classList.toggle("open", open);
  }
}
