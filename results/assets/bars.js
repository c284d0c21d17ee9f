// The race: one row a band, most votes first, bars that grow and rows that overtake.

import { formatCompact, formatCount, formatShare, plural } from "./format.js";
import { ceiling } from "./scale.js";

const TOP = 20;
const LEAST_SCALE = 10;
const OVERTAKE = { duration: 500, easing: "cubic-bezier(.2, .8, .2, 1)" };
/** Hues that stay apart at equal lightness; a band keeps its own, so that the eye can follow it up and down. */
const HUES = [288, 245, 205, 175, 150, 115, 80, 60, 35, 15, 350, 320];

const prefersStillness = matchMedia("(prefers-reduced-motion: reduce)");

export function barRace(section) {
  const [list, others, more, empty, scale] = ["rows", "others", "more", "empty", "scale"].map((id) => section.querySelector(`#${id}`));
  const othersRow = fillOthers(others);
  let rows = new Map();
  let tally = null;
  let isExpanded = false;

  more.addEventListener("click", () => {
    isExpanded = !isExpanded;
    draw();
  });

  function draw() {
    const { bands, total, contest } = tally;
    const shown = isExpanded ? bands : bands.slice(0, TOP);
    empty.hidden = total > 0;
    if (total === 0) section.querySelector("#example").textContent = example(contest);

    const end = ceiling(bands[0]?.votes ?? 0, LEAST_SCALE);
    scale.hidden = bands.length === 0;
    scale.replaceChildren(...[0, end / 2, end].map(tick));

    const wanted = shown.map(({ name }) => rows.get(name) ?? makeRow(name));
    const known = rows;
    rows = new Map(wanted.map((row) => [row.name, row]));
    place(list, wanted, known);
    let rank = 0;
    shown.forEach(({ votes, share }, i) => {
      // Equal votes are an equal rank: 1, 2, 2, 4.
      if (i === 0 || votes !== shown[i - 1].votes) rank = i + 1;
      wanted[i].show(rank, votes, share, votes / end);
    });

    drawOthers(shown);
    more.hidden = bands.length <= TOP;
    more.textContent = isExpanded ? `Show the top ${TOP}` : `Show all ${bands.length} bands`;
    more.setAttribute("aria-expanded", String(isExpanded));
  }

  function drawOthers(shown) {
    const count = tally.bands.length - shown.length + tally.others.bands;
    others.hidden = count === 0;
    const votes = tally.total - shown.reduce((sum, band) => sum + band.votes, 0);
    othersRow.show(count, votes, tally.total ? votes / tally.total : 0);
  }

  return {
    show(newest) {
      tally = newest;
      draw();
    },
    clear() {
      rows = new Map();
      list.replaceChildren();
      others.hidden = more.hidden = empty.hidden = scale.hidden = true;
      isExpanded = false;
    },
  };
}

/** Puts the rows in order, and lets those that moved glide from where they were seen last (FLIP). */
function place(list, wanted, known) {
  const isInOrder = wanted.length === list.children.length && wanted.every((row, i) => row.item === list.children[i]);
  if (isInOrder) return;
  const isStill = prefersStillness.matches || document.hidden;
  const origin = list.getBoundingClientRect().top;
  const before = isStill ? null : new Map([...known.values()].map((row) => [row, row.item.getBoundingClientRect().top - origin]));

  wanted.forEach(({ item }, i) => {
    const here = list.children[i];
    if (here !== item) moveBefore(list, item, here ?? null);
  });
  while (list.children.length > wanted.length) list.lastElementChild.remove();
  if (isStill) return;

  const top = list.offsetTop;
  const moves = wanted.map((row) => [row, before.get(row), row.item.offsetTop - top]);
  for (const [row, from, to] of moves) {
    if (from === undefined) {
      row.item.animate([{ opacity: 0 }, { opacity: 1 }], OVERTAKE);
    } else if (Math.abs(from - to) >= 1) {
      row.glide?.cancel();
      row.glide = row.item.animate([{ transform: `translateY(${from - to}px)` }, { transform: "none" }], OVERTAKE);
      // Who climbs passes in front.
      row.item.classList.toggle("climbing", from > to);
      row.glide.onfinish = () => row.item.classList.remove("climbing");
    }
  }
}

/** `moveBefore`, where the browser has it, keeps the bar's own transition running through the move. */
function moveBefore(list, item, next) {
  if (list.moveBefore && item.parentNode === list) list.moveBefore(item, next);
  else list.insertBefore(item, next);
}

function makeRow(name) {
  const item = document.createElement("li");
  item.className = "row";
  const rank = part("rank");
  const band = part("name");
  const bar = part("bar");
  const fill = part("fill");
  const count = part("count");
  const share = part("share");
  // The name decides its own direction, and is text whatever it looks like.
  band.dir = "auto";
  band.textContent = band.title = name;
  bar.setAttribute("aria-hidden", "true");
  bar.append(fill);
  item.append(rank, " ", band, " ", bar, count, unseen(" votes, "), share);
  item.style.setProperty("--hue", hue(name));
  return {
    name,
    item,
    glide: null,
    show(place, votes, fraction, filled) {
      setText(rank, formatCount(place));
      setText(count, formatCount(votes));
      setText(share, formatShare(fraction));
      fill.style.setProperty("--filled", `${(100 * filled).toFixed(2)}%`);
    },
  };
}

function fillOthers(row) {
  const name = part("name");
  const count = part("count");
  const share = part("share");
  row.append(part("rank"), name, " ", count, unseen(" votes, "), share);
  return {
    show(bands, votes, fraction) {
      setText(name, plural(bands, "other band", "other bands"));
      setText(count, formatCount(votes));
      setText(share, formatShare(fraction));
    },
  };
}

function part(className) {
  const span = document.createElement("span");
  span.className = className;
  return span;
}

function unseen(text) {
  const span = part("unseen");
  span.textContent = text;
  return span;
}

function tick(votes) {
  const span = document.createElement("span");
  span.textContent = formatCompact(votes);
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

function example(contest) {
  const vote = contest === "bands" ? { name: "Pink Floyd" } : { contest, name: "Pink Floyd" };
  return [
    `curl http://${location.hostname}:8000/v1/votes \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d '${JSON.stringify(vote)}'`,
  ].join("\n");
}
