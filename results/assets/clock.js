// The time of the server. Votes are counted by the seconds of the server, and the clock of a phone may differ by
// minutes.

/**
 * A clock that is set from the `Date` header of responses. The header has whole seconds, so each response gives only a
 * lower and an upper bound of the offset. Further responses narrow these bounds. Before the first response, and without
 * the header, the clock returns the local time.
 */
export function serverClock() {
  let offset = null;
  return {
    now: () => Date.now() + (offset ?? 0),
    /** Sends a request, and sets the clock from the response. Returns the response. */
    async synchronize(request) {
      const sentAt = Date.now();
      const response = await request();
      const date = Date.parse(response.headers.get("date"));
      if (!Number.isNaN(date)) {
        const min = date - Date.now();
        const max = date + 999 - sentAt;
        offset = Math.min(Math.max(offset ?? min, min), max);
      }
      return response;
    },
  };
}
