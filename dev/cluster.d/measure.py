"""What a vote costs, and how many are counted a second: of this machine, and so to be held against each other, not against others'."""

import json
import time

from floods import Flood
from ovation import NAMESPACE, RELEASE, Ovation
from processes import Failure, say, wait_until

ENTRY = "envoy-gateway-system"

# Forth and back, so that a machine that becomes slower meets all of them.
CONSUMERS = (1, 2, 5, 5, 2, 1)

# Votes that wait, at least, when the consumers come.
BACKLOG = 30_000

DOORS = [("votes", "rest", 300), ("grpc", "grpc", 300), ("grpc", "grpc-stream", 2000), ("votes", "rest-batch", 2000, "--batch-size=100")]

SECONDS = 15


def measure(cluster, options):
    cluster.require()
    ovation = Ovation(cluster)
    flags = [f"--namespace={NAMESPACE}", "--reuse-values", "--force-conflicts", "--wait", "--timeout=5m"]
    history = json.loads(cluster.helm("history", RELEASE, f"--namespace={NAMESPACE}", "--output=json"))
    # One door for REST, and nothing that changes the number of consumers.
    alone = "--set=consumer.hpa.enabled=false,consumer.keda.enabled=false,entry.gateway.weights.rest=100,entry.gateway.weights.grpc=0"
    cluster.helm("upgrade", RELEASE, options.chart, *flags, alone, fails="helm upgrade failed")
    try:
        report = {"doors": [cast(ovation, *door) for door in DOORS], "counting": [count(ovation, consumers) for consumers in CONSUMERS]}
    finally:
        cluster.helm("rollback", RELEASE, str(history[-1]["revision"]), f"--namespace={NAMESPACE}", "--force-conflicts", "--wait", "--timeout=5m")
    if options.json:
        print(json.dumps(report))
        return
    print("Microseconds of CPU for a vote that is acknowledged, and its p99")
    table([{"door": door["protocol"], "votes/s": round(door["rate"]), "p99 ms": door["p99_ms"]} | door["micros"] for door in report["doors"]])
    print("\nCounting votes that wait, and microseconds of CPU for each")
    table([{"consumers": run["consumers"], "votes": run["votes"], "seconds": run["seconds"], "votes/s": run["rate"]} | run["micros"] for run in report["counting"]])


def cast(ovation, host, protocol, rate, *flags):
    scale(ovation, 0)
    # Connections, caches and the compiler of Kafka's Java are warm then.
    flood(ovation, host, protocol, rate, 3, *flags)
    before = cpu(ovation)
    report = flood(ovation, host, protocol, rate, SECONDS, *flags)
    say(f"{protocol}: {report['acknowledged']} votes")
    return {"protocol": protocol, "rate": report["rate"], "p99_ms": report["p99_ms"], "micros": costs(before, cpu(ovation), report["acknowledged"])}


def count(ovation, consumers):
    scale(ovation, 0)
    waiting = 0
    while waiting < BACKLOG:
        waiting += flood(ovation, "votes", "rest-batch", "max", 2, "--connections=2")["acknowledged"]
    before = cpu(ovation)
    start = ovation.tally()["processed"]
    scale(ovation, consumers, wait=False)
    # From the first vote that is counted, since pods start as fast as they do.
    if not wait_until(lambda: ovation.tally()["processed"] > start, 60):
        raise Failure("nothing is counted")
    began, first = time.monotonic(), ovation.tally()["processed"]
    if not ovation.await_counted(300):
        raise Failure(f"{consumers} consumers don't count {waiting} votes in 300 s")
    seconds, counted = time.monotonic() - began, ovation.tally()["processed"] - first
    say(f"{consumers} consumers: {counted} votes in {seconds:.1f} s")
    return {"consumers": consumers, "votes": counted, "seconds": round(seconds, 1), "rate": round(counted / seconds), "micros": costs(before, cpu(ovation), waiting)}


def flood(ovation, host, protocol, rate, seconds, *flags):
    run = Flood(ovation, "bands", host, protocol, rate, f"--for={seconds}s", "--retry-for=30s", *flags)
    run.start()
    report = run.end()
    run.forget()
    return report


def scale(ovation, consumers, wait=True):
    name = f"deployment/{RELEASE}-consumer"
    ovation.kubectl("scale", name, f"--replicas={consumers}")
    if wait:
        selector = "--selector=app.kubernetes.io/component=consumer"
        if not wait_until(lambda: len(ovation.kubectl("get", "pods", selector, "--output=name").split()) == consumers, 60, every=1):
            raise Failure(f"there aren't {consumers} consumers")


def cpu(ovation):
    """Nanoseconds of CPU that each kind of container has used, by its process, those that are gone left out."""
    used = {}
    for namespace in (NAMESPACE, ENTRY):
        for _, container, pid in ovation.containers(namespace):
            used[container, pid] = int((ovation.control_group(pid, "cpuacct") / "cpuacct.usage").read_text())
    return used


def costs(before, after, votes):
    micros = {}
    for (container, pid), used in after.items():
        micros[container] = micros.get(container, 0) + (used - before.get((container, pid), 0)) / 1000 / votes
    return {container: round(cost, 1) for container, cost in sorted(micros.items(), key=lambda item: -item[1]) if cost >= 0.5}


def table(rows):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
