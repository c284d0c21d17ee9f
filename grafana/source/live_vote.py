"""The dashboard *Live vote*: the standings of a contest and the rate of votes."""

import panels as p
from promql import ACCEPTED, ALERTS, ALL_BANDS, BANDS, CHOSEN, CONTEST, EARLIER, LAG, TOTAL, increase, or_zero, rate, tally
from variables import BAND, COMPARE, ONE_CONTEST, PERIOD, RATE, VOTES


def live_vote():
    standings = tally("band", BANDS)
    leaders = f"and on (band) topk(10, {tally('band', BANDS, ' @ end()')})"
    # This rate is from the tallies, because a consumer exports only the first hundred bands that it counts, and the leading bands may not be among
    # them.
    band_rate = f"max by (band) (rate(ovation_tally_votes{{{BANDS}}}[$__rate_interval]))"
    recent = f"max by (band) (increase(ovation_tally_votes{{{BANDS}}}[$period]))"
    earlier = f"max by (band) (increase(ovation_tally_votes{{{BANDS}}}[$period]{EARLIER}))"
    before = f"({tally('contest, band', CHOSEN, ' offset $period')} or {tally('contest, band')} * 0)"
    shown = f"and on (band) topk(20, {recent})"
    return p.dashboard(
        "ovation-live-vote", "Ovation: live vote", "The standings of a contest and the rate of votes.",
        [ONE_CONTEST, BAND, PERIOD, COMPARE],
        {
            "Now": [
                p.stat("Votes", "All votes of the contest in the tallies. This is the exact result so far.", VOTES, {"counted": TOTAL}),
                p.stat("Accepted", "Votes that the producers accept per second, for all contests.", RATE,
                       {"accepted": rate("ovation_votes_total", ACCEPTED)}, decimals=0),
                p.stat("Counted", "Votes that the consumers count per second, for the chosen contest and bands.", RATE,
                       {"counted": rate("ovation_counted_votes_total", CHOSEN)}, decimals=0),
                p.stat("Votes in the last $period", "Votes for the chosen bands that were counted in the period. The number is exact.", VOTES,
                       {"last $period": f"sum({tally('contest, band')} - {before})"}),
                p.stat("Bands", "Bands with votes in this contest.", "suffix:bands",
                       {"with votes": f"max(ovation_tally_bands{{{CONTEST}}})"}),
                p.stat("Not counted yet", "Votes of all contests that are on the vote log and not counted yet. The number falls to 0 when no votes arrive.",
                       VOTES, {"lag": f"sum({LAG})"},
                       steps={None: "green", 10_000: "orange", 100_000: "red"}),
            ],
            "Standings": [
                p.ranked_bars("Leading bands", "The ten bands with the most votes, of the chosen bands.", VOTES, "band",
                       f"topk(10, {standings})", w=12),
                p.pie("Shares", "Shares of the contest's votes: the nine leading bands, and all others together.", VOTES, {
                    "{{band}}": f"topk(9, {tally('band', ALL_BANDS)})",
                    "all others": f"{TOTAL} - sum(topk(9, {tally('band', ALL_BANDS)}))",
                }),
                p.series("Votes of the leading bands", "Votes over time, of the ten bands that lead at the end of the shown time.", VOTES,
                         {"{{band}}": f"{standings} {leaders}"}, w=12, h=10),
                p.series("Shares of the leading bands", "Shares of the ten leading bands in all votes of the contest. A sudden jump may come from bots.", "percentunit",
                         {"{{band}}": f"({standings} {leaders}) / on () group_left () {TOTAL}"}, w=12, h=10),
            ],
            "Rate of votes": [
                p.series("Accepted and counted", "Votes per second, for all contests. If more are accepted than counted, the lag grows.", RATE, {
                    "accepted": rate("ovation_votes_total", ACCEPTED),
                    "counted": rate("ovation_counted_votes_total"),
                }),
                p.series("Counted by band", "Votes counted per second, for the ten bands that lead at the end of the shown time.", RATE, {
                    "{{band}}": f"{band_rate} {leaders}",
                }),
                p.series("Counted by producer", "Votes counted per second, by the producer that accepted them.", RATE, {
                    "{{producer}}": rate("ovation_counted_votes_total", CHOSEN, "producer"),
                }, stacked=True),
                p.ranked_bars("Most votes in the last $period", "The bands with the most votes in the period. The metrics name only the bands with the most votes in the contest; `other` is all other bands together. The numbers are exact.",
                       VOTES, "band", f"topk(10, sum by (band) ({tally('contest, band')} - {before}))", w=12, h=10),
                p.pie("Votes by producer", "Votes of the contest by the producer that accepted them. The numbers are exact.", VOTES,
                      {"{{producer}}": f"max by (producer) (ovation_tally_producer_votes{{{CONTEST}}})"}, w=6, h=10),
                p.series("Live subscribers", "Open streams of tallies: web pages (SSE) and programs (gRPC).", "suffix:streams",
                         {"{{protocol}}": or_zero("sum by (protocol) (ovation_results_streams)", "protocol")}, w=6, h=10),
            ],
            "Compared with $compare earlier": [
                p.series("Votes per second, now and $compare earlier", "Votes counted per second for the chosen contest and bands: now, and $compare earlier.",
                         RATE, {
                             "now": rate("ovation_counted_votes_total", CHOSEN),
                             "$compare earlier": rate("ovation_counted_votes_total", CHOSEN, at=EARLIER),
                         }, w=12),
                p.series("All votes, now and $compare earlier", "All votes of the contest: now, and $compare earlier.", VOTES, {
                    "now": TOTAL,
                    "$compare earlier": f"sum({tally('contest, band', CONTEST, EARLIER)})",
                }, w=12),
                p.stat("Votes in the last $period, relative to $compare earlier",
                       "Votes counted in the period, divided by the votes counted in the same period $compare earlier. 100 % means no change.", "percentunit",
                       {"of the earlier votes": f"{increase('ovation_counted_votes_total', CHOSEN)} / "
                                          f"{increase('ovation_counted_votes_total', CHOSEN, at=EARLIER)}"}, w=6, h=9),
                p.table("Bands in the last $period, and $compare earlier",
                        "Votes counted in the period and in the same period earlier, for the twenty bands with the most votes in the period. "
                        "Prometheus estimates these numbers from its samples.", "short", {
                            "now": f"{recent} {shown}",
                            "earlier": f"{earlier} {shown}",
                            "difference": f"({recent} - {earlier}) {shown}",
                        }, w=18),
            ],
        }, alerts=ALERTS, last="15m")
