// Takes the screenshot of the live page for the README: OVATION_BIN=target/release/ovation node tests/browser/picture.js FILE

import { setTimeout as pause } from "node:timers/promises";

import { chromium } from "@playwright/test";

import config from "./playwright.config.js";
import { Ovation } from "./support/ovation.js";

const RATE = 500;
const MINUTES_OF_VOTES = 1.2;

const ovation = await Ovation.create(RATE);
const browser = await chromium.launch(config.use.launchOptions);
try {
  await ovation.start();
  const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, deviceScaleFactor: 1.5 });
  await page.goto(ovation.url);
  // The chart needs some history, so the flood runs for a while before the screenshot.
  await pause(MINUTES_OF_VOTES * 60_000);
  await page.screenshot({ path: process.argv[2] });
} finally {
  await browser.close();
  await ovation.remove();
}
