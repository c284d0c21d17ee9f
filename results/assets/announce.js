// Announces the leader and the total to screen readers. There is a pause between two announcements.

import { formatCount, plural } from "./format.js";

/** The shortest time between two announcements. */
const MIN_INTERVAL_MS = 10_000;

export function announcer(region) {
  let announcedAt = -Infinity;
  let timer = 0;
  let newest = null;

  function announce() {
    timer = 0;
    const text = sentence(newest);
    if (text === region.textContent) return;
    region.textContent = text;
    announcedAt = Date.now();
  }

  return {
    show(tally) {
      if (tally.bands.length === 0) return;
      newest = tally;
      timer ||= setTimeout(announce, Math.max(0, announcedAt + MIN_INTERVAL_MS - Date.now()));
    },
    clear() {
      clearTimeout(timer);
      timer = 0;
      announcedAt = -Infinity;
      region.textContent = "";
    },
  };
}

function sentence({ bands, total }) {
  const [first, second] = bands;
  const ofTotal = `of ${plural(total, "vote", "votes")}`;
  return second?.votes === first.votes
    ? `${first.name} and ${second.name} are tied with ${formatCount(first.votes)} each, ${ofTotal}.`
    : `${first.name} leads with ${formatCount(first.votes)} ${ofTotal}.`;
}
