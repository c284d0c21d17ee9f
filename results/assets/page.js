// The live page: which contest is shown, and who draws what.
//
// A tally's way: stream.js receives it -> the next animation frame draws the newest one -> totals.js, bars.js,
// doors.js and announce.js each show their part. Votes per second come apart from it, from rates.js to chart.js.

import { announcer } from "./announce.js";
import { barRace } from "./bars.js";
import { rateChart } from "./chart.js";
import { connectionBadge } from "./connection.js";
import { contestInUrl, contestTitle, contestUrl, listContests, offerContests } from "./contests.js";
import { doorSplit } from "./doors.js";
import { followRates } from "./rates.js";
import { followTally } from "./stream.js";
import { totals } from "./totals.js";

const $ = (id) => document.getElementById(id);

const race = barRace($("race"));
const doors = doorSplit($("split"), $("doors"));
const chart = rateChart($("rate"));
const figures = totals($("totals"));
const badge = connectionBadge($("connection"));
const announce = announcer($("announcement"));

/** What a contest has, and a problem has not. */
const PARTS = ["connection", "totals", "stage", "source"];

let shown = null;
let leave = () => {};

/** Shows a contest until another is to be shown. */
function show(contest) {
  // The skip link changes the address too, but not the contest.
  if (contest === shown) return;
  shown = contest;
  leave();
  document.title = `${contestTitle(contest)} – Ovation`;
  $("title").textContent = contestTitle(contest);
  $("tally-link").href = `v1/contests/${encodeURIComponent(contest)}/tally`;
  for (const part of PARTS) $(part).hidden = false;
  $("problem").hidden = true;
  for (const part of [race, doors, chart, figures]) part.clear();
  announce.clear();

  const rates = followRates(contest, (rate) => {
    chart.show(rate);
    figures.showPace(rate);
  });
  const drawing = newestPerFrame((tally) => {
    race.show(tally);
    doors.show(tally);
    figures.showTally(tally);
    announce.lead(tally);
  });
  const stream = followTally(contest, {
    onTally: drawing.offer,
    onState(state) {
      badge.show(state);
      document.body.classList.toggle("stale", state !== "live" && state !== "connecting");
      // A server that does not answer the stream is not asked for rates each second as well.
      if (state === "live") {
        rates.resume();
      } else {
        rates.pause();
        figures.showPace({ newest: null });
      }
    },
    onRefused: showProblem,
  });

  leave = () => {
    stream.close();
    rates.close();
    drawing.cancel();
  };
}

/** What the server says is wrong with the contest asked for, and which ones there are. */
async function showProblem({ title, detail }) {
  leave();
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

/** Streams can outrun the screen: each frame draws only the newest tally. */
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
