// The four figures next to the title, and the notice while votes are counted again.

import { formatCount } from "./format.js";

const UNKNOWN = "–";

/** Says that the counts are too low, and how far the recount is. */
function recountText(processed, accepted) {
  const share = accepted > 0 ? Math.floor((100 * processed) / accepted) : 0;
  return `The tallies lost data. The votes are being counted again: ${Math.min(99, share)} % done. Until then, all counts are too low.`;
}

export function totals(list, recount) {
  const figures = Object.fromEntries(["counted", "pace", "accepted", "behind"].map((id) => [id, list.querySelector(`#${id}`)]));
  return {
    showTally({ total, accepted, processed, recounting }) {
      figures.counted.textContent = formatCount(total);
      figures.accepted.textContent = formatCount(accepted);
      figures.behind.textContent = formatCount(Math.max(0, accepted - processed));
      recount.hidden = !recounting;
      if (recounting) recount.textContent = recountText(processed, accepted);
    },
    showPace({ newest }) {
      figures.pace.textContent = newest === null ? UNKNOWN : formatCount(newest);
    },
    clear() {
      for (const figure of Object.values(figures)) figure.textContent = UNKNOWN;
      recount.hidden = true;
    },
  };
}
