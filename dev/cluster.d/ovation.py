"""An Ovation that runs in the cluster: through its entry, and from within."""

import contextlib
import json
import urllib.request
from pathlib import Path

from archive import extract
from parts import NODE_IPS
from processes import Failure, run, say, wait_until

IMAGES = Path(__file__).resolve().parent.parent.parent / "target/images"

NAMESPACE = RELEASE = "ovation"


def check(is_so, what):
    if not is_so:
        raise Failure(f"this should be so, and isn't: {what}")
    say(f"ok: {what}")


class Ovation:
    """What was installed, through its entry and from within."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.values, self.port = cluster.entry()
        self.entry = self.values["entry"]
        self.hosts = self.entry["hosts"]
        # What the chart makes of none.
        self.contests = self.values["contests"] or {"bands": {}}
        # Votes are cast by the very program that is in the image.
        self.program = cluster.folder / "ovation"
        extract(IMAGES / "ovation.tar", "/usr/local/bin/ovation", self.program)
        cluster.name_hosts(self.hosts.values())

    def kubectl(self, *arguments, **options):
        return run(self.kubectl_command(*arguments), **options)

    def kubectl_command(self, *arguments):
        return self.cluster.kubectl_command(f"--namespace={NAMESPACE}", *arguments)

    def ask(self, host, path, timeout=10):
        """An answer of the entry; to be closed."""
        request = urllib.request.Request(f"http://{NODE_IPS[0]}:{self.port}{path}", headers={"Host": f"{self.hosts[host]}:{self.port}"})
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except OSError as error:
            raise Failure(f"{self.hosts[host]}{path}: {error}") from None

    def tally(self, contest="bands"):
        with self.ask("results", f"/v1/contests/{contest}/tally") as answer:
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

        wait_until(is_there, 60, every=0.2)
        return seen

    def await_counted(self, seconds):
        """Whether all that is on the log by now, or when that can be read again, is counted in time."""
        goals = []

        def is_counted():
            with contextlib.suppress(Failure):
                tally = self.tally()
                goals.append(tally["accepted"])
                return tally["processed"] >= goals[0]
            return False

        return wait_until(is_counted, seconds, every=0.2)

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
        # It reads each vote twice, and FerretDB takes its time.
        if not wait_until(ended, 1800, every=1):
            raise Failure(f"the audit doesn't end; see: dev/cluster kubectl -n {NAMESPACE} describe pod audit")
        said = self.kubectl("logs", "audit").strip()
        self.kubectl("delete", "pod", "audit")
        try:
            return json.loads(said.splitlines()[-1])
        except (ValueError, IndexError):
            raise Failure(f"the audit failed:\n{said}") from None

    def pods(self, namespace=NAMESPACE):
        return json.loads(self.cluster.kubectl(f"--namespace={namespace}", "get", "pods", "--output=json"))["items"]

    def containers(self, namespace=NAMESPACE):
        """The running containers, as pod, name and process id."""
        pids = {}
        for node in self.cluster.nodes:
            for line in node.containerd.ctr("tasks", "list").splitlines()[1:]:
                container, pid, _ = line.split()
                pids[container] = int(pid)
        for pod in self.pods(namespace):
            for status in pod["status"].get("containerStatuses", []):
                # One that ended a moment ago may still be told as running.
                pid = pids.get(status.get("containerID", "").removeprefix("containerd://"))
                if pid and "running" in status["state"]:
                    yield pod["metadata"]["name"], status["name"], pid

    @staticmethod
    def control_group(pid, controller):
        """The folder of a process' control group, of version 1."""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{path}")
        raise Failure(f"there is no control group of {controller}, of version 1")
