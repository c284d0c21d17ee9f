// The stream of tallies of one contest. The stream reconnects after failures and restarts of the server.
//
// An EventSource stops permanently after an HTTP error, and browsers retry refused connections in different ways. So
// this code uses an EventSource only until its first error, and then creates another one.

/** The time without events after which the connection is treated as lost. The server sends a heartbeat every 5 s. */
const IDLE_TIMEOUT_MS = 12_000;
/** The delay of the first retry. The delay doubles with each further retry. */
const FIRST_DELAY_MS = 200;
/** The longest delay of a retry. */
const MAX_DELAY_MS = 3_000;
/** After a connection that lasted this long, retries begin with the first delay again. */
const STABLE_MS = 5_000;
/** The time without a connection after which the page shows "offline" instead of "reconnecting". Retries continue. */
const OFFLINE_MS = 20_000;
const REQUEST_TIMEOUT_MS = 5_000;

/** Returns whether the server refused the contest, because it does not exist. A retry would not help. */
const isRefusal = (status) => status >= 400 && status < 500 && status !== 429;

/**
 * Calls `onTally` with each tally, and `onState` with "connecting", "live", "reconnecting" or "offline". If the server
 * refuses the contest, calls `onRefused` with the problem details and stops.
 */
export function followTally(contest, { onTally, onState, onRefused }) {
  const url = `v1/contests/${encodeURIComponent(contest)}/tally`;
  let source = null;
  let timer = 0;
  let attempts = 0;
  let openedAt = 0;
  let lastEventAt = 0;
  let lostAt = Date.now();
  let state = "";
  let isClosed = false;

  function enter(next) {
    if (next === state) return;
    state = next;
    onState(state);
  }

  function after(delay, step) {
    clearTimeout(timer);
    timer = setTimeout(step, delay);
  }

  // The tally is requested first, because an EventSource does not expose why the server refuses a request.
  async function connect() {
    clearTimeout(timer);
    timer = 0;
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), cache: "no-store" });
      if (isClosed) return;
      if (isRefusal(response.status)) {
        const problem = await response.json().catch(() => ({}));
        close();
        onRefused({ title: "This contest can't be shown", ...problem });
        return;
      }
      if (!response.ok) throw new Error(`the server responds with ${response.status}`);
      const tally = await response.json();
      if (isClosed) return;
      onTally(tally);
      subscribe();
    } catch {
      if (!isClosed) retry();
    }
  }

  function subscribe() {
    openedAt = lastEventAt = Date.now();
    source = new EventSource(`${url}/stream`);
    source.addEventListener("tally", ({ data }) => {
      recordEvent();
      enter("live");
      onTally(JSON.parse(data));
    });
    source.addEventListener("heartbeat", recordEvent);
    source.addEventListener("error", reconnect);
    after(IDLE_TIMEOUT_MS, reconnect);
  }

  function recordEvent() {
    lastEventAt = Date.now();
    after(IDLE_TIMEOUT_MS, reconnect);
  }

  function reconnect() {
    source?.close();
    source = null;
    if (state === "live") lostAt = Date.now();
    if (Date.now() - openedAt > STABLE_MS) attempts = 0;
    retry();
  }

  function retry() {
    const isOffline = !navigator.onLine || Date.now() - lostAt > OFFLINE_MS;
    enter(isOffline ? "offline" : "reconnecting");
    const delay = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempts);
    attempts += 1;
    // The jitter prevents a thousand pages from reconnecting in the same millisecond.
    after(delay * (0.5 + Math.random() / 2), connect);
  }

  // Timers are delayed while the machine sleeps and in hidden tabs, so a page that becomes visible reconnects at once.
  function wake() {
    if (document.hidden) return;
    if (source && Date.now() - lastEventAt > IDLE_TIMEOUT_MS) reconnect();
    else if (!source && timer) connect();
  }

  function close() {
    isClosed = true;
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
