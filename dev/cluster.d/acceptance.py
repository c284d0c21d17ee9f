"""What has to be so of an Ovation that was just installed."""

import json
from pathlib import Path

from ovation import NAMESPACE, RELEASE, Ovation, check
from processes import say


def confinement(pid):
    """What keeps a process from doing harm, as the kernel tells it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    root = next(line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/")
    is_plain = int(status["CapEff"], 16) == 0 and status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    return is_plain and "ro" in root[5].split(",") and "0" not in status["Uid"].split()


def accept(cluster, _):
    cluster.require()
    ovation = Ovation(cluster)
    manifest = cluster.helm("get", "manifest", RELEASE, f"--namespace={NAMESPACE}") + cluster.helm("get", "hooks", RELEASE, f"--namespace={NAMESPACE}")
    objects = cluster.kubectl(f"--namespace={NAMESPACE}", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-", input=manifest, fails="the API server refuses what the chart renders")
    check(True, f"the API server takes all {len(objects.splitlines())} objects strictly")
    cluster.helm("test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=3m", fails="the chart's tests failed")
    check(True, "the chart's tests pass")

    before = ovation.audit()
    check(before["ok"], f"the audit finds nothing wrong before: {before['tallies']} votes")
    was = ovation.tally()
    # As many a second as small requests on two cores take beside everything else.
    acknowledged = ovation.cast("votes", "rest", 10_000, 500)
    now = ovation.await_total(was["total"] + acknowledged)
    check(now["total"] - was["total"] == acknowledged, f"{acknowledged} votes posted to {ovation.hosts['votes']} are acknowledged and counted")
    weights = ovation.entry["gateway"]["weights"]
    for door in ("rest", "grpc"):
        share = 100 * (now["doors"].get(door, 0) - was["doors"].get(door, 0)) / acknowledged
        wanted = 100 * weights[door] / sum(weights.values())
        check(abs(share - wanted) <= 3, f"{share:.1f} % of them came through the {door} door, of {wanted:.0f} %")
    total = now["total"]
    for host, protocol in ("grpc", "grpc"), ("grpc", "grpc-stream"), ("votes", "rest-batch"):
        more = ovation.cast(host, protocol, 2_000, 500)
        total += more
        counted = ovation.await_total(total)["total"]
        check(counted == total, f"{more} votes over {protocol} to {ovation.hosts[host]} are acknowledged and counted")
    after = ovation.audit()
    check(after["ok"] and after["tallies"] - before["tallies"] == total - was["total"], f"the audit finds all of them: {after['tallies']} votes on the log, in the book and in the tallies")

    with ovation.ask("results", "/") as page:
        check(page.status == 200 and b"<html" in page.read(), f"the live page answers at {ovation.hosts['results']}")
    with ovation.ask("results", "/v1/contests/bands/tally/stream") as stream:
        event = b""
        while b"data:" not in event:
            event = stream.readline()
        check(stream.headers["Content-Type"].startswith("text/event-stream"), "its stream of tallies comes through the entry")

    containers = list(ovation.containers())
    loose = [f"{pod}/{name}" for pod, name, pid in containers if not confinement(pid)]
    check(not loose, f"all {len(containers)} containers run as a user, without capabilities, privileges to gain or a writable root, under seccomp" + (f", but not {', '.join(loose)}" if loose else ""))

    for store in ("redis", "mongodb", "kafka"):
        ovation.kubectl("delete", "pod", f"{RELEASE}-{store}-0", "--timeout=120s")
        ovation.kubectl("rollout", "status", f"statefulset/{RELEASE}-{store}", "--timeout=180s", fails=f"{store} doesn't come back")
        say(f"{store}'s pod was deleted, and another is ready")
    same = ovation.await_total(total)
    again = ovation.audit()
    check(again["ok"] and same["total"] == total and again["tallies"] == after["tallies"], f"their data are there: {again['tallies']} votes")
    more = ovation.cast("votes", "rest", 200, 100)
    check(ovation.await_total(total + more)["total"] == total + more, f"{more} more votes are counted")
