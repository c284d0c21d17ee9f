"""The dashboard *Pipeline*: whether votes flow, where they wait, what fails, and what the parts cost."""

import panels as p
from promql import ACCEPTED, ALERTS, CHOSEN, EACH, EARLIER, FAILED, LAG, REFUSED, buckets, grown, mean, or_none, ours, quantile, quantiles, rate
from variables import BAND, COMPARE, CONTESTS, PERIOD, RATE, VOTES

HEALTH = {0: ("healthy", "green"), 1: ("degraded", "orange"), 2: ("unhealthy", "red")}
WELL = {1: ("well", "green"), 0: ("failing", "red")}
UP = {1: ("up", "green"), 0: ("down", "red")}
QUIET = {None: "green", 1: "red"}


def pipeline():
    known = "max by (job, instance, program, version) (last_over_time(ovation_build_info[1h]))"
    return p.dashboard(
        "ovation-pipeline", "Ovation: pipeline", "Whether votes flow, where they wait, what fails, and what the parts cost.",
        [CONTESTS, BAND, PERIOD, COMPARE],
        {
            "Health": [
                p.stat("Health", "The worst of all processes.", "none", {"worst": "max(ovation_health)"}, names=HEALTH,
                       steps={None: "green", 1: "orange", 2: "red"}),
                p.stat("Alerts", "Alerts that fire now, by name; `none` if none does.", "none",
                       {"{{alertname}}": or_none(f"count by (alertname) ({ALERTS})", "alertname")}, steps=QUIET),
                p.stat("Stopped partitions", "Partitions that are not counted until an operator has looked at them.", "none",
                       {"stopped": or_none("sum(max by (partition) (ovation_partition_stopped))")}, steps=QUIET),
                p.stat("Not counted", "Votes on the log that no consumer has counted.", VOTES,
                       {"waiting": f"sum({LAG})"},
                       steps={None: "green", 10_000: "orange", 100_000: "red"}),
                p.stat("Slowest hundredth", "From a vote's acceptance to its being in the tallies: 99 of 100 were faster.", "s",
                       {"p99": quantile(0.99, "ovation_count_delay_seconds")}, steps={None: "green", 0.25: "orange", 1: "red"}),
                p.stat("Refused", "The part of the votes of the last $period that was not accepted.", "percentunit",
                       {"of all votes": f"({or_none(grown('ovation_votes_total', REFUSED))}) / {grown('ovation_votes_total')}"},
                       steps={None: "green", 0.01: "orange", 0.05: "red"}),
                p.states("Processes", "Which programs answer Prometheus. One that has been away for an hour is forgotten.", "none", {
                    "{{program}} {{version}} {{instance}}": f"up * on (job, instance) group_left (program, version) {known}",
                }, UP, w=8),
                p.states("Health of each process", "What `/health` of each says.", "none", {EACH: ours("ovation_health")},
                         HEALTH, w=8),
                p.states("Checks", "Stores and the machine as the processes see them. Failing where one process says so.", "none",
                         {"{{check}}": "min by (check) (ovation_check_up)"}, WELL, w=8),
            ],
            "Flow": [
                p.series("Votes each second", "What the doors accept and refuse, and what is counted, of all contests.", RATE, {
                    "accepted": rate("ovation_votes_total", ACCEPTED),
                    "refused": or_none(rate("ovation_votes_total", REFUSED)),
                    "counted": rate("ovation_counted_votes_total"),
                }),
                p.series("Counted by contest", "Votes counted each second, of the chosen contests and bands.", RATE,
                         {"{{contest}}": rate("ovation_counted_votes_total", CHOSEN, "contest")}, stacked=True),
                p.series("Accepted and counted against $compare earlier", "Votes each second, laid over those of the same time earlier.", RATE, {
                    "accepted": rate("ovation_votes_total", ACCEPTED),
                    "accepted, $compare earlier": rate("ovation_votes_total", ACCEPTED, at=EARLIER),
                    "counted": rate("ovation_counted_votes_total"),
                    "counted, $compare earlier": rate("ovation_counted_votes_total", at=EARLIER),
                }),
                p.series("Lag of each partition", "Votes on the log that are not counted yet. One partition that stays above the others has a "
                         "consumer that hangs, or is stopped.", VOTES,
                         {"partition {{partition}}": LAG}),
                p.series("From acknowledged to counted", "How long votes take from their acceptance to the tallies.", "s",
                         quantiles("ovation_count_delay_seconds")),
                p.series("From acknowledged to counted against $compare earlier", "The slowest hundredth, now and earlier.", "s", {
                    "p99": quantile(0.99, "ovation_count_delay_seconds"),
                    "p99, $compare earlier": quantile(0.99, "ovation_count_delay_seconds", at=EARLIER),
                }),
                p.heat("From acknowledged to counted, as a heat map", "How many votes took how long to the tallies.", "s",
                       buckets("ovation_count_delay_seconds"), w=24),
            ],
            "Refusals and errors": [
                p.series("Refused votes by reason", "Each second. `queue-full` is overload; the rest is what callers sent.", RATE, {
                    "{{door}}: {{outcome}}": or_none(rate("ovation_votes_total", REFUSED, "door, outcome"), "door", "outcome"),
                }),
                p.series("Failed requests", "Answers each second that are no success, by status: HTTP 4xx and 5xx, and gRPC's names.", "reqps", {
                    "{{door}}: {{status}}": or_none(rate("ovation_requests_total", FAILED, "door, status"), "door", "status"),
                }),
                p.series("Failures of stores", "Calls each second that a store did not do; counting tries them again.", "ops", {
                    "{{store}}: {{operation}}": or_none(rate("ovation_store_failures_total", by="store, operation"), "store", "operation"),
                }),
                p.series("What counting met in the last $period", "Repeats of votes, batches that another consumer had counted, times the stores "
                         "were elsewhere than thought, and records that are no votes. None of them is counted twice.", "short", {
                             "duplicates": or_none(grown("ovation_duplicate_votes_total")),
                             "fenced batches": or_none(grown("ovation_fenced_batches_total")),
                             "reconciliations": or_none(grown("ovation_reconciliations_total")),
                             "dead letters": or_none(grown("ovation_dead_letters_total")),
                         }, w=12),
                p.series("Heaviest voter and network", "The part of the most frequent voter and network in the votes of the last full minute; 0 "
                         "if there were fewer than 1 000.", "percentunit",
                         {"{{door}}: {{kind}}": "max by (door, kind) (ovation_heavy_hitter_ratio)"}, w=12),
            ],
            "Queue, batches and stores": [
                p.series("Queue saturation", "Votes that wait for the log's receipt, of as many as may. At 100 % votes are refused.", "percentunit",
                         {EACH: ours("ovation_queue_votes / ovation_queue_limit_votes")}, max=1),
                p.series("Producing", "From the cast of a vote to the log's receipt.", "s", {
                    "{{door}} p50": quantile(0.5, "ovation_cast_seconds", by="door"),
                    "{{door}} p99": quantile(0.99, "ovation_cast_seconds", by="door"),
                }),
                p.series("Batch size", "Records in a batch of the consumers.", "short", {
                    "mean": mean("ovation_batch_records"),
                    "p99": quantile(0.99, "ovation_batch_records"),
                }),
                p.series("Batch duration", "How long counting one batch takes, in book and tallies together.", "s", quantiles("ovation_batch_seconds")),
                p.series("Stores: median", "How long each call of a store takes.", "s",
                         {"{{store}}: {{operation}}": quantile(0.5, "ovation_store_seconds", by="store, operation")}),
                p.series("Stores: slowest hundredth", "99 of 100 calls were faster.", "s",
                         {"{{store}}: {{operation}}": quantile(0.99, "ovation_store_seconds", by="store, operation")}),
                p.series("Duration of checks", "How long each dependency took to answer when it was last checked, where slowest.", "s",
                         {"{{check}}": "max by (check) (ovation_check_seconds)"}, w=12),
                p.series("Let go in the last $period", "Votes that were folded into summaries (`book`) or let go (`log`), because of a retention.",
                         "short", {"{{store}}": or_none(grown("ovation_expired_votes_total", by="store"), "store")}, w=12),
            ],
            "Our processes": [
                p.series("CPU", "Cores in use.", "suffix:cores",
                         {EACH: ours(rate("ovation_cpu_microseconds_total", by="job, instance") + " / 1e6")}),
                p.series("Memory", "Resident memory.", "bytes", {EACH: ours("process_resident_memory_bytes")}),
                p.series("Open files", "Of connections and files together.", "short", {EACH: ours("process_open_fds")}),
                p.series("How full", "Memory, disk and CPU: of the container's limit where it has one, else of the machine.", "percentunit",
                         {"{{resource}}: " + EACH: ours("ovation_used_ratio")}, w=12, max=1),
                p.series("CPU against $compare earlier", "Cores in use by all processes together.", "suffix:cores", {
                    "now": rate("ovation_cpu_microseconds_total") + " / 1e6",
                    "$compare earlier": rate("ovation_cpu_microseconds_total", at=EARLIER) + " / 1e6",
                }, w=12),
            ],
            "Redis, Kafka and MongoDB: needs their exporters …": stores(),
        }, alerts=ALERTS, last="30m")


