// Votes per second of the last minutes. They are requested once a second while the page is visible.

import { serverClock } from "./clock.js";

const SECOND = 1_000;
/** The longest range of the chart. */
const RANGE_S = 900;
/** A second is complete this long after its end, because votes are counted shortly after they are accepted. */
const SETTLE_MS = 350;
/** The number of seconds that each request reads again, because some votes are counted late. */
const OVERLAP_S = 20;
/** After this number of requests, the whole range is read again, because some votes are counted very late. */
const REQUESTS_PER_REFRESH = 30;

/**
 * Calls `onRate` about once a second after the first call of `resume`. The rate has `end`, the Unix second after the
 * newest complete second; `newest`, the number of votes in the newest complete second; and `votesAt(second)`, the
 * number of votes in any second of the 15 minutes before `end`.
 */
export function followRates(contest, onRate) {
  const clock = serverClock();
  const votes = new Map();
  let completeUntil = 0;
  let requests = 0;
  let timer = 0;
  let isPaused = true;
  let isClosed = false;

  const endOfComplete = () => Math.floor((clock.now() - SETTLE_MS) / SECOND);

  async function request() {
    timer = 0;
    try {
      const missing = Math.ceil(clock.now() / SECOND) - completeUntil;
      const last = requests++ % REQUESTS_PER_REFRESH === 0 ? RANGE_S : Math.min(RANGE_S, missing + OVERLAP_S);
      const query = new URLSearchParams({ every: "1s", last: `${last}s`, contest });
      const response = await clock.synchronize(() => fetch(`v1/rates?${query}`, { signal: AbortSignal.timeout(5_000), cache: "no-store" }));
      if (!response.ok) throw new Error(`the server responds with ${response.status}`);
      const windows = await response.json();
      if (isClosed) return;
      for (const { start, votes: n } of windows) votes.set(start / SECOND, n);
      completeUntil = endOfComplete();
      for (const second of votes.keys()) if (second < completeUntil - RANGE_S) votes.delete(second);
      const end = completeUntil;
      onRate({ end, newest: votes.get(end - 1) ?? 0, votesAt: (second) => votes.get(second) ?? 0 });
    } catch {
      // The badge of the stream shows the failure. The next request follows in a second.
    }
    schedule();
  }

  // The request is sent just after a second is complete, because the page should show each second as early as possible.
  function schedule() {
    if (isPaused || isClosed || document.hidden || timer) return;
    const sinceComplete = (clock.now() - SETTLE_MS) % SECOND;
    timer = setTimeout(request, SECOND - sinceComplete + 20);
  }

  function stop() {
    clearTimeout(timer);
    timer = 0;
  }

  document.addEventListener("visibilitychange", schedule);
  return {
    resume() {
      if (!isPaused) return;
      isPaused = false;
      request();
    },
    pause() {
      isPaused = true;
      stop();
    },
    close() {
      isClosed = true;
      stop();
      document.removeEventListener("visibilitychange", schedule);
    },
  };
}
