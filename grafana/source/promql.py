"""The queries that dashboards are made of: PromQL that Prometheus 2.42 knows.

The metrics are those of `docs/metrics.md`. What Prometheus has of other systems must not show, so stores and processes are told apart
by what else their target exports."""

NOW = ""
EARLIER = " offset $compare"

ACCEPTED, REFUSED = 'outcome="accepted"', 'outcome!="accepted"'
FAILED = 'status!~"[123]..|OK"'
CHOSEN = 'contest=~"$contest", band=~"$band"'
CONTEST = 'contest=~"$contest"'


def rate(metric, where="", by=None, at=NOW):
    """How much a counter grows a second."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({metric}{{{where}}}[$__rate_interval]{at}))"


def grown(metric, where="", by=None, over="$period", at=NOW):
    """How much a counter grew in the time before."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(increase({metric}{{{where}}}[{over}]{at}))"


def quantile(q, histogram, where="", by="", at=NOW):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', where, labels, at)})"


def quantiles(histogram, where="", legend=""):
    """The median, the slowest tenth and the slowest hundredth."""
    return {f"{legend}p{round(q * 100)}": quantile(q, histogram, where) for q in (0.5, 0.9, 0.99)}


def buckets(histogram, where=""):
    return grown(histogram + "_bucket", where, "le", "$__rate_interval")


def mean(histogram, where="", by=None):
    return f"{rate(histogram + '_sum', where, by)} / {rate(histogram + '_count', where, by)}"


def or_none(query, *labels):
    """Zero, with `none` for these labels, where nothing at all is to be told: only for what is absent until it happens once."""
    zero = "vector(0)"
    for label in labels:
        zero = f'label_replace({zero}, "{label}", "none", "", "")'
    return f"{query} or on () {zero}"


# Every results process tells the same tallies: the greatest is the newest.
def tally(by, where=CHOSEN, at=NOW):
    return f"max by ({by}) (ovation_tally_votes{{{where}}}{at})"


# `other` is no band.
BANDS, ALL_BANDS = CHOSEN + ', band!="other"', CONTEST + ', band!="other"'
TOTAL = f"sum({tally('contest, band', CONTEST)})"

# Of the consumers, or, for partitions that none of them has, of what they committed, if kafka_exporter tells it.
LAG = ('max by (partition) (ovation_partition_lag_votes) or '
       'max by (partition) (clamp_min(kafka_consumergroup_lag{consumergroup=~"ovation-.*"}, 0))')

ALERTS = 'ALERTS{alertstate="firing", alertname=~"Ovation.*"}'

# A process by the name of its program: their `job` may be one for all.
EACH = "{{program}} {{instance}}"


def ours(query):
    """Of our own processes alone, whatever else exports metrics of processes."""
    return f"{query} * on (job, instance) group_left (program) ovation_build_info"
