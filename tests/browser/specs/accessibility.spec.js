import AxeBuilder from "@axe-core/playwright";
import { expect, figure, isLive, PHONE, showsVotes, test } from "../support/test.js";

const hasNoViolations = async (page) => {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => [id, nodes.map((node) => `${node.target}: ${node.failureSummary}`)])).toEqual([]);
};

for (const colorScheme of ["light", "dark"]) {
  for (const [device, viewport] of [["desktop", { width: 1280, height: 800 }], ["phone", PHONE]]) {
    test.describe(`axe finds no violation, ${colorScheme}, ${device}:`, () => {
      // Rows fade in, and their contrast is too low until the end, so motion is reduced.
      test.use({ colorScheme, viewport, contextOptions: { reducedMotion: "reduce" } });

      test("empty", async ({ page }) => {
        await page.goto("/");
        await isLive(page);
        await expect(page.getByRole("heading", { name: "No votes yet" })).toBeVisible();
        await hasNoViolations(page);
      });

      test("running", async ({ page, ovation }) => {
        await ovation.castMany(Array.from({ length: 25 }, (_, i) => [`Band ${i + 1}`, 30 - i]));
        await page.goto("/");
        await showsVotes(page, "Band 1", 30);
        await expect.poll(() => figure(page, "Votes per second")).toBeGreaterThanOrEqual(0);
        await hasNoViolations(page);
        await page.getByRole("button", { name: "Show all 25 bands" }).click();
        await hasNoViolations(page);
      });

      test.describe("with a problem", () => {
        test.use({ expectedErrors: [/^Failed to load resource: (net::ERR_|.* [45]\d\d )/] });

        test("unknown contest", async ({ page }) => {
          await page.goto("/?contest=no-such-contest");
          await expect(page.locator("#problem")).toBeVisible();
          await hasNoViolations(page);
        });

        test("reconnecting", async ({ page, ovation }) => {
          await ovation.cast("Queen");
          await page.goto("/");
          await showsVotes(page, "Queen", 1);
          await ovation.stop();
          await expect(page.getByRole("status")).toHaveText(/Reconnecting/);
          await hasNoViolations(page);
        });
      });
    });
  }
}

test("the leader is announced, but not after every vote", async ({ page, ovation }) => {
  await page.clock.install();
  const announcement = page.locator("#announcement");
  await page.goto("/");
  await isLive(page);
  await ovation.cast("Queen");
  await expect(announcement).toHaveText("Queen leads with 1 of 1 vote.");
  await ovation.cast("ABBA", "ABBA");
  await showsVotes(page, "ABBA", 2);
  await expect(announcement).toHaveText("Queen leads with 1 of 1 vote.");
  await page.clock.fastForward(10_000);
  await expect(announcement).toHaveText("ABBA leads with 2 of 3 votes.");
});

test("the bands are a list, and each item reads as a sentence", async ({ page, ovation }) => {
  await ovation.castMany([["Queen", 3], ["ABBA", 1]]);
  await page.goto("/");
  await showsVotes(page, "Queen", 3);
  await expect(page.getByRole("region", { name: "Standings" })).toMatchAriaSnapshot(`
    - region "Standings":
      - heading "Standings" [level=2]
      - list:
        - listitem: 1 Queen 3 votes, 75.0%
        - listitem: 2 ABBA 1 vote, 25.0%
  `);
});
