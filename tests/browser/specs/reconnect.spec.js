import { expect, figure, isLive, showsVotes, test } from "../support/test.js";

const state = (page) => page.getByRole("status");

test.describe("without the server", () => {
  test.use({ expectedErrors: [/^Failed to load resource: (net::ERR_|.* 503 )/] });

  for (const signal of ["SIGTERM", "SIGKILL"]) {
    test(`the page reconnects after ${signal} and a restart, and no count decreases`, async ({ page, ovation }) => {
      await page.addInitScript(() => {
        window.counted = [];
        addEventListener("DOMContentLoaded", () => {
          const figure = document.querySelector("#counted");
          new MutationObserver(() => window.counted.push(Number(figure.textContent))).observe(figure, { childList: true });
        });
      });
      await page.goto("/");
      await ovation.cast("Pink Floyd", "Queen", "Pink Floyd");
      await expect.poll(() => figure(page, "Votes counted")).toBe(3);

      await ovation.stop(signal);
      await expect(state(page)).toHaveText(/Reconnecting… counts as of \d\d:\d\d:\d\d/);
      await showsVotes(page, "Pink Floyd", 2);

      await ovation.start();
      await isLive(page);
      await showsVotes(page, "Pink Floyd", 2);
      await ovation.cast("Pink Floyd");
      await showsVotes(page, "Pink Floyd", 3);

      const counted = (await page.evaluate(() => window.counted)).filter((n) => !Number.isNaN(n));
      expect(counted).toEqual([...counted].sort((a, b) => a - b));
      expect(counted.at(-1)).toBe(4);
    });
  }

  test("the page reconnects to a server that stops responding and resumes", async ({ page, ovation }) => {
    await page.clock.install();
    await page.goto("/");
    await ovation.cast("Queen");
    await showsVotes(page, "Queen", 1);
    ovation.signal("SIGSTOP");
    await page.clock.fastForward(13_000);
    await expect(state(page)).toHaveText(/Reconnecting/);
    ovation.signal("SIGCONT");
    await isLive(page);
    await ovation.cast("Queen");
    await showsVotes(page, "Queen", 2);
  });

  test("after a long absence of the server the page is offline, and it reconnects", async ({ page, ovation }) => {
    await page.clock.install();
    await page.goto("/");
    await isLive(page);
    await ovation.stop();
    await expect(state(page)).toHaveText(/Reconnecting/);
    await page.clock.fastForward(25_000);
    await expect(state(page)).toHaveText(/Offline/);
    await ovation.start();
    await isLive(page);
  });
});
