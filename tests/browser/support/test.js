// What every spec starts from: a running program, and a page that is watched for what it must never do.

import { test as base, expect } from "@playwright/test";
import { Ovation } from "./ovation.js";

export { expect };

export const PHONE = { width: 360, height: 740 };

export const test = base.extend({
  /** Votes per second that the program casts by itself. */
  demo: [0, { option: true }],

  /** Console errors that belong to the test: a browser reports each refused connection and each 404. */
  expectedErrors: [[], { option: true }],

  ovation: async ({ demo }, use) => {
    const ovation = await Ovation.create(demo);
    try {
      await ovation.start();
      await use(ovation);
    } finally {
      await ovation.remove();
    }
  },

  baseURL: async ({ ovation }, use) => use(ovation.url),

  page: async ({ page, ovation, expectedErrors }, use) => {
    const wrongs = [];
    const isExpected = (text) => expectedErrors.some((pattern) => pattern.test(text));
    page.on("console", (message) => {
      if (message.type() === "error" && !isExpected(message.text())) wrongs.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => wrongs.push(`uncaught: ${error.stack}`));
    page.on("dialog", async (dialog) => {
      wrongs.push(`dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== ovation.url) wrongs.push(`left its origin: ${request.url()}`);
    });
    await use(page);
    expect(wrongs, "what the page must never do").toEqual([]);
  },
});

export const isLive = (page) => expect(page.getByRole("status")).toHaveText("Live");

export const row = (page, name) =>
  page.getByRole("listitem").filter({ has: page.locator(".name", { hasText: new RegExp(`^${escape(name)}$`) }) });

/** Waits until the page shows so many votes for the band. */
export const showsVotes = (page, name, votes) => expect(row(page, name).locator(".count")).toHaveText(votes.toLocaleString("en"));

/** The bands from first to last, and their votes, read at one instant. */
export const standings = (page) =>
  page.locator("#rows").evaluate((list) =>
    [...list.children].map((item) => ({
      name: item.querySelector(".name").textContent,
      votes: Number(item.querySelector(".count").textContent.replaceAll(",", "")),
    })),
  );

export const order = async (page) => (await standings(page)).map(({ name }) => name);

/** The figure beside the title, as a number; NaN while the page does not know it. */
export const figure = async (page, label) => {
  const cell = page.locator("#totals > div").filter({ has: page.locator("dt", { hasText: new RegExp(`^${label}`) }) });
  return Number((await cell.locator("dd").textContent()).replaceAll(",", ""));
};

/** Waits until nothing of the race moves any more. */
export const isAtRest = (page) =>
  expect
    .poll(() => page.locator("#rows").evaluate((list) => list.getAnimations({ subtree: true }).length), { message: "the rows come to rest" })
    .toBe(0);

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
