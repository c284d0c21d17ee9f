"""The dashboard *gRPC against REST*: throughput, latency and cost of the two producers."""

import panels as p
from promql import ACCEPTED, ALERTS, CHOSEN, CONTEST, EARLIER, FAILED, REFUSED, buckets, increase, mean, or_zero, quantile, quantiles, rate
from variables import BAND, COMPARE, CONTESTS, PERIOD, RATE, VOTES

NAMES = {"grpc": "gRPC", "rest": "REST"}
# Metrics of votes have the label `producer`, metrics of requests the label `server`.
PRODUCERS = 'producer=~"grpc|rest"'
SERVERS = 'server=~"grpc|rest"'
METHOD = 'method=~"$method"'


def grpc_against_rest():
    requests = {server: f'server="{server}", {METHOD}' for server in NAMES}
    both = f"{SERVERS}, {METHOD}"
    votes = f"sum by (job, instance) (rate(ovation_votes_total{{{ACCEPTED}, {PRODUCERS}}}[$__rate_interval]))"
    active = f"group by (job, instance, producer) (rate(ovation_votes_total{{{ACCEPTED}, {PRODUCERS}}}[$__rate_interval]) > 0)"
    cpu = rate("ovation_cpu_microseconds_total", by="job, instance")
    methods = p.from_labels("method", "method", f"ovation_requests_total{{{SERVERS}}}",
                            "Routes and procedures to show. A request with a stream or a batch has many votes, so choose `CastVote` and "
                            "`POST /v1/votes` to compare single votes.")

    def for_each(make):
        return [make(server, name) for server, name in NAMES.items()]

    return p.dashboard(
        "ovation-grpc-against-rest", "Ovation: gRPC against REST", "Throughput, latency and cost of the two producers on the same pipeline.",
        [CONTESTS, BAND, methods, PERIOD, COMPARE],
        {
            "Latency of requests": [
                *for_each(lambda server, name: p.series(
                    f"{name}: latency", f"Time from a {name} request's headers to its response's headers. For a gRPC stream: to its first headers.",
                    "s", quantiles("ovation_request_seconds", requests[server]), w=12)),
                *for_each(lambda server, name: p.heat(
                    f"{name}: latency, as a heat map", "Number of requests by latency.", "s",
                    buckets("ovation_request_seconds", requests[server]))),
                p.series("99th percentile of both", "99 of 100 requests take less time than this. Both producers on one scale.", "s",
                         {"{{server}} p99": quantile(0.99, "ovation_request_seconds", both, "server")}),
                p.series("Mean of both", "The mean latency, for both producers on one scale.", "s",
                         {"{{server}} mean": mean("ovation_request_seconds", both, "server")}),
                p.series("Publish latency", "Time from when a vote is cast until the vote log's receipt. This part of the latency does not depend on "
                         "the protocol.", "s", {
                             "{{producer}} p50": quantile(0.5, "ovation_cast_seconds", PRODUCERS, "producer"),
                             "{{producer}} p99": quantile(0.99, "ovation_cast_seconds", PRODUCERS, "producer"),
                         }),
            ],
            "Rate and size": [
                p.series("Requests per second", "By route or procedure.", "reqps",
                         {"{{server}}: {{method}}": rate("ovation_requests_total", both, "server, method")}),
                p.series("Votes accepted per second", "A request with a stream or a batch has many votes.", RATE,
                         {"{{producer}}": rate("ovation_votes_total", f"{ACCEPTED}, {PRODUCERS}", "producer")}),
                p.series("Votes counted per second", "For the chosen contests and bands, by the producer that accepted them.", RATE,
                         {"{{producer}}": rate("ovation_counted_votes_total", f"{CHOSEN}, {PRODUCERS}", "producer")}),
                p.series("Request size", "Length of request bodies, if it is known before the body.", "bytes", {
                    "{{server}} mean": mean("ovation_request_bytes", both, "server"),
                    "{{server}} p99": quantile(0.99, "ovation_request_bytes", both, "server"),
                }),
                p.series("Response size", "Length of response bodies, if it is known before the body.", "bytes", {
                    "{{server}} mean": mean("ovation_response_bytes", both, "server"),
                    "{{server}} p99": quantile(0.99, "ovation_response_bytes", both, "server"),
                }),
                p.pie("Votes by producer", "Votes of the chosen contests, from the tallies. The numbers are exact.", VOTES, {
                    "{{producer}}": f"sum by (producer) (max by (contest, producer) (ovation_tally_producer_votes{{{CONTEST}}}))",
                }, w=8, h=8),
            ],
            "Cost and refusals": [
                p.series("CPU per vote", "CPU time of a process for each vote that it accepts. If one process runs both producers (`ovation up`), "
                         "their CPU time can't be separated, and both show the same value.", "µs",
                         {"{{producer}}: {{instance}}": f"{cpu} / ({votes} > 0) * on (job, instance) group_right () {active}"}),
                p.series("Refused votes by reason", "Refused votes per second.", RATE, {
                    "{{producer}}: {{outcome}}": or_zero(rate("ovation_votes_total", f"{REFUSED}, {PRODUCERS}", "producer, outcome"),
                                                         "producer", "outcome"),
                }),
                p.series("Failed requests", "Failed requests per second, by status.", "reqps", {
                    "{{server}}: {{status}}": or_zero(rate("ovation_requests_total", f"{FAILED}, {both}", "server, status"), "server", "status"),
                }),
            ],
            "Compared with $compare earlier": [
                *for_each(lambda server, name: p.series(
                    f"{name}: latency, now and $compare earlier", "Median and 99th percentile, now and at the same time earlier.", "s", {
                        "p50": quantile(0.5, "ovation_request_seconds", requests[server]),
                        "p50, $compare earlier": quantile(0.5, "ovation_request_seconds", requests[server], at=EARLIER),
                        "p99": quantile(0.99, "ovation_request_seconds", requests[server]),
                        "p99, $compare earlier": quantile(0.99, "ovation_request_seconds", requests[server], at=EARLIER),
                    }, w=12)),
                *for_each(lambda server, name: p.series(
                    f"{name}: requests per second, now and $compare earlier", "Requests per second, now and at the same time earlier.", "reqps", {
                        "now": rate("ovation_requests_total", requests[server]),
                        "$compare earlier": rate("ovation_requests_total", requests[server], at=EARLIER),
                    }, w=12)),
                p.stat("Votes in the last $period, relative to $compare earlier",
                       "Votes accepted in the period, divided by those of the same period earlier. 100 % means no change.", "percentunit", {
                           "{{producer}}": f"{increase('ovation_votes_total', f'{ACCEPTED}, {PRODUCERS}', 'producer')} / "
                                           f"{increase('ovation_votes_total', f'{ACCEPTED}, {PRODUCERS}', 'producer', at=EARLIER)}",
                       }, w=24),
            ],
        }, alerts=ALERTS, last="30m")
