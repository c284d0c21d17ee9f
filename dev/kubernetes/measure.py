"""`dev/cluster measure`: measures the CPU time of a vote, and how many votes are counted a second. Compare the figures only with those of the
same machine."""

import json
import time

from processes import Failure, print_progress, wait_until

from .floods import Flood
from .ovation import NAMESPACE, RELEASE, Ovation

ENTRY = "envoy-gateway-system"

# The numbers of consumers, in this order. Each is measured early and late, in case the machine becomes slower or faster meanwhile.
CONSUMERS = (1, 2, 5, 5, 2, 1)

# The lowest number of uncounted votes at which the consumers are started.
BACKLOG = 30_000

PRODUCERS = [("votes", "rest", 300), ("grpc", "grpc", 300), ("grpc", "grpc-stream", 2000), ("votes", "rest-batch", 2000, "--batch-size=100")]

# The duration of a measured flood, in seconds.
SECONDS = 15


def measure(cluster, options):
    cluster.require()
    ovation = Ovation(cluster)
    flags = [f"--namespace={NAMESPACE}", "--reuse-values", "--force-conflicts", "--wait", "--timeout=5m"]
    history = json.loads(cluster.helm("history", RELEASE, f"--namespace={NAMESPACE}", "--output=json"))
    # REST votes go to the REST producer only, and no autoscaler changes the number of consumers.
    settings = "--set=consumer.hpa.enabled=false,consumer.keda.enabled=false,entry.gateway.weights.rest=100,entry.gateway.weights.grpc=0"
    cluster.helm("upgrade", RELEASE, options.chart, *flags, settings, fails="helm upgrade failed")
    try:
        report = {"producers": [measure_producer(ovation, *producer) for producer in PRODUCERS], "counting": [measure_counting(ovation, consumers) for consumers in CONSUMERS]}
    finally:
        cluster.helm("rollback", RELEASE, str(history[-1]["revision"]), f"--namespace={NAMESPACE}", "--force-conflicts", "--wait", "--timeout=5m")
    if options.json:
        print(json.dumps(report))
        return
    print("Microseconds of CPU time for an acknowledged vote, and the p99 of its latency")
    table([{"producer": producer["protocol"], "votes/s": round(producer["rate"]), "p99 ms": producer["p99_ms"]} | producer["micros"] for producer in report["producers"]])
    print("\nCounting a backlog, and microseconds of CPU time for each vote")
    table([{"consumers": run["consumers"], "votes": run["votes"], "seconds": run["seconds"], "votes/s": run["rate"]} | run["micros"] for run in report["counting"]])


def measure_producer(ovation, host, protocol, rate, *flags):
    """Floods a producer without consumers, and returns the latency and the costs of its votes."""
    scale(ovation, 0)
    # The first flood warms up connections, caches and Kafka's JVM.
    flood(ovation, host, protocol, rate, 3, *flags)
    before = cpu(ovation)
    report = flood(ovation, host, protocol, rate, SECONDS, *flags)
    print_progress(f"{protocol}: {report['acknowledged']} votes")
    return {"protocol": protocol, "rate": report["rate"], "p99_ms": report["p99_ms"], "micros": costs(before, cpu(ovation), report["acknowledged"])}


def measure_counting(ovation, consumers):
    """Lets this many consumers count a backlog, and returns their rate and the costs of a vote."""
    scale(ovation, 0)
    backlog = 0
    while backlog < BACKLOG:
        backlog += flood(ovation, "votes", "rest-batch", "max", 2, "--connections=2")["acknowledged"]
    before = cpu(ovation)
    start = ovation.tally()["processed"]
    scale(ovation, consumers, wait=False)
    # Measure from the first counted vote, without the start of the pods.
    if not wait_until(lambda: ovation.tally()["processed"] > start, 60):
        raise Failure("no vote is counted")
    began, first = time.monotonic(), ovation.tally()["processed"]
    if not ovation.await_counted(300):
        raise Failure(f"{consumers} consumers do not count {backlog} votes in 300 s")
    seconds, counted = time.monotonic() - began, ovation.tally()["processed"] - first
    print_progress(f"{consumers} consumers: {counted} votes in {seconds:.1f} s")
    return {"consumers": consumers, "votes": counted, "seconds": round(seconds, 1), "rate": round(counted / seconds), "micros": costs(before, cpu(ovation), backlog)}


def flood(ovation, host, protocol, rate, seconds, *flags):
    run = Flood(ovation, "bands", host, protocol, rate, f"--for={seconds}s", "--retry-for=30s", *flags)
    run.start()
    report = run.wait()
    run.delete_files()
    return report


def scale(ovation, consumers, wait=True):
    """Sets the number of consumer pods, and waits until there are that many."""
    name = f"deployment/{RELEASE}-consumer"
    ovation.kubectl("scale", name, f"--replicas={consumers}")
    if wait:
        selector = "--selector=app.kubernetes.io/component=consumer"
        if not wait_until(lambda: len(ovation.kubectl("get", "pods", selector, "--output=name").split()) == consumers, 60, interval=1):
            raise Failure(f"there should be {consumers} consumers")


def cpu(ovation):
    """Returns the CPU time in nanoseconds of each running container: (container name, process id) -> nanoseconds."""
    used = {}
    for namespace in (NAMESPACE, ENTRY):
        for _, container, pid in ovation.containers(namespace):
            used[container, pid] = int((ovation.control_group(pid, "cpuacct") / "cpuacct.usage").read_text())
    return used


def costs(before, after, votes):
    """Returns the CPU time of a vote by container name, in microseconds, from two results of `cpu`. Leaves out costs below 0.5."""
    micros = {}
    for (container, pid), used in after.items():
        micros[container] = micros.get(container, 0) + (used - before.get((container, pid), 0)) / 1000 / votes
    return {container: round(cost, 1) for container, cost in sorted(micros.items(), key=lambda item: -item[1]) if cost >= 0.5}


def table(rows):
    """Prints rows as a Markdown table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
