"""What has to be so of an Ovation that runs in the cluster: through its entry, and from within."""

import contextlib
import json
import urllib.request
from pathlib import Path

from parts import NODE_IPS
from processes import Failure, run, say, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent

NAMESPACE = RELEASE = "ovation"

def check(is_so, what):
    if not is_so:
        raise Failure(f"this should be so, and isn't: {what}")
    say(f"ok: {what}")


class Ovation:
    """What was installed, through its entry and from within."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.entry, self.port = cluster.entry()
        self.hosts = self.entry["hosts"]
        self.program = next((path for kind in ("release", "debug") if (path := ROOT / f"target/{kind}/ovation").exists()), None)
        if not self.program:
            raise Failure("votes are cast by target/release/ovation, which isn't there: cargo build --release")
        cluster.name_hosts(self.hosts.values())

    def kubectl(self, *arguments, **options):
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *arguments, **options)

    def ask(self, host, path, timeout=10):
        """An answer of the entry; to be closed."""
        request = urllib.request.Request(f"http://{NODE_IPS[0]}:{self.port}{path}", headers={"Host": f"{self.hosts[host]}:{self.port}"})
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except OSError as error:
            raise Failure(f"{self.hosts[host]}{path}: {error}") from None

    def tally(self):
        with self.ask("results", "/v1/contests/bands/tally") as answer:
            return json.load(answer)

    def flood(self, host, protocol, *flags):
        """Casts votes from where the entry's hosts have names, and says how many were acknowledged."""
        url = f"http://{self.hosts[host]}:{self.port}"
        command = self.cluster.nodes[0].inside(self.program, "flood", f"--protocol={protocol}", f"--url={url}", *flags, "--json", "--quiet")
        report = json.loads(run(command, fails=f"votes over {protocol} to {url} weren't all acknowledged"))
        return report["acknowledged"]

    def cast(self, host, protocol, votes, rate):
        """Casts so many votes, and says how many were acknowledged: a busy machine sends fewer at the wanted rate, so what is missing
        is cast after."""
        acknowledged = 0
        while (missing := votes - acknowledged) > 0:
            length = f"--for={1000 * missing // rate + 1}ms"
            acknowledged += self.flood(host, protocol, f"--rate={rate}", length, "--retry-for=30s")
        return acknowledged

    def await_total(self, total):
        seen = {}

        def is_there():
            with contextlib.suppress(Failure):
                seen.update(self.tally())
            return seen.get("total", 0) >= total

        wait_until(is_there, 60)
        return seen

    def audit(self):
        """What the auditor says, run in the cluster with the stores' addresses of a consumer."""
        template = json.loads(self.kubectl("get", "deployment", f"{RELEASE}-consumer", "--output=json"))["spec"]["template"]
        spec, container = template["spec"], template["spec"]["containers"][0]
        for key in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "ports"):
            container.pop(key, None)
        spec.pop("topologySpreadConstraints", None)
        stores = [f"--{store}=$(OVATION_{store.upper()})" for store in ("queue", "tally", "book")]
        container |= {"name": "audit", "command": ["ovation", "audit", "--json", *stores], "args": []}
        spec |= {"containers": [container], "restartPolicy": "Never"}
        labels = {"app.kubernetes.io/part-of": "ovation", "app.kubernetes.io/component": "audit"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "audit", "labels": labels}, "spec": spec}
        self.kubectl("delete", "pod", "audit", "--ignore-not-found")
        self.kubectl("apply", "--filename=-", input=json.dumps(pod))
        ended = lambda: self.kubectl("get", "pod", "audit", "--output=jsonpath={.status.phase}") in ("Succeeded", "Failed")
        if not wait_until(ended, 180):
            raise Failure(f"the audit doesn't end; see: dev/cluster kubectl -n {NAMESPACE} describe pod audit")
        said = self.kubectl("logs", "audit").strip()
        self.kubectl("delete", "pod", "audit")
        try:
            return json.loads(said.splitlines()[-1])
        except (ValueError, IndexError):
            raise Failure(f"the audit failed:\n{said}") from None

    def pods(self):
        return json.loads(self.kubectl("get", "pods", "--output=json"))["items"]

    def containers(self):
        """The running containers, as pod, name and process id."""
        pids = {}
        for node in self.cluster.nodes:
            for line in node.containerd.ctr("tasks", "list").splitlines()[1:]:
                container, pid, _ = line.split()
                pids[container] = int(pid)
        for pod in self.pods():
            for status in pod["status"].get("containerStatuses", []):
                if "running" in status["state"]:
                    yield pod["metadata"]["name"], status["name"], pids[status["containerID"].removeprefix("containerd://")]


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
