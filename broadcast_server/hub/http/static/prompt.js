// The prompt for a token, where a room wants one. What is typed goes to the hub and into the store
// of this tab (store.js), never into an address.

import { writeToken } from "./store.js";
import { make } from "./text.js";

export class Prompt {
  #link;
  #dialog = make("dialog");
  #why = make("p");
  #field = make("input");

  constructor(link) {
    this.#link = link;
    const title = make("h2", "", "Enter a token");
    title.id = "prompt-title";
    this.#why.id = "prompt-why";
    this.#why.setAttribute("role", "alert");
    const label = make("label", "", "Token");
    label.htmlFor = "token";
    Object.assign(this.#field, { id: "token", type: "password", autocomplete: "off", required: true });
    this.#field.spellcheck = false;
    this.#field.setAttribute("aria-describedby", this.#why.id);
    const enter = make("button", "primary", "Enter");
    const later = make("button", "", "Not now");
    later.type = "button";
    const field = make("div", "field");
    const buttons = make("div", "buttons");
    const form = make("form");
    field.append(label, this.#field);
    buttons.append(enter, later);
    form.append(title, this.#why, field, buttons);
    this.#dialog.id = "prompt";
    this.#dialog.setAttribute("aria-labelledby", title.id);
    this.#dialog.append(form);
    document.body.append(this.#dialog);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#enter();
    });
    later.addEventListener("click", () => this.#close());
    this.#dialog.addEventListener("close", () => {
      this.#field.value = "";
    });
  }

  // Ask for a token, and say why.
  show(why) {
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#why.textContent = why;
    this.#field.focus();
  }

  #enter() {
    const token = this.#field.value.trim();
    if (!/^[!-~]+$/.test(token)) {
      this.show("A token has only visible ASCII characters, and no space.");
      return;
    }
    this.#close();
    writeToken(token);
    this.#link.setToken(token);
  }

  #close() {
    this.#dialog.close();
  }
}

// The token in the page's own address, for whoever was given such a link. It is taken out of the
// address, so that it is neither shown nor bookmarked nor passed on with it.
export function takeTokenFromAddress() {
  const url = new URL(location.href);
  const token = url.searchParams.get("access_token");
  if (token === null) return;
  url.searchParams.delete("access_token");
  history.replaceState(history.state, "", url);
  if (token) writeToken(token);
}
