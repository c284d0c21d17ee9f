// The four figures beside the title.

import { formatCount } from "./format.js";

const UNKNOWN = "–";

export function totals(list) {
  const figures = Object.fromEntries(["counted", "pace", "accepted", "behind"].map((id) => [id, list.querySelector(`#${id}`)]));
  return {
    showTally({ total, accepted, processed }) {
      figures.counted.textContent = formatCount(total);
      figures.accepted.textContent = formatCount(accepted);
      figures.behind.textContent = formatCount(Math.max(0, accepted - processed));
    },
    showPace({ newest }) {
      figures.pace.textContent = newest === null ? UNKNOWN : formatCount(newest);
    },
    clear() {
      for (const figure of Object.values(figures)) figure.textContent = UNKNOWN;
    },
  };
}
