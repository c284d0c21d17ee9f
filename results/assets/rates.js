// Votes per second of the last minutes, asked for once a second while somebody looks.

import { serverClock } from "./clock.js";

const SECOND = 1_000;
/** The longest range the chart offers, and the most the server gives. */
const KEPT_S = 900;
/** Votes of a second are counted a moment after it ended; a second is complete after so long. */
const SETTLE_MS = 350;
/** How far back each request looks again, for votes that were counted late; */
const OVERLAP_S = 20;
/** and every so many requests everything is asked for again, for those that were counted very late. */
const REFRESH = 30;

/**
 * Calls `onRate` about every second. Starts paused.
 * `end` is the Unix second after the newest complete one, `newest` its votes (null if not yet known), and
 * `votesAt(second)` the votes of any second up to 15 minutes before.
 */
export function followRates(contest, onRate) {
  const clock = serverClock();
  const votes = new Map();
  let knownUntil = 0;
  let asked = 0;
  let timer = 0;
  let paused = true;
  let closed = false;

  const endOfComplete = () => Math.floor((clock.now() - SETTLE_MS) / SECOND);

  async function ask() {
    timer = 0;
    try {
      const missing = Math.ceil(clock.now() / SECOND) - knownUntil;
      const last = asked++ % REFRESH === 0 ? KEPT_S : Math.min(KEPT_S, missing + OVERLAP_S);
      const query = new URLSearchParams({ every: "1s", last: `${last}s`, contest });
      const answer = await clock.time(() => fetch(`v1/rates?${query}`, { signal: AbortSignal.timeout(5_000), cache: "no-store" }));
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const windows = await answer.json();
      if (closed) return;
      for (const { start, votes: n } of windows) votes.set(start / SECOND, n);
      knownUntil = endOfComplete();
      for (const second of votes.keys()) if (second < knownUntil - KEPT_S) votes.delete(second);
      const end = knownUntil;
      onRate({ end, newest: votes.get(end - 1) ?? 0, votesAt: (second) => votes.get(second) ?? 0 });
    } catch {
      // The stream says when the server is gone; here the next second tries again.
    }
    schedule();
  }

  // Just after a second became complete, so that the page shows it as early as it can.
  function schedule() {
    if (paused || closed || document.hidden || timer) return;
    const sinceComplete = (clock.now() - SETTLE_MS) % SECOND;
    timer = setTimeout(ask, SECOND - sinceComplete + 20);
  }

  function stop() {
    clearTimeout(timer);
    timer = 0;
  }

  document.addEventListener("visibilitychange", schedule);
  return {
    resume() {
      if (!paused) return;
      paused = false;
      ask();
    },
    pause() {
      paused = true;
      stop();
    },
    close() {
      closed = true;
      stop();
      document.removeEventListener("visibilitychange", schedule);
    },
  };
}
