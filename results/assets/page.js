// The live page. This file selects the contest, and passes the data to the parts of the page.
//
// The path of a tally: stream.js receives the tally, and the next animation frame passes the newest tally to totals.js,
// bars.js, producers.js and announce.js. Votes per second have a path of their own, from rates.js to chart.js.

import { announcer } from "./announce.js";
import { standings } from "./bars.js";
import { rateChart } from "./chart.js";
import { connectionBadge } from "./connection.js";
import { contestInUrl, contestTitle, contestUrl, listContests, offerContests } from "./contests.js";
import { producerSplit } from "./producers.js";
import { followRates } from "./rates.js";
import { followTally } from "./stream.js";
import { totals } from "./totals.js";

const $ = (id) => document.getElementById(id);

const bars = standings($("standings"));
const producers = producerSplit($("split"), $("producers"));
const chart = rateChart($("rate"));
const figures = totals($("totals"), $("recount"));
const badge = connectionBadge($("connection"));
const announce = announcer($("announcement"));

/** The parts of the page that are hidden while a problem is shown. */
const PARTS = ["connection", "totals", "stage", "source"];

let shownContest = null;
let stop = () => {};

/** Shows a contest instead of the current one. */
function show(contest) {
  // The skip link changes the URL too, but not the contest.
  if (contest === shownContest) return;
  shownContest = contest;
  stop();
  document.title = `${contestTitle(contest)} – Ovation`;
  $("title").textContent = contestTitle(contest);
  $("tally-link").href = `v1/contests/${encodeURIComponent(contest)}/tally`;
  for (const part of PARTS) $(part).hidden = false;
  $("problem").hidden = true;
  for (const part of [bars, producers, chart, figures]) part.clear();
  announce.clear();

  const rates = followRates(contest, (rate) => {
    chart.show(rate);
    figures.showPace(rate);
  });
  const drawing = newestPerFrame((tally) => {
    bars.show(tally);
    producers.show(tally);
    figures.showTally(tally);
    announce.show(tally);
  });
  const stream = followTally(contest, {
    onTally: drawing.offer,
    onState(state) {
      badge.show(state);
      document.body.classList.toggle("stale", state !== "live" && state !== "connecting");
      // While the stream is interrupted, no rates are requested either.
      if (state === "live") {
        rates.resume();
      } else {
        rates.pause();
        figures.showPace({ newest: null });
      }
    },
    onRefused: showProblem,
  });

  stop = () => {
    stream.close();
    rates.close();
    drawing.cancel();
  };
}

/** Shows why the server refused the contest, and links to the contests that exist. */
async function showProblem({ title, detail }) {
  stop();
  for (const part of PARTS) $(part).hidden = true;
  $("problem-title").textContent = title;
  $("problem-detail").textContent = detail ?? "";
  $("problem-contests").replaceChildren();
  $("problem").hidden = false;
  const contests = await listContests();
  if (contests.length === 0) return;
  const links = contests.map((contest) => {
    const link = document.createElement("a");
    link.href = contestUrl(contest);
    link.textContent = contestTitle(contest);
    return link;
  });
  $("problem-contests").replaceChildren("Watch instead: ", ...links.flatMap((link, i) => (i ? [", ", link] : [link])));
}

/** Draws only the newest tally in each frame, because tallies may arrive faster than frames. */
function newestPerFrame(draw) {
  let newest = null;
  let frame = 0;
  return {
    offer(tally) {
      newest = tally;
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw(newest);
      });
    },
    cancel: () => cancelAnimationFrame(frame),
  };
}

offerContests($("contests"), (contest) => {
  history.pushState(null, "", contestUrl(contest));
  show(contest);
});
addEventListener("popstate", () => show(contestInUrl()));
show(contestInUrl());
