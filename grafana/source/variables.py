"""The variables that several dashboards have, and the units of votes."""

import panels as p

VOTES, RATE = "suffix:votes", "suffix:votes/s"

BAND = p.from_labels("band", "band", 'ovation_tally_votes{contest=~"$contest"}',
                     "Bands to show. `other` is the sum of all bands without a series of their own.")
ONE_CONTEST = p.from_labels("contest", "contest", "ovation_tally_votes", "The contest to show.", all=False)
CONTESTS = p.from_labels("contest", "contest", "ovation_tally_votes", "Contests to show.")
PERIOD = p.from_list("period", "interval", ["1m", "5m", "15m", "1h", "6h", "12h", "1d"], "5m",
                     "The period of the panels whose title says \"in the last …\".")
COMPARE = p.from_list("compare", "custom", ["15m", "1h", "6h", "1d", "1w"], "1d",
                      "How far back the earlier values are, in panels whose title says \"earlier\".")
