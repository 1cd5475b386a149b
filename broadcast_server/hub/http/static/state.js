// The state of the connection in words, and the dot beside them.

const WORDS = {
  connecting: "Connecting",
  open: "Connected",
  waiting: "Reconnecting",
  closed: "Closed",
  locked: "Token needed",
};

export function showState(state) {
  document.getElementById("state").dataset.kind = state.kind;
  const text = document.getElementById("state-text");
  text.textContent = WORDS[state.kind];
  text.title = state.why ?? "";
}

export function secondsLeft(state) {
  return Math.max(1, Math.ceil((state.until - Date.now()) / 1000));
}

// Take up a connection that waits, as soon as it may work again.
export function wakeWithPage(link) {
  addEventListener("online", () => link.wake());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) link.wake();
  });
}
