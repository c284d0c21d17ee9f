// The chart of votes per second.

import { formatCompact, formatCount, formatMinute, formatTime, plural } from "./format.js";
import { ceiling } from "./scale.js";
import uPlot from "./vendor/uplot/uPlot.esm.js";

/** The lowest end of the vertical axis, in votes per second. */
const MIN_SCALE = 10;

export function rateChart(section) {
  const box = section.querySelector("#plot");
  const summary = section.querySelector("#rate-summary");
  const radios = section.querySelectorAll("input[name=range]");
  let rate = null;
  let seconds = Number([...radios].find((radio) => radio.checked).value);
  let pointedIndex = null;

  const plot = new uPlot(options(box, (index) => {
    pointedIndex = index;
    describe();
  }), [[], []], box);
  new ResizeObserver(() => box.clientWidth && plot.setSize(size(box))).observe(box);
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
    matchMedia(query).addEventListener("change", () => plot.redraw(false));
  }
  for (const radio of radios) {
    radio.addEventListener("change", () => {
      seconds = Number(radio.value);
      draw();
    });
  }

  function draw() {
    if (!rate) return;
    const times = Array.from({ length: seconds }, (_, i) => rate.end - seconds + i);
    plot.setData([times, times.map(rate.votesAt)]);
    describe();
  }

  // Describes the chart in words: the second under the pointer or, without a pointer, the whole range.
  function describe() {
    if (!rate) return;
    const [times, votes] = plot.data;
    if (pointedIndex !== null && pointedIndex < times.length) {
      const time = formatTime(times[pointedIndex] * 1_000);
      summary.textContent = `${plural(votes[pointedIndex], "vote", "votes")} at ${time}`;
      return;
    }
    const sum = votes.reduce((a, b) => a + b, 0);
    const range = seconds === 60 ? "last minute" : `last ${seconds / 60} minutes`;
    if (sum === 0) {
      summary.textContent = `No votes in the ${range}.`;
      return;
    }
    const peak = votes.indexOf(Math.max(...votes));
    summary.textContent =
      `${plural(sum, "vote", "votes")} in the ${range}; ` +
      `the busiest second had ${formatCount(votes[peak])}, at ${formatTime(times[peak] * 1_000)}.`;
  }

  return {
    show(newest) {
      rate = newest;
      draw();
    },
    clear() {
      rate = null;
      plot.setData([[], []]);
      summary.textContent = "No votes yet.";
    },
  };
}

const size = (box) => ({ width: box.clientWidth, height: box.clientHeight });

function options(box, onPointed) {
  // Colours are functions that read the style sheet at each drawing, because the reader may switch between light and
  // dark.
  const colour = (name) => () => getComputedStyle(box).getPropertyValue(name);
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const axis = {
    stroke: colour("--soft"),
    font: `${0.75 * rem}px ${getComputedStyle(box).fontFamily}`,
    ticks: { show: false },
    gap: 0.4 * rem,
  };
  return {
    ...size(box),
    padding: [0.5 * rem, 0.75 * rem, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 0.5 * rem, fill: colour("--chart") } },
    scales: { y: { range: (_, __, max) => [0, ceiling(max ?? 0, MIN_SCALE)] } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 1.9 * rem,
        // A label with seconds needs more space than a label with minutes only.
        space: (_, __, from, to) => (to - from < 100 ? 4.5 : 3.25) * rem,
        incrs: [5, 10, 15, 20, 30, 60, 120, 180, 300],
        values: (_, splits, __, ___, step) => splits.map((s) => (step < 60 ? formatTime : formatMinute)(s * 1_000)),
      },
      {
        ...axis,
        grid: { stroke: colour("--line"), width: 1 },
        size: 3 * rem,
        space: 2.2 * rem,
        incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6],
        values: (_, splits) => splits.map(formatCompact),
      },
    ],
    series: [
      {},
      {
        stroke: colour("--chart"),
        fill: colour("--chart-area"),
        width: 2,
        points: { show: false },
      },
    ],
    hooks: { setCursor: [(plot) => onPointed(plot.cursor.left >= 0 ? plot.cursor.idx : null)] },
  };
}
