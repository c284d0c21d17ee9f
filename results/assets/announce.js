// The race for those who listen: the leader and the total, now and then instead of with every vote.

import { formatCount, plural } from "./format.js";

const PAUSE_MS = 10_000;

export function announcer(region) {
  let saidAt = -Infinity;
  let waiting = 0;
  let newest = null;

  function say() {
    waiting = 0;
    const text = sentence(newest);
    if (text === region.textContent) return;
    region.textContent = text;
    saidAt = Date.now();
  }

  return {
    lead(tally) {
      if (tally.bands.length === 0) return;
      newest = tally;
      waiting ||= setTimeout(say, Math.max(0, saidAt + PAUSE_MS - Date.now()));
    },
    clear() {
      clearTimeout(waiting);
      waiting = 0;
      saidAt = -Infinity;
      region.textContent = "";
    },
  };
}

function sentence({ bands, total }) {
  const [first, second] = bands;
  const of = `of ${plural(total, "vote", "votes")}`;
  return second?.votes === first.votes
    ? `${first.name} and ${second.name} are level with ${formatCount(first.votes)} each, ${of}.`
    : `${first.name} leads with ${formatCount(first.votes)} ${of}.`;
}
