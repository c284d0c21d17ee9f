"""`dev/cluster try`: tests an installed release."""

from pathlib import Path

from processes import print_progress

from .ovation import NAMESPACE, RELEASE, Ovation, check


def is_confined(pid):
    """Returns whether a process runs as a non-root user, without capabilities, without new privileges, under seccomp, and with a read-only
    root."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    root = next(line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/")
    is_unprivileged = int(status["CapEff"], 16) == 0 and status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    return is_unprivileged and "ro" in root[5].split(",") and "0" not in status["Uid"].split()


def accept(cluster, _):
    """Tests the installed release. Raises Failure at the first check that fails."""
    cluster.require()
    ovation = Ovation(cluster)
    manifest = cluster.helm("get", "manifest", RELEASE, f"--namespace={NAMESPACE}") + cluster.helm("get", "hooks", RELEASE, f"--namespace={NAMESPACE}")
    objects = cluster.kubectl(f"--namespace={NAMESPACE}", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-", input=manifest, fails="the API server refuses the chart's manifests")
    check(True, f"the API server accepts all {len(objects.splitlines())} objects, under strict validation")
    cluster.helm("test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=3m", fails="the chart's tests failed")
    check(True, "the chart's tests pass")

    before = ovation.audit()
    check(before["ok"], f"the audit before the test passes: {before['tallies']} votes")
    tally_before = ovation.tally()
    # Two cores, which also run the cluster, can sustain this rate with one vote in each request.
    acknowledged = ovation.cast("votes", "rest", 10_000, 500)
    now = ovation.await_total(tally_before["total"] + acknowledged)
    check(now["total"] - tally_before["total"] == acknowledged, f"{acknowledged} votes posted to {ovation.hosts['votes']} are acknowledged and counted")
    weights = ovation.entry["gateway"]["weights"]
    for producer in ("rest", "grpc"):
        share = 100 * (now["producers"].get(producer, 0) - tally_before["producers"].get(producer, 0)) / acknowledged
        expected = 100 * weights[producer] / sum(weights.values())
        check(abs(share - expected) <= 3, f"{share:.1f} % of them arrived through the {producer} producer; {expected:.0f} % were expected")
    total = now["total"]
    for host, protocol in ("grpc", "grpc"), ("grpc", "grpc-stream"), ("votes", "rest-batch"):
        more = ovation.cast(host, protocol, 2_000, 500)
        total += more
        counted = ovation.await_total(total)["total"]
        check(counted == total, f"{more} votes over {protocol} to {ovation.hosts[host]} are acknowledged and counted")
    after = ovation.audit()
    check(after["ok"] and after["tallies"] - before["tallies"] == total - tally_before["total"], f"the audit passes: {after['tallies']} votes on the log, in the ledger and in the tallies")

    with ovation.get("results", "/") as page:
        check(page.status == 200 and b"<html" in page.read(), f"the live page is served at {ovation.hosts['results']}")
    with ovation.get("results", "/v1/contests/bands/tally/stream") as stream:
        event = b""
        while b"data:" not in event:
            event = stream.readline()
        check(stream.headers["Content-Type"].startswith("text/event-stream"), "its stream of tallies is served through the entry")

    containers = list(ovation.containers())
    unconfined = [f"{pod}/{name}" for pod, name, pid in containers if not is_confined(pid)]
    check(not unconfined, f"all {len(containers)} containers run as a user, without capabilities, without privilege escalation, with a read-only root, under seccomp" + (f", but not {', '.join(unconfined)}" if unconfined else ""))

    for store in ("redis", "mongodb", "kafka"):
        ovation.kubectl("delete", "pod", f"{RELEASE}-{store}-0", "--timeout=120s")
        ovation.kubectl("rollout", "status", f"statefulset/{RELEASE}-{store}", "--timeout=180s", fails=f"{store} does not become ready again")
        print_progress(f"{store}'s pod was deleted, and the new one is ready")
    same = ovation.await_total(total)
    again = ovation.audit()
    check(again["ok"] and same["total"] == total and again["tallies"] == after["tallies"], f"the stores' data are still there: {again['tallies']} votes")
    more = ovation.cast("votes", "rest", 200, 100)
    check(ovation.await_total(total + more)["total"] == total + more, f"{more} more votes are counted")
