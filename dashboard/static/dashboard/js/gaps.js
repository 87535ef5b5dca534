// Which empty windows are gaps. Where readings come less often than windows, empty ones between them are not.

const SHARE = 0.75;

/**
 * The values with `undefined` for windows that are empty only because readings are further apart than windows; null stays a gap.
 * @param {(number|null)[]} values
 * @returns {(number|null|undefined)[]}
 */
export function bridged(values) {
  const known = [];
  for (let at = 0; at < values.length; at++) if (typeof values[at] === "number") known.push(at);
  if (known.length < 3) return values;
  const distances = known.slice(1).map((at, place) => at - known[place]);
  const usual = [...distances].sort((a, b) => a - b)[Math.floor(SHARE * (distances.length - 1))];
  if (usual < 2) return values;
  const result = [...values];
  distances.forEach((distance, place) => {
    if (distance > 1 && distance <= 2 * usual) result.fill(undefined, known[place] + 1, known[place + 1]);
  });
  return result;
}
