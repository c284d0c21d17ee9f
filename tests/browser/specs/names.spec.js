import { expect, row, showsVotes, test } from "../support/test.js";

test("a name that looks like markup is shown as text", async ({ page, ovation }) => {
  const names = ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "&amp;lt;b&gt;", `"><svg onload=alert(1)>`];
  await page.goto("/");
  await ovation.cast(...names);
  for (const name of names) await showsVotes(page, name, 1);
  await expect(page.locator("#rows :is(img, script, svg, b)")).toHaveCount(0);
  await expect(page.locator("#announcement")).toContainText("are tied with 1 each");
});

test("each name has its own text direction", async ({ page, ovation }) => {
  await page.goto("/");
  await ovation.cast("فيروز", "椎名林檎", "AC/DC");
  for (const [name, direction] of [["فيروز", "rtl"], ["椎名林檎", "ltr"], ["AC/DC", "ltr"]]) {
    await showsVotes(page, name, 1);
    await expect(row(page, name).locator(".name")).toHaveCSS("direction", direction);
  }
});
