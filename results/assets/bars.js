// The race: one row a band, most votes first, bars that grow and rows that overtake.

import { formatCompact } from "./format.js";
import { bandRow, othersRow } from "./row.js";
import { ceiling } from "./scale.js";

const TOP = 20;
const LEAST_SCALE = 10;
const OVERTAKE = { duration: 500, easing: "cubic-bezier(.2, .8, .2, 1)" };

const prefersStillness = matchMedia("(prefers-reduced-motion: reduce)");

export function barRace(section) {
  const [list, others, more, empty, scale] = ["rows", "others", "more", "empty", "scale"].map((id) => section.querySelector(`#${id}`));
  const rest = othersRow(others);
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

    const wanted = shown.map(({ name }) => rows.get(name) ?? bandRow(name));
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
    const whole = tally.others.bands ? `the top ${bands.length}` : `all ${bands.length} bands`;
    more.textContent = `Show ${isExpanded ? `the top ${TOP}` : whole}`;
    more.setAttribute("aria-expanded", String(isExpanded));
  }

  function drawOthers(shown) {
    const count = tally.bands.length - shown.length + tally.others.bands;
    others.hidden = count === 0;
    const votes = tally.total - shown.reduce((sum, band) => sum + band.votes, 0);
    rest.show(count, votes, tally.total ? votes / tally.total : 0);
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
  const seenAt = new Map();
  if (!isStill) for (const row of known.values()) seenAt.set(row, row.item.getBoundingClientRect().top - origin);

  wanted.forEach(({ item }, i) => {
    const here = list.children[i];
    if (here !== item) moveBefore(list, item, here ?? null);
  });
  while (list.children.length > wanted.length) list.lastElementChild.remove();

  if (!isStill) for (const [row, top] of wanted.map((row) => [row, row.item.offsetTop])) glide(row, seenAt.get(row), top);
}

/** From the offset where the row was seen, in the list, to its place. A row already on its way there is left alone. */
function glide(row, from, to) {
  if (from === undefined) {
    row.item.animate([{ opacity: 0 }, { opacity: 1 }], OVERTAKE);
  } else if (row.top !== to) {
    row.motion?.cancel();
    // Who climbs passes in front.
    row.item.classList.toggle("climbing", from > to);
    row.motion = row.item.animate([{ transform: `translateY(${from - to}px)` }, { transform: "none" }], OVERTAKE);
    row.motion.onfinish = () => row.item.classList.remove("climbing");
  }
  row.top = to;
}

/** `moveBefore`, where the browser has it, keeps the bar's own transition running through the move. */
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
