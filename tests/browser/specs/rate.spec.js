import { expect, figure, isLive, test } from "../support/test.js";

const summary = (page) => page.locator("#rate-summary");

test("the summary of the rate counts the votes of the selected range", async ({ page, ovation }) => {
  await page.goto("/");
  await isLive(page);
  await expect(summary(page)).toHaveText("No votes in the last 5 minutes.");
  await ovation.castMany([["Queen", 12]]);
  await expect(summary(page)).toContainText("12 votes in the last 5 minutes");
  await page.getByRole("radio", { name: "1 min", exact: true }).check();
  await expect(summary(page)).toContainText("12 votes in the last minute");
  await page.getByRole("radio", { name: "15 min" }).check();
  await expect(summary(page)).toContainText("12 votes in the last 15 minutes");
});

test("the chart is drawn, also after a resize", async ({ page, ovation }) => {
  await ovation.castMany([["Queen", 50]]);
  await page.goto("/");
  await expect(summary(page)).toContainText("50 votes");
  const canvas = page.locator("#plot canvas");
  const inkOfLine = () =>
    canvas.evaluate((element) => {
      const { data } = element.getContext("2d").getImageData(0, 0, element.width, element.height);
      return data.filter((value, i) => i % 4 === 3 && value > 0).length;
    });
  expect(await inkOfLine()).toBeGreaterThan(100);
  await page.setViewportSize({ width: 700, height: 800 });
  await expect
    .poll(async () => Math.abs((await canvas.boundingBox()).width - (await page.locator("#plot").boundingBox()).width))
    .toBeLessThan(2);
});

test("the current second is never shown, even if the browser's clock is wrong", async ({ page }) => {
  const behind = 3_600_000;
  await page.route("**/v1/rates?*", (route) => {
    const now = Date.now() - behind;
    const current = now - (now % 1_000);
    const windows = [4, 3, 2, 1].map((ago) => ({ start: current - ago * 1_000, votes: 100 }));
    return route.fulfill({ json: [...windows, { start: current, votes: 3 }], headers: { date: new Date(now).toUTCString() } });
  });
  await page.addInitScript(() => {
    window.paces = [];
    addEventListener("DOMContentLoaded", () => {
      const pace = document.querySelector("#pace");
      new MutationObserver(() => window.paces.push(pace.textContent)).observe(pace, { childList: true });
    });
  });
  await page.goto("/");
  await expect.poll(() => page.evaluate(() => window.paces.filter((text) => text !== "–").length)).toBeGreaterThan(4);
  expect(await page.evaluate(() => [...new Set(window.paces)].filter((text) => text !== "–"))).toEqual(["100"]);
});

test.describe("with continuous votes", () => {
  test.use({ demo: 200 });

  test("the page shows the votes per second", async ({ page }) => {
    await page.goto("/");
    await expect.poll(() => figure(page, "Votes per second"), { timeout: 30_000 }).toBeGreaterThan(100);
  });
});
