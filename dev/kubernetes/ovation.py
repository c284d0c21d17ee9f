"""Access to an installed release of Ovation: through its entry, with kubectl, and to the processes of its containers."""

import contextlib
import json
import urllib.request
from pathlib import Path

from processes import Failure, print_progress, run, wait_until

from .archive import extract
from .layout import IMAGES, NODE_IPS

NAMESPACE = RELEASE = "ovation"


def check(condition, what):
    """Prints what was checked if the condition is true, and raises Failure otherwise."""
    if not condition:
        raise Failure(f"not true: {what}")
    print_progress(f"ok: {what}")


class Ovation:
    """The installed release."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.values, self.port = cluster.entry()
        self.entry = self.values["entry"]
        self.hosts = self.entry["hosts"]
        # Without contests in the values, there is the contest `bands`.
        self.contests = self.values["contests"] or {"bands": {}}
        # The tests cast votes with the program from the image.
        self.program = cluster.folder / "ovation"
        extract(IMAGES / "ovation.tar", "/usr/local/bin/ovation", self.program)
        cluster.name_hosts(self.hosts.values())

    def kubectl(self, *arguments, **options):
        return run(self.kubectl_command(*arguments), **options)

    def kubectl_command(self, *arguments):
        return self.cluster.kubectl_command(f"--namespace={NAMESPACE}", *arguments)

    def get(self, host, path, timeout=10):
        """Requests a path from a host of the entry. The caller must close the response."""
        request = urllib.request.Request(f"http://{NODE_IPS[0]}:{self.port}{path}", headers={"Host": f"{self.hosts[host]}:{self.port}"})
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except OSError as error:
            raise Failure(f"{self.hosts[host]}{path}: {error}") from None

    def tally(self, contest="bands"):
        with self.get("results", f"/v1/contests/{contest}/tally") as response:
            return json.load(response)

    def flood(self, host, protocol, *flags):
        """Casts votes from a node, where the host names of the entry are known. Returns how many votes were acknowledged."""
        url = f"http://{self.hosts[host]}:{self.port}"
        command = self.cluster.nodes[0].inside(self.program, "flood", f"--protocol={protocol}", f"--url={url}", *flags, "--json", "--quiet")
        report = json.loads(run(command, fails=f"not all votes over {protocol} to {url} were acknowledged"))
        return report["acknowledged"]

    def cast(self, host, protocol, votes, rate):
        """Casts votes until at least `votes` are acknowledged, and returns how many were. A busy machine casts fewer votes in the given time, so
        further floods cast the rest."""
        acknowledged = 0
        while (missing := votes - acknowledged) > 0:
            length = f"--for={1000 * missing // rate + 1}ms"
            acknowledged += self.flood(host, protocol, f"--rate={rate}", length, "--retry-for=30s")
        return acknowledged

    def await_total(self, total):
        """Waits until the contest `bands` has `total` votes, for 60 s at most, and returns the last tally."""
        tally = {}

        def is_reached():
            with contextlib.suppress(Failure):
                tally.update(self.tally())
            return tally.get("total", 0) >= total

        wait_until(is_reached, 60, interval=0.2)
        return tally

    def await_counted(self, seconds):
        """Waits until all votes are counted that were accepted before the call. Returns whether they were counted within `seconds`."""
        goals = []

        def is_counted():
            with contextlib.suppress(Failure):
                tally = self.tally()
                goals.append(tally["accepted"])
                return tally["processed"] >= goals[0]
            return False

        return wait_until(is_counted, seconds, interval=0.2)

    def audit(self):
        """Runs `ovation audit` in a pod with the environment of a consumer, and returns its report."""
        template = json.loads(self.kubectl("get", "deployment", f"{RELEASE}-consumer", "--output=json"))["spec"]["template"]
        spec, container = template["spec"], template["spec"]["containers"][0]
        for key in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "ports"):
            container.pop(key, None)
        spec.pop("topologySpreadConstraints", None)
        stores = ["--vote-log=$(OVATION_VOTE_LOG)", "--tallies=$(OVATION_TALLIES)", "--ledger=$(OVATION_LEDGER)"]
        container |= {"name": "audit", "command": ["ovation", "audit", "--json", *stores], "args": []}
        spec |= {"containers": [container], "restartPolicy": "Never"}
        labels = {"app.kubernetes.io/part-of": "ovation", "app.kubernetes.io/component": "audit"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "audit", "labels": labels}, "spec": spec}
        self.kubectl("delete", "pod", "audit", "--ignore-not-found")
        self.kubectl("apply", "--filename=-", input=json.dumps(pod))
        ended = lambda: self.kubectl("get", "pod", "audit", "--output=jsonpath={.status.phase}") in ("Succeeded", "Failed")
        # The audit reads each vote twice, and FerretDB is slow.
        if not wait_until(ended, 1800, interval=1):
            raise Failure(f"the audit does not end; see: dev/cluster kubectl -n {NAMESPACE} describe pod audit")
        output = self.kubectl("logs", "audit").strip()
        self.kubectl("delete", "pod", "audit")
        try:
            return json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            raise Failure(f"the audit failed:\n{output}") from None

    def pods(self, namespace=NAMESPACE):
        return json.loads(self.cluster.kubectl(f"--namespace={namespace}", "get", "pods", "--output=json"))["items"]

    def containers(self, namespace=NAMESPACE):
        """Yields the running containers as (pod, container name, process id)."""
        pids = {}
        for node in self.cluster.nodes:
            for line in node.containerd.ctr("tasks", "list").splitlines()[1:]:
                container, pid, _ = line.split()
                pids[container] = int(pid)
        for pod in self.pods(namespace):
            for status in pod["status"].get("containerStatuses", []):
                # If a container has just ended, the API server may still report that it runs.
                pid = pids.get(status.get("containerID", "").removeprefix("containerd://"))
                if pid and "running" in status["state"]:
                    yield pod["metadata"]["name"], status["name"], pid

    @staticmethod
    def control_group(pid, controller):
        """Returns the folder of the process' cgroup (of version 1) for a controller."""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{path}")
        raise Failure(f"process {pid} has no cgroup of version 1 for {controller}")
