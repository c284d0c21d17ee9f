import { expect, figure, isAtRest, isLive, order, row, showsVotes, standings, test } from "../support/test.js";

const barWidth = (page, name) =>
  row(page, name).evaluate((item) => {
    const bar = item.querySelector(".bar").getBoundingClientRect();
    return item.querySelector(".fill").getBoundingClientRect().right - bar.left;
  });

test("a vote appears, and its bar grows with further votes", async ({ page, ovation }) => {
  await page.goto("/");
  await isLive(page);
  await ovation.cast("Pink Floyd");
  await showsVotes(page, "Pink Floyd", 1);
  await isAtRest(page);
  const width = await barWidth(page, "Pink Floyd");
  expect(width).toBeGreaterThan(0);

  await ovation.cast("Pink Floyd", "Pink Floyd", "Pink Floyd");
  await showsVotes(page, "Pink Floyd", 4);
  await isAtRest(page);
  expect(await barWidth(page, "Pink Floyd")).toBeGreaterThan(3 * width);
});

test("a band that overtakes others moves past their rows in an animation", async ({ page, ovation }) => {
  await page.addInitScript(() => {
    window.glides = [];
    const animate = Element.prototype.animate;
    Element.prototype.animate = function (frames, ...rest) {
      const dy = /translateY\((.*)px\)/.exec(frames[0].transform)?.[1];
      if (dy) window.glides.push([this.querySelector(".name").textContent, Math.round(Number(dy))]);
      return animate.call(this, frames, ...rest);
    };
  });
  await ovation.castMany([["Queen", 6], ["ABBA", 5], ["Pink Floyd", 4]]);
  await page.goto("/");
  await expect.poll(() => order(page)).toEqual(["Queen", "ABBA", "Pink Floyd"]);
  await isAtRest(page);
  const height = (await row(page, "ABBA").boundingBox()).height;

  await ovation.castMany([["Pink Floyd", 3]]);
  await expect.poll(() => order(page)).toEqual(["Pink Floyd", "Queen", "ABBA"]);
  await isAtRest(page);
  const tops = await page.getByRole("listitem").filter({ has: page.locator(".name") }).evaluateAll((items) => items.map((item) => item.getBoundingClientRect().top));
  expect(tops).toEqual([...tops].sort((a, b) => a - b));
  // The three votes may be counted in one step or in several.
  const travelled = {};
  for (const [name, dy] of await page.evaluate(() => window.glides)) travelled[name] = (travelled[name] ?? 0) + dy;
  expect(travelled["Pink Floyd"]).toBeGreaterThanOrEqual(2 * height - 2);
  expect(travelled.Queen).toBeLessThan(0);
  expect(Math.abs(travelled.Queen)).toBeLessThanOrEqual(2 * height);
});

test("nothing moves if the user prefers reduced motion", async ({ page, ovation }) => {
  await page.emulateMedia({ reducedMotion: "reduce" });
  await page.addInitScript(() => {
    window.movements = 0;
    const animate = Element.prototype.animate;
    Element.prototype.animate = function (...all) {
      window.movements += 1;
      return animate.apply(this, all);
    };
    document.addEventListener("transitionrun", () => (window.movements += 1));
  });
  await page.goto("/");
  await ovation.cast("Queen", "Queen", "Pink Floyd");
  await expect.poll(() => order(page)).toEqual(["Queen", "Pink Floyd"]);
  await ovation.cast("Pink Floyd", "Pink Floyd");
  await expect.poll(() => order(page)).toEqual(["Pink Floyd", "Queen"]);
  expect(await page.evaluate(() => window.movements)).toBe(0);
});

test("bands with equal votes have equal ranks", async ({ page, ovation }) => {
  await ovation.castMany([["Queen", 3], ["ABBA", 2], ["Blur", 2], ["Muse", 1]]);
  await page.goto("/");
  await expect(page.locator("#rows .rank")).toHaveText(["1", "2", "2", "4"]);
  await expect(row(page, "Queen").locator(".share")).toHaveText("37.5%");
});

test("twenty bands are shown, the others as one row, and up to a hundred on demand", async ({ page, ovation }) => {
  const names = Array.from({ length: 105 }, (_, i) => `Band ${String(i + 1).padStart(3, "0")}`);
  await ovation.castMany(names.map((name, i) => [name, i < 100 ? 2 : 1]));
  await page.goto("/");
  await expect(page.locator("#rows > li")).toHaveCount(20);
  await expect(page.locator("#counted")).toHaveText("205");
  await expect(page.locator("#others")).toContainText("85 other bands");
  await expect(page.locator("#others .count")).toHaveText("165");

  await page.getByRole("button", { name: "Show the top 100" }).click();
  await expect(page.locator("#rows > li")).toHaveCount(100);
  await expect(page.locator("#others")).toContainText("5 other bands");
  await expect(page.locator("#others .count")).toHaveText("5");

  await page.getByRole("button", { name: "Show the top 20" }).click();
  await expect(page.locator("#rows > li")).toHaveCount(20);
});

test("the totals and the votes by producer add up", async ({ page, ovation }) => {
  await ovation.castMany([["Queen", 4], ["ABBA", 3]]);
  await page.goto("/");
  await expect.poll(() => figure(page, "Votes counted")).toBe(7);
  await expect.poll(() => figure(page, "Accepted")).toBe(7);
  await expect.poll(() => figure(page, "Behind")).toBe(0);
  await expect(page.locator("#producers > li")).toHaveText([/gRPC 0 0\.0%/, /REST 7 100\.0%/]);
});

test("while votes are counted again, the page says so and how far it is", async ({ page, ovation }) => {
  await ovation.cast("Queen");
  const response = await page.request.get(`${ovation.url}/v1/contests/bands/tally`);
  const tally = { ...(await response.json()), processed: 40, accepted: 100, recounting: true };
  let isRecounting = true;
  await page.route("**/v1/contests/bands/tally", (route) => (isRecounting ? route.fulfill({ json: tally }) : route.continue()));
  // A stream that ends is no error for the browser, so nothing is logged. The page connects again.
  await page.route("**/v1/contests/bands/tally/stream", (route) =>
    isRecounting ? route.fulfill({ contentType: "text/event-stream", body: `event: tally\ndata: ${JSON.stringify(tally)}\n\n` }) : route.continue(),
  );
  const notice = page.locator("#recount");
  await page.goto("/");
  await expect(notice).toContainText("being counted again: 40 % done");

  isRecounting = false;
  await expect(notice).toBeHidden();
  await expect.poll(() => figure(page, "Votes counted")).toBe(1);
});

test.describe("with continuous votes", () => {
  test.use({ demo: 200 });

  test("counts rise, bands overtake each other, and the order always follows the votes", async ({ page }) => {
    await page.goto("/");
    await expect.poll(() => figure(page, "Votes counted")).toBeGreaterThan(0);
    const first = await figure(page, "Votes counted");
    const startOrder = (await order(page)).join();
    await expect
      .poll(async () => {
        const rows = await standings(page);
        expect(rows).toEqual([...rows].sort((a, b) => b.votes - a.votes));
        return rows.map(({ name }) => name).join();
      }, { timeout: 45_000 })
      .not.toBe(startOrder);
    await expect.poll(() => figure(page, "Votes counted")).toBeGreaterThan(first + 200);
  });
});
