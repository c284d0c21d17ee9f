import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, isLive, row, showsVotes, test } from "../support/test.js";

test("the example on the empty page casts a vote", async ({ page, ovation }) => {
  await page.goto("/");
  await isLive(page);
  await expect(page.getByRole("heading", { name: "No votes yet" })).toBeVisible();
  const example = await page.locator("#example").textContent();
  expect(example).toContain("127.0.0.1:8000");
  await promisify(execFile)("bash", ["-c", example.replace("127.0.0.1:8000", ovation.restAddress)]);
  await showsVotes(page, "Pink Floyd", 1);
  await expect(page.getByRole("heading", { name: "No votes yet" })).toBeHidden();
});

test("the page has a content security policy that forbids foreign and inline code", async ({ page }) => {
  const response = await page.goto("/");
  const policy = response.headers()["content-security-policy"];
  expect(policy).toContain("default-src 'self'");
  expect(policy).not.toContain("unsafe");
  await isLive(page);
});

test.describe("an unknown contest", () => {
  test.use({ expectedErrors: [/^Failed to load resource: .* 4\d\d /] });

  for (const contest of ["no-such-contest", "<b>not</b> a slug/.."]) {
    test(`shows the server's message and links to other contests: ${contest}`, async ({ page, ovation }) => {
      const problem = await (await fetch(`${ovation.url}/v1/contests/${encodeURIComponent(contest)}/tally`)).json();
      await page.goto(`/?${new URLSearchParams({ contest })}`);
      await expect(page.getByRole("heading", { name: problem.title, exact: true })).toBeVisible();
      await expect(page.locator("#problem")).toContainText(problem.detail);
      await expect(page.getByRole("region", { name: "Standings" })).toBeHidden();
      await page.getByRole("link", { name: "Bands", exact: true }).click();
      await isLive(page);
      await ovation.cast("Queen");
      await expect(row(page, "Queen")).toBeVisible();
    });
  }

  test("can be selected and left again without a reload", async ({ page, ovation }) => {
    await page.route("**/v1/contests", (route) => route.fulfill({ json: { contests: [{ contest: "bands" }, { contest: "best-newcomer" }] } }));
    await ovation.cast("Queen");
    await page.goto("/");
    await showsVotes(page, "Queen", 1);
    await page.evaluate(() => (window.isSamePage = true));

    await page.getByLabel("Contest").selectOption("Best newcomer");
    await expect(page.getByRole("heading", { level: 1 })).toHaveText("Best newcomer");
    await expect(page).toHaveURL(/\?contest=best-newcomer$/);
    await expect(page.locator("#problem")).toBeVisible();

    await page.goBack();
    await expect(page.getByRole("heading", { level: 1 })).toHaveText("Bands");
    await expect(page.getByLabel("Contest")).toHaveValue("bands");
    await isLive(page);
    await showsVotes(page, "Queen", 1);
    expect(await page.evaluate(() => window.isSamePage)).toBe(true);
  });
});
