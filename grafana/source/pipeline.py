"""The dashboard *Pipeline*: the flow of votes, where votes wait, errors, and the CPU and memory of each process."""

import panels as p
from promql import (ACCEPTED, ALERTS, CHOSEN, EARLIER, FAILED, LAG, PROCESS, REFUSED, UNHELD, buckets, increase, mean, or_zero,
                    ovation_processes, quantile, quantiles, rate)
from variables import BAND, COMPARE, CONTESTS, PERIOD, RATE, VOTES

HEALTH = {0: ("healthy", "green"), 1: ("degraded", "orange"), 2: ("unhealthy", "red")}
CHECK = {1: ("healthy", "green"), 0: ("failing", "red")}
UP = {1: ("up", "green"), 0: ("down", "red")}
ZERO_IS_GOOD = {None: "green", 1: "red"}


def pipeline():
    known = "max by (job, instance, program, version) (last_over_time(ovation_build_info[1h]))"
    return p.dashboard(
        "ovation-pipeline", "Ovation: pipeline", "The flow of votes, where votes wait, errors, and the CPU and memory of each process.",
        [CONTESTS, BAND, PERIOD, COMPARE],
        {
            "Health": [
                p.stat("Health", "The worst health of all processes.", "none", {"worst": "max(ovation_health)"}, names=HEALTH,
                       steps={None: "green", 1: "orange", 2: "red"}),
                p.stat("Alerts", "Alerts that fire now, by name. `none` if no alert fires.", "none",
                       {"{{alertname}}": or_zero(f"count by (alertname) ({ALERTS})", "alertname")}, steps=ZERO_IS_GOOD),
                p.stat("Partitions", "Partitions that are not counted: those that a consumer has stopped, which an operator must repair, and those "
                       "without a consumer.", "none",
                       {"stopped": or_zero("sum(max by (partition) (ovation_partition_stopped))"), "without a consumer": UNHELD}, steps=ZERO_IS_GOOD),
                p.stat("Not counted yet", "Votes that are on the vote log and not counted yet.", VOTES,
                       {"lag": f"sum({LAG})"},
                       steps={None: "green", 10_000: "orange", 100_000: "red"}),
                p.stat("Counting delay", "Time from a vote's acceptance until it is in the tallies. 99 of 100 votes take less time than this.", "s",
                       {"p99": quantile(0.99, "ovation_count_delay_seconds")}, steps={None: "green", 0.25: "orange", 1: "red"}),
                p.stat("Refused votes", "Share of refused votes among the votes of the last $period.", "percentunit",
                       {"of all votes": f"({or_zero(increase('ovation_votes_total', REFUSED))}) / {increase('ovation_votes_total')}"},
                       steps={None: "green", 0.01: "orange", 0.05: "red"}),
                p.states("Processes", "Whether Prometheus can scrape each process. A process that ended more than an hour ago is not shown.", "none", {
                    "{{program}} {{version}} {{instance}}": f"up * on (job, instance) group_left (program, version) {known}",
                }, UP, w=8),
                p.states("Health of each process", "The status that each process returns at `/health`.", "none",
                         {PROCESS: ovation_processes("ovation_health")}, HEALTH, w=8),
                p.states("Checks", "Health checks of stores and machine resources. A check is shown as failing if it fails in at least one process.", "none",
                         {"{{check}}": "min by (check) (ovation_check_up)"}, CHECK, w=8),
            ],
            "Flow": [
                p.series("Votes per second", "Votes that the producers accept and refuse, and votes that are counted, for all contests.", RATE, {
                    "accepted": rate("ovation_votes_total", ACCEPTED),
                    "refused": or_zero(rate("ovation_votes_total", REFUSED)),
                    "counted": rate("ovation_counted_votes_total"),
                }),
                p.series("Counted by contest", "Votes counted per second, for the chosen contests and bands.", RATE,
                         {"{{contest}}": rate("ovation_counted_votes_total", CHOSEN, "contest")}, stacked=True),
                p.series("Accepted and counted, now and $compare earlier", "Votes per second, now and at the same time earlier.", RATE, {
                    "accepted": rate("ovation_votes_total", ACCEPTED),
                    "accepted, $compare earlier": rate("ovation_votes_total", ACCEPTED, at=EARLIER),
                    "counted": rate("ovation_counted_votes_total"),
                    "counted, $compare earlier": rate("ovation_counted_votes_total", at=EARLIER),
                }),
                p.series("Lag by partition", "Votes on the vote log that are not counted yet. If one partition stays above the others, its "
                         "consumer hangs or has stopped counting that partition.", VOTES,
                         {"partition {{partition}}": LAG}),
                p.series("Counting delay percentiles", "Time from a vote's acceptance until it is in the tallies.", "s",
                         quantiles("ovation_count_delay_seconds")),
                p.series("Counting delay, now and $compare earlier", "The 99th percentile, now and at the same time earlier.", "s", {
                    "p99": quantile(0.99, "ovation_count_delay_seconds"),
                    "p99, $compare earlier": quantile(0.99, "ovation_count_delay_seconds", at=EARLIER),
                }),
                p.heat("Counting delay, as a heat map", "Number of votes for each range of the counting delay.", "s",
                       buckets("ovation_count_delay_seconds"), w=24),
            ],
            "Refusals and errors": [
                p.series("Refused votes by reason", "Refused votes per second. `queue-full` and `log-unavailable` are faults of the system. The other reasons are "
                         "faults of the votes.", RATE, {
                             "{{producer}}: {{outcome}}": or_zero(rate("ovation_votes_total", REFUSED, "producer, outcome"),
                                                                  "producer", "outcome"),
                         }),
                p.series("Failed requests", "Unsuccessful responses per second, by status: HTTP 4xx and 5xx, and the names of gRPC statuses.", "reqps", {
                    "{{server}}: {{status}}": or_zero(rate("ovation_requests_total", FAILED, "server, status"), "server", "status"),
                }),
                p.series("Store failures", "Failed calls to stores per second. Consumers retry failed calls.", "ops", {
                    "{{store}}: {{operation}}": or_zero(rate("ovation_store_failures_total", by="store, operation"), "store", "operation"),
                }),
                p.series("Counting anomalies in the last $period", "Duplicates, batches that another consumer had already counted, reconciliations "
                         "of a consumer with the stores, and dead letters. In none of these cases is a vote counted twice.", "short", {
                             "duplicates": or_zero(increase("ovation_duplicate_votes_total")),
                             "fenced batches": or_zero(increase("ovation_fenced_batches_total")),
                             "reconciliations": or_zero(increase("ovation_reconciliations_total")),
                             "dead letters": or_zero(increase("ovation_dead_letters_total")),
                         }, w=12),
                p.series("Most frequent voter and network", "Share of the most frequent voter, and of the most frequent network, in the votes of the "
                         "last full minute. 0 if there were fewer than 1 000 votes.", "percentunit",
                         {"{{producer}}: {{kind}}": "max by (producer, kind) (ovation_heavy_hitter_ratio)"}, w=12),
            ],
            "Queue, batches and stores": [
                p.series("Queue saturation", "Votes that wait for the vote log's receipt, as a share of the limit. At 100 % new votes are "
                         "refused.", "percentunit", {PROCESS: ovation_processes("ovation_queued_votes / ovation_queued_votes_limit")}, max=1),
                p.series("Publish latency", "Time from when a vote is cast until the vote log's receipt.", "s", {
                    "{{producer}} p50": quantile(0.5, "ovation_cast_seconds", by="producer"),
                    "{{producer}} p99": quantile(0.99, "ovation_cast_seconds", by="producer"),
                }),
                p.series("Kafka client: median times", "A vote waits in the client of a producer (`queue`), its request waits to be sent (`send`), and the "
                         "broker responds (`round_trip`).", "s",
                         {"broker {{broker}}: {{stage}}": 'max by (broker, stage) (ovation_kafka_seconds{quantile="0.5"})'}),
                p.series("Kafka client: requests and retries", "Requests of all producers per second, and how many were sent again.", "reqps", {
                    "broker {{broker}}": rate("ovation_kafka_produce_requests_total", by="broker"),
                    "broker {{broker}}: retries": rate("ovation_kafka_retries_total", by="broker"),
                }),
                p.series("Kafka client: votes in a request", "The fewer votes a request has, the more CPU a vote costs in the producer and in Kafka.", "short",
                         {"quantile {{quantile}}": "max by (quantile) (ovation_kafka_request_votes)"}),
                p.series("Batch size", "Records in a batch of a consumer.", "short", {
                    "mean": mean("ovation_batch_records"),
                    "p99": quantile(0.99, "ovation_batch_records"),
                }),
                p.series("Batch duration", "Time to count one batch, in the ledger and the tallies together.", "s",
                         quantiles("ovation_batch_seconds")),
                p.series("Store latency: median", "Duration of a store's operations.", "s",
                         {"{{store}}: {{operation}}": quantile(0.5, "ovation_store_seconds", by="store, operation")}),
                p.series("Store latency: 99th percentile", "99 of 100 operations take less time than this.", "s",
                         {"{{store}}: {{operation}}": quantile(0.99, "ovation_store_seconds", by="store, operation")}),
                p.series("Duration of health checks", "Duration of the last check of each dependency, in the slowest process.", "s",
                         {"{{check}}": "max by (check) (ovation_check_seconds)"}, w=12),
                p.series("Votes expired in the last $period", "Votes that expired: moved from the ledger into summaries (`ledger`), or deleted "
                         "from the vote log (`log`).", "short", {"{{store}}": or_zero(increase("ovation_expired_votes_total", by="store"), "store")}, w=12),
            ],
            "Ovation processes": [
                p.series("CPU", "Cores in use.", "suffix:cores",
                         {PROCESS: ovation_processes(rate("ovation_cpu_microseconds_total", by="job, instance") + " / 1e6")}),
                p.series("Memory", "Resident memory.", "bytes", {PROCESS: ovation_processes("process_resident_memory_bytes")}),
                p.series("Open file descriptors", "Files and network connections together.", "short",
                         {PROCESS: ovation_processes("process_open_fds")}),
                p.series("Resource usage", "Memory, disk and CPU in use, as a share of the container's limit or, without one, of the machine.",
                         "percentunit", {"{{resource}}: " + PROCESS: ovation_processes("ovation_used_ratio")}, w=12, max=1),
                p.series("CPU, now and $compare earlier", "Cores in use by all processes together.", "suffix:cores", {
                    "now": rate("ovation_cpu_microseconds_total") + " / 1e6",
                    "$compare earlier": rate("ovation_cpu_microseconds_total", at=EARLIER) + " / 1e6",
                }, w=12),
            ],
            "Redis, Kafka and MongoDB (need their exporters) …": stores(),
        }, alerts=ALERTS, last="30m")


