// Why a connection was refused: the page asks the same over HTTP, and tells the hub, which says what is
// wrong, from a proxy or a login in front of it, and both from nobody at all.

const PROBLEM = "application/problem+json"; // the hub's refusals are of this type
const GOOD = "application/json";

// The answer to a question about the room: {kind, status, wantsToken}; kind is "hub", "other" or
// "redirect". null if there is none.
export async function askOverHttp(token, milliseconds) {
  const signal = AbortSignal.timeout(milliseconds);
  const answer = await ask(token, signal);
  // The token is for the hub; a login in front of it may look for something else in that header.
  const foreign = token !== null && answer?.kind === "other" && answer.status === 401;
  return foreign ? ask(null, signal) : answer;
}

async function ask(token, signal) {
  const headers = { Accept: GOOD };
  if (token) headers.Authorization = `Bearer ${token}`;
  // manual: a redirect leads to a login, which may be at a place where the page may not look.
  const options = { method: "HEAD", headers, cache: "no-store", redirect: "manual", signal };
  try {
    const answer = await fetch(`${location.pathname}?history=0`, options);
    if (answer.type === "opaqueredirect") return { kind: "redirect", status: 0, wantsToken: false };
    const type = answer.headers.get("Content-Type") ?? "";
    const challenge = answer.headers.get("WWW-Authenticate") ?? "";
    const kind = type.startsWith(answer.ok ? GOOD : PROBLEM) ? "hub" : "other";
    return { kind, status: answer.status, wantsToken: challenge.startsWith("Bearer") };
  } catch {
    return null; // no hub, or no network
  }
}

// What follows from an answer: {ends, why}; ends is "locked", "closed" or, to try again, undefined.
export function explain(answer, hasToken, again) {
  if (answer === null) return {};
  const { kind, status, wantsToken } = answer;
  return kind === "hub" ? explainHub(status, wantsToken, hasToken, again) : explainOther(kind, status);
}

function explainHub(status, wantsToken, hasToken, again) {
  if (wantsToken && status === 401) {
    const wrong = "The hub does not take this token: it is wrong, or has expired.";
    return { ends: "locked", why: hasToken ? wrong : "This room wants a token." };
  }
  if (wantsToken && status === 403) {
    const narrow = "This token does not allow to read this room.";
    return { ends: "locked", why: hasToken ? narrow : "The hub does not let you read this room." };
  }
  if (status === 429 || status >= 500) {
    return { why: `The hub lets nobody in at the moment (status ${status}).` };
  }
  if (status >= 400) {
    const why = `The hub refuses this page (status ${status}). Its log says why.`;
    return { ends: "closed", why };
  }
  // Once may be chance: it was not there yet when the first question came.
  if (!again) return {};
  return {
    why:
      "The hub answers, but no WebSocket gets through. The hub may be full, or a proxy may be in the " +
      "way; the log of the hub says more.",
  };
}

function explainOther(kind, status) {
  if (kind === "redirect" || status === 401 || status === 407 || (status >= 200 && status < 300)) {
    return { ends: "closed", why: "You are not logged in any more. Reload the page to log in." };
  }
  if (status === 403) {
    return { ends: "closed", why: "A server in front of the hub does not let you in (status 403)." };
  }
  return { why: `A server in front of the hub answers, but not the hub (status ${status}).` };
}
