"""The dashboard *Live vote*: how a contest stands, and how fast votes come."""

import panels as p
from promql import ACCEPTED, ALERTS, ALL_BANDS, BANDS, CHOSEN, CONTEST, EARLIER, LAG, TOTAL, grown, or_none, rate, tally
from variables import BAND, COMPARE, ONE_CONTEST, PERIOD, RATE, VOTES


def live_vote():
    standing = tally("band", BANDS)
    leaders = f"and on (band) topk(10, {tally('band', BANDS, ' @ end()')})"
    # Of tallies, as consumers name the first hundred bands that they meet, which need not be those that lead.
    pace = f"max by (band) (rate(ovation_tally_votes{{{BANDS}}}[$__rate_interval]))"
    recent = f"max by (band) (increase(ovation_tally_votes{{{BANDS}}}[$period]))"
    earlier = f"max by (band) (increase(ovation_tally_votes{{{BANDS}}}[$period]{EARLIER}))"
    before = f"({tally('contest, band', CHOSEN, ' offset $period')} or {tally('contest, band')} * 0)"
    shown = f"and on (band) topk(20, {recent})"
    return p.dashboard(
        "ovation-live-vote", "Ovation: live vote", "How a contest stands, and how fast votes come.",
        [ONE_CONTEST, BAND, PERIOD, COMPARE],
        {
            "Now": [
                p.stat("Votes", "All votes of the contest that are in the tallies: its exact result so far.", VOTES, {"counted": TOTAL}),
                p.stat("Accepted", "Votes that the doors acknowledge each second, of all contests.", RATE,
                       {"accepted": rate("ovation_votes_total", ACCEPTED)}, decimals=0),
                p.stat("Counted", "Votes that reach the tallies each second, of this contest and the chosen bands.", RATE,
                       {"counted": rate("ovation_counted_votes_total", CHOSEN)}, decimals=0),
                p.stat("Votes in the last $period", "Votes for the chosen bands that came into the tallies in the period, exact.", VOTES,
                       {"last $period": f"sum({tally('contest, band')} - {before})"}),
                p.stat("Bands", "Bands that have votes in this contest.", "suffix:bands",
                       {"with votes": f"max(ovation_tally_bands{{{CONTEST}}})"}),
                p.stat("Not counted yet", "Votes on the log, of all contests, that no consumer has counted. Falls to 0 when votes pause.", VOTES,
                       {"waiting": f"sum({LAG})"},
                       steps={None: "green", 10_000: "orange", 100_000: "red"}),
            ],
            "The race": [
                p.race("Standing", "The ten leading bands by votes. `other`, which is no band, is left out.", VOTES, "band",
                       f"topk(10, {standing})", w=12),
                p.pie("Shares", "The nine leading bands, and all others, of the contest's votes.", VOTES, {
                    "{{band}}": f"topk(9, {tally('band', ALL_BANDS)})",
                    "all others": f"{TOTAL} - sum(topk(9, {tally('band', ALL_BANDS)}))",
                }),
                p.series("Votes of the leading bands", "The way of those ten bands that lead at the end of the shown time.", VOTES,
                         {"{{band}}": f"{standing} {leaders}"}, w=12, h=10),
                p.series("Shares of the leading bands", "Their parts of all votes of the contest. A jump is worth a look.", "percentunit",
                         {"{{band}}": f"({standing} {leaders}) / on () group_left () {TOTAL}"}, w=12, h=10),
            ],
            "The flow": [
                p.series("Accepted and counted", "Votes each second, of all contests. Accepted above counted means that lag grows.", RATE, {
                    "accepted": rate("ovation_votes_total", ACCEPTED),
                    "counted": rate("ovation_counted_votes_total"),
                }),
                p.series("Counted by band", "Votes counted each second, for the ten bands that have most at the end of the shown time.", RATE, {
                    "{{band}}": f"{pace} {leaders}",
                }),
                p.series("Counted by door", "Votes counted each second by the door they came through.", RATE, {
                    "{{door}}": rate("ovation_counted_votes_total", CHOSEN, "door"),
                }, stacked=True),
                p.race("Most votes in the last $period", "The bands that gained most in the period, exact, and `other` too.", VOTES, "band",
                       f"topk(10, sum by (band) ({tally('contest, band')} - {before}))", w=12, h=10),
                p.pie("Votes by door", "Through which door the votes of the contest came: exact, from the tallies.", VOTES,
                      {"{{door}}": f"max by (door) (ovation_tally_door_votes{{{CONTEST}}})"}, w=6, h=10),
                p.series("Live followers", "Open streams of tallies: pages (SSE) and programs (gRPC).", "suffix:streams",
                         {"{{protocol}}": or_none("sum by (protocol) (ovation_results_streams)", "protocol")}, w=6, h=10),
            ],
            "Against $compare earlier": [
                p.series("Votes each second, now and $compare earlier", "What is counted of this contest, laid over the same time earlier.",
                         RATE, {
                             "now": rate("ovation_counted_votes_total", CHOSEN),
                             "$compare earlier": rate("ovation_counted_votes_total", CHOSEN, at=EARLIER),
                         }, w=12),
                p.series("All votes, now and $compare earlier", "The contest's total, laid over the total of the same time earlier.", VOTES, {
                    "now": TOTAL,
                    "$compare earlier": f"sum({tally('contest, band', CONTEST, EARLIER)})",
                }, w=12),
                p.stat("The last $period against $compare earlier",
                       "Votes counted in the period, over those of the same period earlier: 100 % is as many.", "percentunit",
                       {"of the earlier": f"{grown('ovation_counted_votes_total', CHOSEN)} / "
                                          f"{grown('ovation_counted_votes_total', CHOSEN, at=EARLIER)}"}, w=6, h=9),
                p.table("Bands in the last $period, and $compare earlier",
                        "Votes that were counted in the period, and in the same period earlier, of the twenty bands that have most now. "
                        "Estimated, as Prometheus does between two scrapes.", "short", {
                            "now": f"{recent} {shown}",
                            "earlier": f"{earlier} {shown}",
                            "difference": f"({recent} - {earlier}) {shown}",
                        }, w=18),
            ],
        }, alerts=ALERTS, last="15m")
