"""Builds the queries of the dashboards, in the PromQL of Prometheus 2.42.

`docs/metrics.md` describes the metrics. A Prometheus may also scrape other systems, which export metrics of the same names. So queries about
servers and processes select the targets that also export certain other metrics."""

NOW = ""
EARLIER = " offset $compare"

ACCEPTED, REFUSED = 'outcome="accepted"', 'outcome!="accepted"'
FAILED = 'status!~"[123]..|OK"'
CHOSEN = 'contest=~"$contest", band=~"$band"'
CONTEST = 'contest=~"$contest"'


def rate(metric, where="", by=None, at=NOW):
    """Returns a query for a counter's increase per second."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({metric}{{{where}}}[$__rate_interval]{at}))"


def increase(metric, where="", by=None, over="$period", at=NOW):
    """Returns a query for a counter's increase during the time `over`."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(increase({metric}{{{where}}}[{over}]{at}))"


def quantile(q, histogram, where="", by="", at=NOW):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', where, labels, at)})"


def quantiles(histogram, where=""):
    """Returns queries for the 50th, 90th and 99th percentile, by legend."""
    return {f"p{round(q * 100)}": quantile(q, histogram, where) for q in (0.5, 0.9, 0.99)}


def buckets(histogram, where=""):
    return increase(histogram + "_bucket", where, "le", "$__rate_interval")


def mean(histogram, where="", by=None):
    return f"{rate(histogram + '_sum', where, by)} / {rate(histogram + '_count', where, by)}"


def or_zero(query, *labels):
    """Returns a query that returns zero if `query` has no result. The labels of this zero have the value `none`.

    Use this function only for series that do not exist before their first event. Otherwise a panel without data would show zero."""
    zero = "vector(0)"
    for label in labels:
        zero = f'label_replace({zero}, "{label}", "none", "", "")'
    return f"{query} or on () {zero}"


def tally(by, where=CHOSEN, at=NOW):
    """Returns a query for votes in the tallies. Every results process exports the same tallies, so the highest value is the latest one."""
    return f"max by ({by}) (ovation_tally_votes{{{where}}}{at})"


# All bands, without `other`, which is not a band.
BANDS, ALL_BANDS = CHOSEN + ', band!="other"', CONTEST + ', band!="other"'
TOTAL = f"sum({tally('contest, band', CONTEST)})"

# The consumers export the lag of their partitions. A kafka_exporter also exports the lag of partitions without a consumer.
LAG = ('max by (partition) (ovation_partition_lag_votes) or '
       'max by (partition) (clamp_min(kafka_consumergroup_lag{consumergroup=~"ovation-.*"}, 0))')

# Partitions that no consumer counts.
UNHELD = "max(ovation_partitions) - (count(max by (partition) (ovation_partition_held) == 1) or vector(0))"

# OvationWatchdog always fires. It is about nothing.
ALERTS = 'ALERTS{alertstate="firing", alertname=~"Ovation.*", severity!="none"}'

# The legend has the name of the program and not the `job`, because all processes may have the same `job`.
PROCESS = "{{program}} {{instance}}"


def ovation_processes(query):
    """Restricts a query to Ovation's processes, because exporters have metrics of the same names. Adds the label `program`."""
    return f"{query} * on (job, instance) group_left (program) ovation_build_info"
