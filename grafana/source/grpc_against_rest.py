"""The dashboard *gRPC against REST*: what the two doors take and what they cost."""

import panels as p
from promql import ACCEPTED, ALERTS, CHOSEN, CONTEST, EARLIER, FAILED, REFUSED, buckets, grown, mean, or_none, quantile, quantiles, rate
from variables import BAND, COMPARE, CONTESTS, PERIOD, RATE, VOTES

NAMES = {"grpc": "gRPC", "rest": "REST"}
DOORS = 'door=~"grpc|rest"'
METHOD = 'method=~"$method"'


def grpc_against_rest():
    cast = {door: f'door="{door}", {METHOD}' for door in NAMES}
    both = f"{DOORS}, {METHOD}"
    votes = f"sum by (job, instance) (rate(ovation_votes_total{{{ACCEPTED}, {DOORS}}}[$__rate_interval]))"
    at_work = f"group by (job, instance, door) (rate(ovation_votes_total{{{ACCEPTED}, {DOORS}}}[$__rate_interval]) > 0)"
    cpu = rate("ovation_cpu_microseconds_total", by="job, instance")
    methods = p.from_labels("method", "method", 'ovation_requests_total{door=~"grpc|rest"}',
                            "routes and procedures; a stream or a batch carries many votes in one request, so choose `CastVote` and "
                            "`POST /v1/votes` to compare like with like")

    def both_sides(make):
        return [make(door, name) for door, name in NAMES.items()]

    return p.dashboard(
        "ovation-grpc-against-rest", "Ovation: gRPC against REST", "The two doors, on the same pipeline: what they take and what they cost.",
        [CONTESTS, BAND, methods, PERIOD, COMPARE],
        {
            "Latency of requests": [
                *both_sides(lambda door, name: p.series(
                    f"{name}: latency", f"From a {name} request's head to its response's; of a gRPC stream to its first head.", "s",
                    quantiles("ovation_request_seconds", cast[door]), w=12)),
                *both_sides(lambda door, name: p.heat(
                    f"{name}: latency, as a heat map", "How many requests took how long.", "s",
                    buckets("ovation_request_seconds", cast[door]))),
                p.series("Slowest hundredth of both", "On one scale: 99 of 100 requests were faster.", "s",
                         {"{{door}} p99": quantile(0.99, "ovation_request_seconds", both, "door")}),
                p.series("Mean of both", "On one scale.", "s", {"{{door}} mean": mean("ovation_request_seconds", both, "door")}),
                p.series("Producing", "From the cast of a vote to the log's receipt: the part of the latency that is not the protocol's.", "s", {
                    "{{door}} p50": quantile(0.5, "ovation_cast_seconds", DOORS, "door"),
                    "{{door}} p99": quantile(0.99, "ovation_cast_seconds", DOORS, "door"),
                }),
            ],
            "Rate and size": [
                p.series("Requests each second", "By route or procedure.", "reqps",
                         {"{{door}}: {{method}}": rate("ovation_requests_total", both, "door, method")}),
                p.series("Votes accepted each second", "A stream or a batch has many in one request.", RATE,
                         {"{{door}}": rate("ovation_votes_total", f"{ACCEPTED}, {DOORS}", "door")}),
                p.series("Votes counted each second", "Of the chosen contests and bands, by the door they came through.", RATE,
                         {"{{door}}": rate("ovation_counted_votes_total", f"{CHOSEN}, {DOORS}", "door")}),
                p.series("Request size", "Length of bodies where it is known beforehand.", "bytes", {
                    "{{door}} mean": mean("ovation_request_bytes", both, "door"),
                    "{{door}} p99": quantile(0.99, "ovation_request_bytes", both, "door"),
                }),
                p.series("Response size", "Length of bodies where it is known beforehand.", "bytes", {
                    "{{door}} mean": mean("ovation_response_bytes", both, "door"),
                    "{{door}} p99": quantile(0.99, "ovation_response_bytes", both, "door"),
                }),
                p.pie("Votes by door", "Of the chosen contests, exact, from the tallies.", VOTES, {
                    "{{door}}": f"sum by (door) (max by (contest, door) (ovation_tally_door_votes{{{CONTEST}}}))",
                }, w=8, h=8),
            ],
            "Cost and refusals": [
                p.series("CPU for a vote", "What a process spends on each vote that it accepts. Where one process has both doors (`ovation up`) it "
                         "can't be told apart, and both have the same.", "µs",
                         {"{{door}}: {{instance}}": f"{cpu} / ({votes} > 0) * on (job, instance) group_right () {at_work}"}),
                p.series("Refused votes by reason", "Each second.", RATE, {
                    "{{door}}: {{outcome}}": or_none(rate("ovation_votes_total", f"{REFUSED}, {DOORS}", "door, outcome"), "door", "outcome"),
                }),
                p.series("Failed requests", "Each second, by status.", "reqps", {
                    "{{door}}: {{status}}": or_none(rate("ovation_requests_total", f"{FAILED}, {both}", "door, status"), "door", "status"),
                }),
            ],
            "Against $compare earlier": [
                *both_sides(lambda door, name: p.series(
                    f"{name}: latency, now and $compare earlier", "Median and slowest hundredth, laid over those of the same time earlier.", "s", {
                        "p50": quantile(0.5, "ovation_request_seconds", cast[door]),
                        "p50, $compare earlier": quantile(0.5, "ovation_request_seconds", cast[door], at=EARLIER),
                        "p99": quantile(0.99, "ovation_request_seconds", cast[door]),
                        "p99, $compare earlier": quantile(0.99, "ovation_request_seconds", cast[door], at=EARLIER),
                    }, w=12)),
                *both_sides(lambda door, name: p.series(
                    f"{name}: requests, now and $compare earlier", "Each second.", "reqps", {
                        "now": rate("ovation_requests_total", cast[door]),
                        "$compare earlier": rate("ovation_requests_total", cast[door], at=EARLIER),
                    }, w=12)),
                p.stat("Votes of the last $period against $compare earlier", "Accepted in the period, over those of the same period earlier.",
                       "percentunit", {
                           "{{door}}": f"{grown('ovation_votes_total', f'{ACCEPTED}, {DOORS}', 'door')} / "
                                       f"{grown('ovation_votes_total', f'{ACCEPTED}, {DOORS}', 'door', at=EARLIER)}",
                       }, w=24),
            ],
        }, alerts=ALERTS, last="30m")
