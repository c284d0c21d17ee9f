import { expect, isLive, test } from "../support/test.js";

/** Returns whether the focus is visible: on the focused element, or on the next one, which is drawn in its place. */
const focusIsVisible = (page) =>
  page.evaluate(() => {
    const focused = document.activeElement;
    return [focused, focused.nextElementSibling].some((element) => {
      if (!element) return false;
      const { outlineStyle, opacity } = getComputedStyle(element);
      return outlineStyle === "solid" && opacity === "1";
    });
  });

test("every control can be used by keyboard, and the focus is always visible", async ({ page, ovation }) => {
  await ovation.castMany(Array.from({ length: 22 }, (_, i) => [`Band ${i + 1}`, 30 - i]));
  await page.goto("/");
  await isLive(page);
  await expect(page.getByRole("button", { name: "Show all 22 bands" })).toBeVisible();

  // The skip link must not reload the page, which would empty the standings for a moment.
  await page.locator("#rows > li").first().evaluate((item) => (item.isSameRow = true));
  await page.keyboard.press("Tab");
  const skip = page.getByRole("link", { name: "Skip to the votes" });
  await expect(skip).toBeFocused();
  await expect(skip).toBeInViewport();
  expect(await focusIsVisible(page)).toBe(true);
  await page.keyboard.press("Enter");
  await expect(page.locator("main")).toBeFocused();
  expect(await page.locator("#rows > li").first().evaluate((item) => item.isSameRow)).toBe(true);

  await page.keyboard.press("Tab");
  await expect(page.getByRole("button", { name: "Show all 22 bands" })).toBeFocused();
  expect(await focusIsVisible(page)).toBe(true);
  await page.keyboard.press("Enter");
  await expect(page.locator("#rows > li")).toHaveCount(22);
  await expect(page.getByRole("button", { name: "Show the top 20" })).toBeFocused();

  await page.keyboard.press("Tab");
  await expect(page.getByRole("radio", { name: "5 min", exact: true })).toBeFocused();
  expect(await focusIsVisible(page)).toBe(true);
  await page.keyboard.press("ArrowRight");
  await expect(page.getByRole("radio", { name: "15 min" })).toBeChecked();
  await expect(page.locator("#rate-summary")).toContainText("last 15 minutes");

  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "tally as JSON" })).toBeFocused();
  expect(await focusIsVisible(page)).toBe(true);
});
