/**
 * Make a function that asks for `draw` to run once before the next paint, however often it is called until then.
 *
 * A hidden tab gets no animation frames, so it draws on a timer: what it shows when it comes to front is current.
 */
export function onNextFrame(draw) {
  let asked = false;
  const run = () => {
    asked = false;
    draw();
  };
  return () => {
    if (asked) return;
    asked = true;
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}

/** Milliseconds since the epoch, finer than `Date.now()`. */
export const now = () => performance.timeOrigin + performance.now();

/** Milliseconds since the epoch of an ISO 8601 time; `Date.parse` would drop the microseconds. */
export function parseTime(iso) {
  const micros = /\.\d{3}(\d{1,3})/.exec(iso);
  return Date.parse(iso) + (micros ? Number(micros[1].padEnd(3, "0")) / 1000 : 0);
}
