// Which contests there are, and which one the address names.

const DEFAULT = "bands";

export const contestInUrl = () => new URLSearchParams(location.search).get("contest") || DEFAULT;

export const contestUrl = (contest) => `?${new URLSearchParams({ contest })}`;

/** A slug as a heading: `best-newcomer` is "Best newcomer". */
export function contestTitle(contest) {
  const words = contest.replaceAll("-", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The ids of all contests; none if the server can't say. */
export async function listContests() {
  try {
    const answer = await fetch("v1/contests", { signal: AbortSignal.timeout(5_000) });
    if (!answer.ok) return [];
    const { contests } = await answer.json();
    return contests.map(({ contest }) => contest);
  } catch {
    return [];
  }
}

/** Fills the selector, which stays hidden while there is nothing to choose from. */
export async function offerContests(label, choose) {
  const select = label.querySelector("select");
  const contests = await listContests();
  const none = new Option("Choose…", "");
  none.hidden = true;
  select.replaceChildren(none, ...contests.map((contest) => new Option(contestTitle(contest), contest)));
  const mark = () => {
    select.value = contests.includes(contestInUrl()) ? contestInUrl() : "";
  };
  mark();
  label.hidden = contests.length < 2;
  select.addEventListener("change", () => choose(select.value));
  addEventListener("popstate", mark);
}
