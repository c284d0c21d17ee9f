"""Whether the chart's limits hold for long: votes come steadily, and memory stays where it is."""

import re
import time

from floods import Flooding
from ovation import Ovation, check
from processes import Failure, say

# Half of the fire's calm: its rush is twenty times as much.
STEADY = [("votes", "rest", 20), ("grpc", "grpc", 15), ("grpc", "grpc-stream", 100), ("votes", "rest-batch", 50, "--batch-size=10")]

# How often memory is read, in seconds.
EVERY = 10

# A program's memory in the last quarter may be this much above that of the second: a leak of 1 kB a vote would be more.
GROWTH = 8 << 20

PROGRAMS = re.compile(r"ovation-(rest-producer|grpc-producer|forwarder|consumer|results)-")


def hold(cluster, options):
    cluster.require()
    ovation = Ovation(cluster)
    contest = "steady" if "steady" in ovation.contests else "bands"
    length = seconds(options.length)
    was = {name: restarts for name, restarts, _ in endings(ovation)}
    samples, last = {}, 0
    with Flooding(ovation, contest, STEADY, is_planned=False):
        began = time.monotonic()
        while (passed := time.monotonic() - began) < length:
            for pod, container, pid in ovation.containers():
                # A container that ends between the two looks is seen by its restarts.
                try:
                    group = ovation.control_group(pid, "memory")
                    samples.setdefault(f"{pod}/{container}", []).append((passed, memory(group)))
                except OSError:
                    continue
            if passed - last >= 300:
                last = passed
                say(f"{passed / 60:.0f} minutes: " + ", ".join(f"{name} {values[-1][1][0] >> 20} MB" for name, values in sorted(samples.items())))
            time.sleep(min(EVERY, max(0, length - passed)))
    print(f"{'container':58} {'limit':>8} {'most':>8} {'2nd quarter':>12} {'last quarter':>12}  MB, without what files are cached")
    grown = []
    for name, values in sorted(samples.items()):
        quarter = lambda from_, to: median([used for passed, (used, _) in values if from_ * length <= passed < to * length])
        limit, most, second, fourth = values[-1][1][1], max(used for _, (used, _) in values), quarter(0.25, 0.5), quarter(0.75, 1.01)
        print(f"{name:58} {limit >> 20:>8} {most >> 20:>8} {(second or 0) / 2**20:>12.1f} {(fourth or 0) / 2**20:>12.1f}")
        if PROGRAMS.match(name) and second and fourth and fourth - second > GROWTH:
            grown.append(name)
    killed = [name for name, restarts, reason in endings(ovation) if restarts > was.get(name, 0) or reason == "OOMKilled" and name not in was]
    check(not killed, f"no container was killed or restarted in {length / 60:.0f} minutes{': ' + ', '.join(killed) if killed else ''}")
    check(not grown, f"the memory of our programs is flat{': not of ' + ', '.join(grown) if grown else ''}")


def seconds(text):
    units = {"s": 1, "m": 60, "h": 3600}
    if not re.fullmatch(r"[1-9][0-9]*[smh]", text):
        raise Failure(f"--for {text}: give a whole number and its unit, like 1h or 10m")
    return int(text[:-1]) * units[text[-1]]


def memory(group):
    """Bytes that a container holds and the kernel can't take back, and its limit."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(stat["total_rss"]) + int(stat.get("total_mapped_file", 0)), int(stat["hierarchical_memory_limit"])


def endings(ovation):
    for pod in ovation.pods():
        for status in pod["status"].get("containerStatuses", []):
            yield f"{pod['metadata']['name']}/{status['name']}", status["restartCount"], status.get("lastState", {}).get("terminated", {}).get("reason")


def median(values):
    return sorted(values)[len(values) // 2] if values else None
