// What time it is on the server: its seconds are the ones votes are counted in, and a phone's clock may be minutes off.

/**
 * A clock set by the `Date` header of answers. The header is cut to whole seconds, so an answer only bounds the
 * offset from both sides; with each answer the bounds close in. Until the first answer, and without the header, it is
 * the reader's own clock.
 */
export function serverClock() {
  let offset = null;
  return {
    now: () => Date.now() + (offset ?? 0),
    /** Makes a request and sets the clock by its answer. */
    async time(request) {
      const sent = Date.now();
      const answer = await request();
      const date = Date.parse(answer.headers.get("date"));
      if (!Number.isNaN(date)) {
        const least = date - Date.now();
        const most = date + 999 - sent;
        offset = Math.min(Math.max(offset ?? least, least), most);
      }
      return answer;
    },
  };
}
