// The end of an axis is the next round number. So the scale changes rarely while bars and lines grow.

const STEPS = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10];

/** Returns the smallest round number that is at least `value` and at least `min`. */
export function ceiling(value, min) {
  const bound = Math.max(value, min);
  const power = 10 ** Math.floor(Math.log10(bound));
  return STEPS.find((step) => step * power >= bound) * power;
}
