// One row of the standings: rank, name, bar, votes and share.

import { formatCount, formatShare, plural } from "./format.js";

/** Hues that differ clearly at equal lightness. Readers can follow a band, because a band always has the same hue. */
const HUES = [288, 245, 205, 175, 150, 80, 60, 35, 15, 350, 320];

/** Creates the row of a band. bars.js sets `top`, the offset in the list in px, and `motion`, the current animation. */
export function bandRow(name) {
  const item = document.createElement("li");
  item.className = "row";
  const rank = part("rank");
  const band = part("name");
  const bar = part("bar");
  const fill = part("fill");
  const count = part("count");
  const unitText = part("visually-hidden");
  const share = part("share");
  // The name has its own text direction, and is text even if it looks like markup.
  band.dir = "auto";
  band.textContent = band.title = name;
  bar.setAttribute("aria-hidden", "true");
  bar.append(fill);
  item.append(rank, " ", band, " ", bar, count, unitText, share);
  item.style.setProperty("--hue", hue(name));
  return {
    name,
    item,
    top: 0,
    motion: null,
    show(position, votes, fraction, filled) {
      setText(rank, formatCount(position));
      setText(count, formatCount(votes));
      setText(unitText, votes === 1 ? " vote, " : " votes, ");
      setText(share, formatShare(fraction));
      fill.style.setProperty("--filled", `${(100 * filled).toFixed(2)}%`);
    },
  };
}

/** Creates the contents of the row with the sum of all bands that have no row of their own. */
export function othersRow(row) {
  const name = part("name");
  const count = part("count");
  const unitText = part("visually-hidden");
  const share = part("share");
  row.append(part("rank"), name, " ", count, unitText, share);
  return {
    show(bands, votes, fraction) {
      setText(name, plural(bands, "other band", "other bands"));
      setText(count, formatCount(votes));
      setText(unitText, votes === 1 ? " vote, " : " votes, ");
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

/** Returns the hue of a name, which is the same on every screen. */
function hue(name) {
  let hash = 0x811c9dc5; // FNV-1a
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193) >>> 0;
  return HUES[hash % HUES.length];
}
