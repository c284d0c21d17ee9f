// The fixtures of all specs: a running program, and a page that fails the test if it logs an error, opens a dialog or leaves its origin.

import { test as base, expect } from "@playwright/test";
import { Ovation } from "./ovation.js";

export { expect };

export const PHONE = { width: 360, height: 740 };

export const test = base.extend({
  /** The rate of the program's demo votes, per second. */
  demo: [0, { option: true }],

  /** Patterns of console errors that the test expects: a browser reports each refused connection and each 404. */
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
    const violations = [];
    const isExpected = (text) => expectedErrors.some((pattern) => pattern.test(text));
    page.on("console", (message) => {
      if (message.type() === "error" && !isExpected(message.text())) violations.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => violations.push(`uncaught: ${error.stack}`));
    page.on("dialog", async (dialog) => {
      violations.push(`dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== ovation.url) violations.push(`left its origin: ${request.url()}`);
    });
    await use(page);
    expect(violations, "errors, dialogs and requests to other origins").toEqual([]);
  },
});

export const isLive = (page) => expect(page.getByRole("status")).toHaveText("Live");

export const row = (page, name) =>
  page.getByRole("listitem").filter({ has: page.locator(".name", { hasText: new RegExp(`^${escape(name)}$`) }) });

/** Waits until the page shows this number of votes for the band. */
export const showsVotes = (page, name, votes) => expect(row(page, name).locator(".count")).toHaveText(votes.toLocaleString("en"));

/** Returns the bands in order with their votes, read in one step. */
export const standings = (page) =>
  page.locator("#rows").evaluate((list) =>
    [...list.children].map((item) => ({
      name: item.querySelector(".name").textContent,
      votes: Number(item.querySelector(".count").textContent.replaceAll(",", "")),
    })),
  );

export const order = async (page) => (await standings(page)).map(({ name }) => name);

/** Returns a figure beside the title as a number, or NaN while the page shows none. */
export const figure = async (page, label) => {
  const cell = page.locator("#totals > div").filter({ has: page.locator("dt", { hasText: new RegExp(`^${label}`) }) });
  return Number((await cell.locator("dd").textContent()).replaceAll(",", ""));
};

/** Waits until no row of the standings is animated. */
export const isAtRest = (page) =>
  expect
    .poll(() => page.locator("#rows").evaluate((list) => list.getAnimations({ subtree: true }).length), { message: "the animations of the rows end" })
    .toBe(0);

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
