// The end of an axis: the next round number, so that bars and lines grow against something that stands still.

const STEPS = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10];

/** The smallest round number that is at least `value`, and at least `least`. */
export function ceiling(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return STEPS.find((step) => step * power >= wanted) * power;
}
