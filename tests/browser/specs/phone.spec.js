import { expect, isLive, PHONE, showsVotes, test } from "../support/test.js";

const WIDE = ["W".repeat(100), "فيروزبعلبك".repeat(10), "椎名林檎東京事変万歳".repeat(10), "Buena Vista Social Club"];

const fits = (page) =>
  expect.poll(() => page.evaluate(() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth)).toBeLessThanOrEqual(0);

// 320 px is the width of WCAG's criterion on reflow: 1280 px at 400 % zoom.
for (const viewport of [PHONE, { width: 320, height: 568 }, { width: 768, height: 1024 }]) {
  test.describe(`at ${viewport.width} px`, () => {
    test.use({ viewport });

    test("the empty page fits", async ({ page }) => {
      await page.goto("/");
      await expect(page.getByRole("heading", { name: "No votes yet" })).toBeVisible();
      await fits(page);
    });

    test("the standings fit, with the longest names allowed", async ({ page, ovation }) => {
      await ovation.castMany([...WIDE.map((name) => [name, 1_200]), ...Array.from({ length: 25 }, (_, i) => [`${"M".repeat(97)}${100 + i}`, 1])]);
      await page.goto("/");
      for (const name of WIDE) await showsVotes(page, name, 1_200);
      await fits(page);
      await page.getByRole("button", { name: "Show all 29 bands" }).click();
      await expect(page.locator("#rows > li")).toHaveCount(29);
      await fits(page);
    });

    test.describe("with a problem", () => {
      test.use({ expectedErrors: [/^Failed to load resource: (net::ERR_|.* [45]\d\d )/] });

      test("the page for an unknown contest fits", async ({ page }) => {
        await page.goto(`/?contest=${"w".repeat(63)}`);
        await expect(page.locator("#problem")).toBeVisible();
        await fits(page);
      });

      test("the page without connection fits", async ({ page, ovation }) => {
        await page.goto("/");
        await isLive(page);
        await ovation.stop();
        await expect(page.getByRole("status")).toHaveText(/Reconnecting/);
        await fits(page);
      });
    });
  });
}
