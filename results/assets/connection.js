// The badge that shows whether the numbers are live.

import { formatTime } from "./format.js";

const TEXT = { connecting: "Connecting…", live: "Live", reconnecting: "Reconnecting…", offline: "Offline" };

export function connectionBadge(badge) {
  const text = badge.querySelector("span");
  let lostAt = null;
  return {
    show(state) {
      badge.dataset.state = state;
      if (state === "live") lostAt = null;
      const wasLive = text.textContent === TEXT.live;
      if (wasLive && state !== "live") lostAt = Date.now();
      text.textContent = lostAt ? `${TEXT[state]} counts as of ${formatTime(lostAt)}` : TEXT[state];
    },
  };
}
