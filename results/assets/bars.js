// The standings: one row per band, most votes first. Bars grow, and rows move when bands overtake one another.

import { formatCompact } from "./format.js";
import { bandRow, othersRow } from "./row.js";
import { ceiling } from "./scale.js";

/** The number of bands that are shown until the reader expands the list. */
const TOP = 20;
/** The lowest end of the scale of the bars, in votes. */
const MIN_SCALE = 10;
const MOVE_ANIMATION = { duration: 500, easing: "cubic-bezier(.2, .8, .2, 1)" };

const prefersReducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export function standings(section) {
  const [list, others, more, empty, scale] = ["rows", "others", "more", "empty", "scale"].map((id) => section.querySelector(`#${id}`));
  const otherBands = othersRow(others);
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

    const end = ceiling(bands[0]?.votes ?? 0, MIN_SCALE);
    scale.hidden = bands.length === 0;
    scale.replaceChildren(...[0, end / 2, end].map(tick));

    const ordered = shown.map(({ name }) => rows.get(name) ?? bandRow(name));
    const previous = rows;
    rows = new Map(ordered.map((row) => [row.name, row]));
    arrange(list, ordered, previous);
    let rank = 0;
    shown.forEach(({ votes, share }, i) => {
      // Bands with equal votes have the same rank: 1, 2, 2, 4.
      if (i === 0 || votes !== shown[i - 1].votes) rank = i + 1;
      ordered[i].show(rank, votes, share, votes / end);
    });

    drawOthers(shown);
    more.hidden = bands.length <= TOP;
    const everyListed = tally.others.bands ? `the top ${bands.length}` : `all ${bands.length} bands`;
    more.textContent = `Show ${isExpanded ? `the top ${TOP}` : everyListed}`;
    more.setAttribute("aria-expanded", String(isExpanded));
  }

  function drawOthers(shown) {
    const count = tally.bands.length - shown.length + tally.others.bands;
    others.hidden = count === 0;
    const votes = tally.total - shown.reduce((sum, band) => sum + band.votes, 0);
    otherBands.show(count, votes, tally.total ? votes / tally.total : 0);
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

/** Puts the rows in order. Each row that moves glides from its previous position (the FLIP technique). */
function arrange(list, ordered, previous) {
  const isInOrder = ordered.length === list.children.length && ordered.every((row, i) => row.item === list.children[i]);
  if (isInOrder) return;
  const isWithoutAnimation = prefersReducedMotion.matches || document.hidden;
  const origin = list.getBoundingClientRect().top;
  const oldTops = new Map();
  if (!isWithoutAnimation) for (const row of previous.values()) oldTops.set(row, row.item.getBoundingClientRect().top - origin);

  ordered.forEach(({ item }, i) => {
    const current = list.children[i];
    if (current !== item) moveBefore(list, item, current ?? null);
  });
  while (list.children.length > ordered.length) list.lastElementChild.remove();

  if (!isWithoutAnimation) for (const [row, top] of ordered.map((row) => [row, row.item.offsetTop])) glide(row, oldTops.get(row), top);
}

/** Moves a row from its old offset in the list to the new offset. A row that already moves there is not changed. */
function glide(row, from, to) {
  if (from === undefined) {
    row.item.animate([{ opacity: 0 }, { opacity: 1 }], MOVE_ANIMATION);
  } else if (row.top !== to) {
    row.motion?.cancel();
    // A row that moves up passes in front of the others.
    row.item.classList.toggle("climbing", from > to);
    row.motion = row.item.animate([{ transform: `translateY(${from - to}px)` }, { transform: "none" }], MOVE_ANIMATION);
    row.motion.onfinish = () => row.item.classList.remove("climbing");
  }
  row.top = to;
}

/** Moves an item. If the browser has `moveBefore`, the transition of the bar is not interrupted. */
function moveBefore(list, item, next) {
  if (list.moveBefore && item.parentNode === list) list.moveBefore(item, next);
  else list.insertBefore(item, next);
}

function tick(votes) {
  const span = document.createElement("span");
  span.textContent = formatCompact(votes);
  return span;
}

function example(contest) {
  const vote = contest === "bands" ? { name: "Pink Floyd" } : { contest, name: "Pink Floyd" };
  return [
    `curl http://${location.hostname}:8000/v1/votes \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d '${JSON.stringify(vote)}'`,
  ].join("\n");
}
