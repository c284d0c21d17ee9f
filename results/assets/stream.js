// The stream of tallies of one contest, kept alive through restarts of the server.
//
// EventSource gives up for good after an HTTP error, and browsers differ in how they retry a refused connection, so
// an EventSource here lives only until its first error; the next one is made by `retry`.

/** Without any event for so long the connection is dead, whatever TCP thinks; the server's heartbeat is 5 s. */
const SILENCE_MS = 12_000;
/** Retries start here, double, and stop growing at the cap. */
const FIRST_DELAY_MS = 200;
const DELAY_CAP_MS = 3_000;
/** A connection that lasted so long was a good one: the next retry starts from the first delay again. */
const SETTLED_MS = 5_000;
/** After so long without a server the page says "offline" instead of "reconnecting". It still tries. */
const OFFLINE_MS = 20_000;
const REQUEST_TIMEOUT_MS = 5_000;

/** Asking again for the same would not help: there is no such contest, or the name can't be one. */
const isRefusal = (status) => status >= 400 && status < 500 && status !== 429;

/**
 * Calls `onTally` with each tally, `onState` with "connecting", "live", "reconnecting" or "offline", and, when the
 * server refuses the contest, `onRefused` with its problem details, after which nothing more happens.
 */
export function followTally(contest, { onTally, onState, onRefused }) {
  const url = `v1/contests/${encodeURIComponent(contest)}/tally`;
  let source = null;
  let timer = 0;
  let attempts = 0;
  let openedAt = 0;
  let heardAt = 0;
  let lostAt = Date.now();
  let state = "";
  let closed = false;

  function enter(next) {
    if (next === state) return;
    state = next;
    onState(state);
  }

  function after(delay, step) {
    clearTimeout(timer);
    timer = setTimeout(step, delay);
  }

  // The plain tally is asked for first: unlike EventSource, it shows why a server refuses.
  async function connect() {
    clearTimeout(timer);
    timer = 0;
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), cache: "no-store" });
      if (closed) return;
      if (isRefusal(answer.status)) {
        const problem = await answer.json().catch(() => ({}));
        close();
        onRefused({ title: "This contest can't be shown", ...problem });
        return;
      }
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const tally = await answer.json();
      if (closed) return;
      onTally(tally);
      listen();
    } catch {
      if (!closed) retry();
    }
  }

  function listen() {
    openedAt = heardAt = Date.now();
    source = new EventSource(`${url}/stream`);
    source.addEventListener("tally", ({ data }) => {
      heard();
      enter("live");
      onTally(JSON.parse(data));
    });
    source.addEventListener("heartbeat", heard);
    source.addEventListener("error", lose);
    after(SILENCE_MS, lose);
  }

  function heard() {
    heardAt = Date.now();
    after(SILENCE_MS, lose);
  }

  function lose() {
    source?.close();
    source = null;
    if (state === "live") lostAt = Date.now();
    if (Date.now() - openedAt > SETTLED_MS) attempts = 0;
    retry();
  }

  function retry() {
    const isOffline = !navigator.onLine || Date.now() - lostAt > OFFLINE_MS;
    enter(isOffline ? "offline" : "reconnecting");
    const delay = Math.min(DELAY_CAP_MS, FIRST_DELAY_MS * 2 ** attempts);
    attempts += 1;
    // Jitter, so that a thousand pages do not all come back in the same millisecond.
    after(delay * (0.5 + Math.random() / 2), connect);
  }

  // Timers sleep with the machine and in hidden tabs; whoever comes back should not wait for them.
  function wake() {
    if (document.hidden) return;
    if (source && Date.now() - heardAt > SILENCE_MS) lose();
    else if (!source && timer) connect();
  }

  function close() {
    closed = true;
    clearTimeout(timer);
    source?.close();
    removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", wake);
  }

  addEventListener("online", wake);
  document.addEventListener("visibilitychange", wake);
  enter("connecting");
  connect();
  return { close };
}