def stores():
    """The servers, as the exporters tell that `docs/metrics.md` names.

    kafka_exporter knows topics and groups, but not memory, CPU and connections: those a broker's own JMX agent tells. A server in MongoDB's
    place may serve Prometheus itself. Either way an exporter's own process is not the server."""
    def kafka(query):
        return f"{query} unless on (job, instance) kafka_brokers"

    def mongodb(query):
        return f"{query} unless on (job, instance) mongodb_up"

    accepted = "sum by (job, instance) (ferretdb_client_accepts_total)"
    closed = "sum by (job, instance) (ferretdb_client_duration_seconds_count)"
    microseconds = "rate(mongodb_ss_extra_info_user_time_us[$__rate_interval]) + rate(mongodb_ss_extra_info_system_time_us[$__rate_interval])"
    return [
        p.series("Memory of each server", "Resident memory.", "bytes", {
            "Redis {{instance}}": "redis_memory_used_rss_bytes",
            "Kafka {{instance}}": kafka('process_resident_memory_bytes{job=~".*kafka.*"}'),
            "MongoDB {{instance}}": "mongodb_ss_mem_resident * 1048576 or " + mongodb('process_resident_memory_bytes{job=~".*mongo.*"}'),
        }),
        p.series("CPU of each server", "Cores in use.", "suffix:cores", {
            "Redis {{instance}}": "rate(redis_cpu_user_seconds_total[$__rate_interval]) + rate(redis_cpu_sys_seconds_total[$__rate_interval])",
            "Kafka {{instance}}": kafka('rate(process_cpu_seconds_total{job=~".*kafka.*"}[$__rate_interval])'),
            "MongoDB {{instance}}": f"({microseconds}) / 1e6 or "
                                    + mongodb('rate(process_cpu_seconds_total{job=~".*mongo.*"}[$__rate_interval])'),
        }),
        p.series("Connections of each server", "Those that are open now.", "short", {
            "Redis {{instance}}": "redis_connected_clients",
            "Kafka {{instance}}": "sum by (instance) (kafka_server_socket_server_metrics_connection_count)",
            "MongoDB {{instance}}": f'mongodb_ss_connections{{conn_type="current"}} or {accepted} - ({closed} or {accepted} * 0)',
        }),
        p.series("Redis: memory", "What the data takes, the most it ever took, and how much it may take (0: all there is). Full is a stop: "
                 "counts may not be evicted.", "bytes", {
                     "used {{instance}}": "redis_memory_used_bytes",
                     "peak {{instance}}": "redis_memory_used_peak_bytes",
                     "limit {{instance}}": "redis_memory_max_bytes",
                 }, w=6),
        p.series("Redis: commands", "Each second. Counting needs one for a batch.", "ops",
                 {"{{instance}}": "rate(redis_commands_processed_total[$__rate_interval])"}, w=6),
        p.series("Kafka: records", "Records that came onto each topic each second.", "suffix:records/s", {
            "{{topic}}": 'sum by (topic) (rate(kafka_topic_partition_current_offset{topic!~"__.*"}[$__rate_interval])) or '
                         'sum by (topic) (rate(kafka_server_brokertopicmetrics_messagesin_total{topic!~"__.*"}[$__rate_interval]))',
        }, w=6),
        p.series("Kafka: brokers and copies", "Brokers that are there, and partitions that have fewer copies in sync than they should.", "short", {
            "brokers": "max(kafka_brokers) or count(kafka_server_replicamanager_partitioncount)",
            "under-replicated partitions": "sum(kafka_topic_partition_under_replicated_partition) or "
                                           "sum(kafka_server_replicamanager_underreplicatedpartitions)",
        }, w=6),
    ]
