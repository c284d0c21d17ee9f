// One line of the race: rank, name, bar, votes and share.

import { formatCount, formatShare, plural } from "./format.js";

/** Hues that stay apart at equal lightness; a band keeps its own, so that the eye can follow it up and down. */
const HUES = [288, 245, 205, 175, 150, 80, 60, 35, 15, 350, 320];

/** The row of a band. `top` and `motion` are the race's: where it is, in px, and its animation. */
export function bandRow(name) {
  const item = document.createElement("li");
  item.className = "row";
  const rank = part("rank");
  const band = part("name");
  const bar = part("bar");
  const fill = part("fill");
  const count = part("count");
  const unit = part("unseen");
  const share = part("share");
  // The name decides its own direction, and is text whatever it looks like.
  band.dir = "auto";
  band.textContent = band.title = name;
  bar.setAttribute("aria-hidden", "true");
  bar.append(fill);
  item.append(rank, " ", band, " ", bar, count, unit, share);
  item.style.setProperty("--hue", hue(name));
  return {
    name,
    item,
    top: 0,
    motion: null,
    show(place, votes, fraction, filled) {
      setText(rank, formatCount(place));
      setText(count, formatCount(votes));
      setText(unit, votes === 1 ? " vote, " : " votes, ");
      setText(share, formatShare(fraction));
      fill.style.setProperty("--filled", `${(100 * filled).toFixed(2)}%`);
    },
  };
}

/** Fills the row that sums up all bands without one of their own. */
export function othersRow(row) {
  const name = part("name");
  const count = part("count");
  const unit = part("unseen");
  const share = part("share");
  row.append(part("rank"), name, " ", count, unit, share);
  return {
    show(bands, votes, fraction) {
      setText(name, plural(bands, "other band", "other bands"));
      setText(count, formatCount(votes));
      setText(unit, votes === 1 ? " vote, " : " votes, ");
      setText(share, formatShare(fraction));
    },
  };
}

function part(className) {
  const span = document.createElement("span");
  span.className = className;
  return span;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same hue for the same name on every screen. */
function hue(name) {
  let hash = 0x811c9dc5; // FNV-1a
  for (const unit of name) hash = Math.imul(hash ^ unit.codePointAt(0), 0x01000193) >>> 0;
  return HUES[hash % HUES.length];
}
