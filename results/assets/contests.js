// The contests of the server, and the contest in the URL.

const DEFAULT_CONTEST = "bands";

export const contestInUrl = () => new URLSearchParams(location.search).get("contest") || DEFAULT_CONTEST;

export const contestUrl = (contest) => `?${new URLSearchParams({ contest })}`;

/** Returns the heading for a slug: `best-newcomer` becomes "Best newcomer". */
export function contestTitle(contest) {
  const words = contest.replaceAll("-", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Returns the slugs of all contests, or an empty list if the server does not respond. */
export async function listContests() {
  try {
    const response = await fetch("v1/contests", { signal: AbortSignal.timeout(5_000) });
    if (!response.ok) return [];
    const { contests } = await response.json();
    return contests.map(({ contest }) => contest);
  } catch {
    return [];
  }
}

/**
 * Fills the selector, and calls `choose` with each contest that the reader selects. Hides the selector if there are
 * fewer than two contests.
 */
export async function offerContests(label, choose) {
  const select = label.querySelector("select");
  const contests = await listContests();
  const none = new Option("Choose…", "");
  none.hidden = true;
  select.replaceChildren(none, ...contests.map((contest) => new Option(contestTitle(contest), contest)));
  const selectCurrent = () => {
    select.value = contests.includes(contestInUrl()) ? contestInUrl() : "";
  };
  selectCurrent();
  label.hidden = contests.length < 2;
  select.addEventListener("change", () => choose(select.value));
  addEventListener("popstate", selectCurrent);
}