def stores():
    """Returns the panels of the servers, with the metrics of the exporters that `docs/metrics.md` and `grafana/README.md` name.

    kafka_exporter exports topics and groups. Memory, CPU and connections come from the JMX agent of a broker. A stand-in for MongoDB may export
    metrics itself. The queries leave out the processes of the exporters themselves, which have metrics of the same names."""
    def kafka(query):
        return f"{query} unless on (job, instance) kafka_brokers"

    def mongodb(query):
        return f"{query} unless on (job, instance) mongodb_up"

    accepted = "sum by (job, instance) (ferretdb_client_accepts_total)"
    closed = "sum by (job, instance) (ferretdb_client_duration_seconds_count)"
    microseconds = "rate(mongodb_ss_extra_info_user_time_us[$__rate_interval]) + rate(mongodb_ss_extra_info_system_time_us[$__rate_interval])"
    return [
        p.series("Memory by server", "Resident memory.", "bytes", {
            "Redis {{instance}}": "redis_memory_used_rss_bytes",
            "Kafka {{instance}}": kafka('process_resident_memory_bytes{job=~".*kafka.*"}'),
            "MongoDB {{instance}}": "mongodb_ss_mem_resident * 1048576 or " + mongodb('process_resident_memory_bytes{job=~".*mongo.*"}'),
        }),
        p.series("CPU by server", "Cores in use.", "suffix:cores", {
            "Redis {{instance}}": "rate(redis_cpu_user_seconds_total[$__rate_interval]) + rate(redis_cpu_sys_seconds_total[$__rate_interval])",
            "Kafka {{instance}}": kafka('rate(process_cpu_seconds_total{job=~".*kafka.*"}[$__rate_interval])'),
            "MongoDB {{instance}}": f"({microseconds}) / 1e6 or "
                                    + mongodb('rate(process_cpu_seconds_total{job=~".*mongo.*"}[$__rate_interval])'),
        }),
        p.series("Connections by server", "Connections that are open now.", "short", {
            "Redis {{instance}}": "redis_connected_clients",
            "Kafka {{instance}}": "sum by (instance) (kafka_server_socket_server_metrics_connection_count)",
            "MongoDB {{instance}}": f'mongodb_ss_connections{{conn_type="current"}} or {accepted} - ({closed} or {accepted} * 0)',
        }),
        p.series("Redis: memory", "Memory of the data now, at its peak, and the limit (0 means no limit). At the limit counting "
                 "stops, because Redis must not evict counts.", "bytes", {
                     "used {{instance}}": "redis_memory_used_bytes",
                     "peak {{instance}}": "redis_memory_used_peak_bytes",
                     "limit {{instance}}": "redis_memory_max_bytes",
                 }, w=6),
        p.series("Redis: commands", "Commands per second. Counting sends one for each batch.", "ops",
                 {"{{instance}}": "rate(redis_commands_processed_total[$__rate_interval])"}, w=6),
        p.series("Kafka: records", "Records written to each topic per second.", "suffix:records/s", {
            "{{topic}}": 'sum by (topic) (rate(kafka_topic_partition_current_offset{topic!~"__.*"}[$__rate_interval])) or '
                         'sum by (topic) (rate(kafka_server_brokertopicmetrics_messagesin_total{topic!~"__.*"}[$__rate_interval]))',
        }, w=6),
        p.series("Kafka: brokers and replicas", "Brokers that are up, and partitions that have fewer in-sync replicas than replicas.", "short", {
            "brokers": "max(kafka_brokers) or count(kafka_server_replicamanager_partitioncount)",
            "under-replicated partitions": "sum(kafka_topic_partition_under_replicated_partition) or "
                                           "sum(kafka_server_replicamanager_underreplicatedpartitions)",
        }, w=6),
    ]
