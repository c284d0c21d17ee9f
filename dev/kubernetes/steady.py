"""`dev/cluster steady`: casts votes at a steady rate, and checks that memory stays within the chart's limits and does not grow."""

import re
import time

from processes import Failure, print_progress

from .floods import Flooding
from .ovation import Ovation, check

# The floods, as host, protocol, votes a second and flags. Together they have about half of the rate of BASE_FLOODS in fire.py.
FLOODS = [("votes", "rest", 20), ("grpc", "grpc", 15), ("grpc", "grpc-stream", 100), ("votes", "rest-batch", 50, "--batch-size=10")]

# Seconds between two readings of memory.
SAMPLE_INTERVAL = 10

# By how many bytes the median memory of a program in the last quarter may exceed that in the second. A leak of 1 kB per vote would exceed it.
MAX_GROWTH = 8 << 20

PROGRAMS = re.compile(r"ovation-(rest-producer|grpc-producer|forwarder|consumer|results)-")


def run_steady(cluster, options):
    cluster.require()
    ovation = Ovation(cluster)
    contest = "steady" if "steady" in ovation.contests else "bands"
    length = seconds(options.length)
    restarts_before = {name: restarts for name, restarts, _ in endings(ovation)}
    samples, last = {}, 0
    with Flooding(ovation, contest, FLOODS, is_planned=False):
        began = time.monotonic()
        while (passed := time.monotonic() - began) < length:
            for pod, container, pid in ovation.containers():
                # A container may end before its memory is read. The check at the end detects its restart.
                try:
                    group = ovation.control_group(pid, "memory")
                    samples.setdefault(f"{pod}/{container}", []).append((passed, memory(group)))
                except OSError:
                    continue
            if passed - last >= 300:
                last = passed
                print_progress(f"{passed / 60:.0f} minutes: " + ", ".join(f"{name} {values[-1][1][0] >> 20} MB" for name, values in sorted(samples.items())))
            time.sleep(min(SAMPLE_INTERVAL, max(0, length - passed)))
    print(f"{'container':58} {'limit':>8} {'peak':>8} {'2nd quarter':>12} {'last quarter':>12}  MB, without the page cache")
    grown = []
    for name, values in sorted(samples.items()):
        quarter = lambda from_, to: median([used for passed, (used, _) in values if from_ * length <= passed < to * length])
        limit, peak, second, fourth = values[-1][1][1], max(used for _, (used, _) in values), quarter(0.25, 0.5), quarter(0.75, 1.01)
        print(f"{name:58} {limit >> 20:>8} {peak >> 20:>8} {(second or 0) / 2**20:>12.1f} {(fourth or 0) / 2**20:>12.1f}")
        if PROGRAMS.match(name) and second and fourth and fourth - second > MAX_GROWTH:
            grown.append(name)
    killed = [name for name, restarts, reason in endings(ovation) if restarts > restarts_before.get(name, 0) or reason == "OOMKilled" and name not in restarts_before]
    check(not killed, f"no container was killed or restarted in {length / 60:.0f} minutes{': ' + ', '.join(killed) if killed else ''}")
    check(not grown, f"the memory of our programs does not grow{', except of ' + ', '.join(grown) if grown else ''}")


def seconds(text):
    units = {"s": 1, "m": 60, "h": 3600}
    if not re.fullmatch(r"[1-9][0-9]*[smh]", text):
        raise Failure(f"--for {text} is not a whole number with a unit, like 1h or 10m")
    return int(text[:-1]) * units[text[-1]]


def memory(group):
    """Returns the bytes of a container's memory that the kernel can't reclaim, and its limit."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(stat["total_rss"]) + int(stat.get("total_mapped_file", 0)), int(stat["hierarchical_memory_limit"])


def endings(ovation):
    """Yields for each container: pod/container, the number of restarts, and the reason of the last termination or None."""
    for pod in ovation.pods():
        for status in pod["status"].get("containerStatuses", []):
            yield f"{pod['metadata']['name']}/{status['name']}", status["restartCount"], status.get("lastState", {}).get("terminated", {}).get("reason")


def median(values):
    return sorted(values)[len(values) // 2] if values else None
