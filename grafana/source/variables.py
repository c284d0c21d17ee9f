"""The variables that all dashboards have, and the units of votes."""

import panels as p

VOTES, RATE = "suffix:votes", "suffix:votes/s"

BAND = p.from_labels("band", "band", 'ovation_tally_votes{contest=~"$contest"}', "bands; `other` is the sum of those that are not shown")
ONE_CONTEST = p.from_labels("contest", "contest", "ovation_tally_votes", "the contest that is shown", all=False)
CONTESTS = p.from_labels("contest", "contest", "ovation_tally_votes", "contests")
PERIOD = p.from_list("period", "interval", ["1m", "5m", "15m", "1h", "6h", "12h", "1d"], "5m",
                     "how far back panels look that say so in their title")
COMPARE = p.from_list("compare", "custom", ["15m", "1h", "6h", "1d", "1w"], "1d", "how much earlier the period is that is compared with")
