"""The parts of `dev/cluster test`. While votes are cast, the release is scaled, upgraded, drained, and disturbed by faults. After each part,
every acknowledged vote must be counted once."""

import contextlib
import json
import os
import re
import signal
import time
import urllib.request

from processes import Failure, print_progress, wait_until

from .floods import Flooding, Positions
from .ovation import NAMESPACE, RELEASE, Ovation, check

PROGRAMS = ("rest-producer", "grpc-producer", "forwarder", "consumer", "results")

# The floods during planned changes and faults, as host, protocol, votes a second and flags: one for each kind of request. A stream is one
# long call.
BASE_FLOODS = [("votes", "rest", 60), ("grpc", "grpc", 40), ("grpc", "grpc-stream", 150), ("votes", "rest-batch", 100, "--batch-size=20")]

# A flood that keeps the consumers' CPUs busy, because single votes make small batches.
CPU_FLOOD = ("votes", "rest", 400)
# A flood whose votes arrive faster than they are counted.
LAG_FLOOD = ("votes", "rest-batch", 6000, "--batch-size=250", "--connections=4")

# A small flood before, during and after each of these two: some votes for each partition every two seconds.
BACKGROUND_FLOOD = ("votes", "rest-batch", 60, "--batch-size=120", "--connections=1")

# Seconds between two queries of the pods. Each query takes CPU, and this machine has little.
POLL_INTERVAL = 2

# The longest time, in seconds, for which counting of a partition with new votes may stand still.
MAX_PAUSE = 5

PARTS = ("cpu", "lag", "upgrade", "pods", "drain", "faults")


def run_parts(cluster, chart, values, parts):
    """Runs the given parts, or all parts, one after the other."""
    if unknown := set(parts) - set(PARTS):
        raise Failure(f"unknown part {' '.join(unknown)}; the parts are: {' '.join(PARTS)}")
    tests = DisruptionTests(Ovation(cluster), chart, values)
    for part in PARTS:
        if not parts or part in parts:
            began = time.monotonic()
            getattr(tests, part)()
            print_progress(f"the part {part} took {time.monotonic() - began:.0f} s")


class DisruptionTests:
    def __init__(self, ovation, chart, values):
        self.ovation, self.cluster = ovation, ovation.cluster
        self.chart = chart
        self.flags = [f"--namespace={NAMESPACE}", *(f"--values={file}" for file in values), "--wait", "--timeout=5m"]

    def helm_upgrade(self, *flags):
        self.cluster.helm("upgrade", RELEASE, self.chart, *self.flags, *flags, fails="helm upgrade failed")

    # ---- State ----

    def pods_of(self, program):
        selector = f"--selector=app.kubernetes.io/component={program}"
        return json.loads(self.ovation.kubectl("get", "pods", selector, "--output=json"))["items"]

    def ready_pods(self, program):
        return [pod for pod in self.pods_of(program) if _is_ready(pod)]

    def shares(self):
        """Returns the number of assigned partitions of each ready consumer."""
        shares = []
        for pod in self.ready_pods("consumer"):
            with contextlib.suppress(OSError, KeyError), urllib.request.urlopen(f"http://{pod['status']['podIP']}:9100/metrics", timeout=5) as response:
                shares.append(int(re.search(rb"(?m)^ovation_assigned_partitions (\d+)|\Z", response.read())[1] or 0))
        return shares

    def await_consumers(self, count, seconds, why):
        """Waits until there are exactly `count` consumer pods, each with its share of the partitions. Returns how many seconds this took."""
        began = time.monotonic()

        def is_reached():
            shares = self.shares()
            return len(shares) == count and sum(shares) == 12 and min(shares) >= 12 // count and len(self.pods_of("consumer")) == count

        if not wait_until(is_reached, seconds, interval=POLL_INTERVAL):
            autoscalers = self.ovation.kubectl("get", "horizontalpodautoscalers")
            raise Failure(f"{count} consumers should share the partitions within {seconds} s ({why}); the shares are {self.shares()}:\n{autoscalers}")
        return time.monotonic() - began

    # ---- Scaling ----

    def scale(self, contest, flood, signal):
        """Checks that the consumers are scaled from 2 to 5 during the flood, and back to 2 after it. `signal` is what they are scaled on."""
        self.await_consumers(2, 120, "before the flood")
        with Flooding(self.ovation, contest, [BACKGROUND_FLOOD, flood], is_planned=False) as flooding:
            with Positions(self.ovation) as positions:
                took = self.await_consumers(5, 180, f"the flood should raise {signal}")
                check(True, f"under the flood, {signal} scales the consumers from 2 to 5; each has its share of the partitions after {took:.0f} s")
                flooding.end(flooding.floods[-1])
                took = self.await_consumers(2, 240, f"after the flood, by {signal}")
                check(True, f"after the flood, {signal} scales them back to 2 within {took:.0f} s")
            check(positions.longest <= MAX_PAUSE, f"the longest pause of a partition during this was {positions.longest:.1f} s; {MAX_PAUSE} s are allowed")

    def cpu(self):
        self.scale("cpu", CPU_FLOOD, "CPU")

    def lag(self):
        """Scales on KEDA's lag, the recommended signal. A release may have only one autoscaler, so the HPA is disabled."""
        self.helm_upgrade("--set=consumer.hpa.enabled=false,consumer.keda.enabled=true")
        self.scale("lag", LAG_FLOOD, "KEDA's lag")
        self.helm_upgrade()

    # ---- Planned changes ----

    def upgrade(self):
        """An upgrade replaces the pods of every Deployment, and a rollback replaces them again."""
        uids_before = self.uids()
        revision = json.loads(self.cluster.helm("history", RELEASE, f"--namespace={NAMESPACE}", "--output=json"))[-1]["revision"]
        with Flooding(self.ovation, "upgrade", BASE_FLOODS, is_planned=True):
            began = time.monotonic()
            self.helm_upgrade("--set=env[0].name=UPGRADE", "--set-string=env[0].value=1")
            now = self.uids()
            check(not uids_before & now, f"helm upgrade replaced all {len(uids_before)} of our pods in {time.monotonic() - began:.0f} s")
            began = time.monotonic()
            self.cluster.helm("rollback", RELEASE, str(revision), f"--namespace={NAMESPACE}", "--wait", "--timeout=5m", fails="helm rollback failed")
            check(not now & self.uids(), f"helm rollback replaced them again in {time.monotonic() - began:.0f} s")

    def uids(self):
        return {pod["metadata"]["uid"] for program in PROGRAMS for pod in self.ready_pods(program)}

    def pods(self):
        """Deletes a pod of each program."""
        with Flooding(self.ovation, "pods", BASE_FLOODS, is_planned=False):
            for program in PROGRAMS:
                began = time.monotonic()
                pod = self.ready_pods(program)[0]["metadata"]["name"]
                self.ovation.kubectl("delete", "pod", pod, "--timeout=60s")
                self.await_rollout(f"deployment/{RELEASE}-{program}")
                print_progress(f"{pod} was deleted, and the new one is ready ({time.monotonic() - began:.0f} s)")

    def await_rollout(self, name):
        self.ovation.kubectl("rollout", "status", name, "--timeout=180s", fails=f"{name} does not become ready again")

    def drain(self):
        """Drains the node without stores, and checks that all its pods become ready on the other node."""
        node = self.cluster.nodes[1].name
        programs_on_node = lambda: {program for program in PROGRAMS for pod in self.pods_of(program) if pod["spec"].get("nodeName") == node}
        for program in set(PROGRAMS) - programs_on_node():
            # After the earlier parts, both pods of a program may be on the other node. A restart spreads them again.
            self.ovation.kubectl("rollout", "restart", f"deployment/{RELEASE}-{program}")
            self.await_rollout(f"deployment/{RELEASE}-{program}")
        check(programs_on_node() == set(PROGRAMS), f"pods of each program are on {node}")
        try:
            with Flooding(self.ovation, "drain", BASE_FLOODS, is_planned=True):
                began = time.monotonic()
                self.cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s", fails=f"{node} can't be drained")
                for program in PROGRAMS:
                    self.await_rollout(f"deployment/{RELEASE}-{program}")
                check(not programs_on_node(), f"{node} was drained in {time.monotonic() - began:.0f} s, and all pods are ready on the other node")
        finally:
            self.cluster.kubectl("uncordon", node)

    # ---- Faults ----

    def faults(self):
        """Causes faults of stores and programs. Floods with --retry-for cast a vote again until it is acknowledged; the others report each
        error."""
        retrying = [(*flood, "--retry-for=120s") for flood in BASE_FLOODS]
        # The HPA is disabled, because it could remove the pod whose memory limit is lowered.
        self.helm_upgrade("--set=consumer.hpa.enabled=false")
        with Flooding(self.ovation, "faults", [*retrying, ("votes", "rest", 20), ("grpc", "grpc", 20)], is_planned=False) as flooding:
            for store, container in ("kafka", "kafka"), ("redis", "redis"), ("mongodb", "mongodb"):
                self.with_recovery(flooding, f"kill -9 of {store}", f"statefulset/{RELEASE}-{store}", lambda: self.kill(f"{RELEASE}-{store}-0", container))
            self.with_recovery(flooding, "a full emptyDir of Kafka", f"statefulset/{RELEASE}-kafka", self.fill)
            for program in ("consumer", "grpc-producer", "rest-producer"):
                self.with_recovery(flooding, f"a memory limit that {program} hits", f"deployment/{RELEASE}-{program}", lambda: self.exhaust(program))
            for flood in flooding.floods[: len(retrying)]:
                flooding.end(flood)
            unacknowledged = sum(report["refused"] + report["failed"] for _, report in flooding.reports)
            check(unacknowledged == 0, "clients that cast a vote again until it is acknowledged get a receipt for each vote")
        not_retrying = [report for flood, report in flooding.reports if flood in flooding.floods[len(retrying) :]]
        check(any(report["refused"] for report in not_retrying), "clients that do not retry get errors while the vote log is down")
        self.helm_upgrade()

    def with_recovery(self, flooding, what, workload, cause_fault):
        """Calls `cause_fault`, and waits until votes are acknowledged again over every protocol and the log is counted to its end."""
        began = time.monotonic()
        cause_fault()
        self.await_rollout(workload)
        before = [flood.acknowledged() for flood in flooding.floods]
        if not wait_until(lambda: all(flood.acknowledged() > count + 10 for flood, count in zip(flooding.floods, before)), 120, interval=0.2):
            raise Failure(f"{what}: votes are not acknowledged again")
        if not self.ovation.await_counted(120):
            raise Failure(f"{what}: votes are not counted again")
        check(True, f"{what}: votes are acknowledged and counted again after {time.monotonic() - began:.0f} s")

    def pid_of(self, pod, container):
        for name, each, pid in self.ovation.containers():
            if (name, each) == (pod, container):
                return pid
        raise Failure(f"{pod} does not run")

    def restarts(self, pod):
        """Returns the number of restarts of a pod's first container, and how it was last terminated."""
        status = json.loads(self.ovation.kubectl("get", "pod", pod, "--output=json"))["status"]["containerStatuses"][0]
        return status["restartCount"], status.get("lastState", {}).get("terminated", {})

    def await_restart(self, pod, count):
        """Waits until the container has restarted more than `count` times."""
        if not wait_until(lambda: self.restarts(pod)[0] > count, 60, interval=POLL_INTERVAL):
            raise Failure(f"{pod} was killed and does not start again")

    def kill(self, pod, container):
        """Kills the process of a container, and waits until the container is started again."""
        count, _ = self.restarts(pod)
        os.kill(self.pid_of(pod, container), signal.SIGKILL)
        self.await_restart(pod, count)

    def fill(self):
        """Fills an emptyDir over its limit, and waits until the node has evicted the pod and a new one exists."""
        pod = f"{RELEASE}-kafka-0"
        uid = lambda: self.ovation.kubectl("get", "pod", pod, "--ignore-not-found", "--output=jsonpath={.metadata.uid}")
        old = uid()
        self.ovation.kubectl("exec", pod, "--", "sh", "-c", "head -c 100000000 /dev/zero >/tmp/full")
        if not wait_until(lambda: uid() not in ("", old), 120, interval=POLL_INTERVAL):
            raise Failure(f"the node does not evict {pod}, whose emptyDir is over its limit")

    def exhaust(self, program):
        """Lowers the memory limit of the container to its current use, until the kernel kills it."""
        pod = self.ready_pods(program)[0]["metadata"]["name"]
        count, _ = self.restarts(pod)
        group = self.ovation.control_group(self.pid_of(pod, program), "memory")

        def is_killed():
            with contextlib.suppress(OSError):
                used = int((group / "memory.usage_in_bytes").read_text())
                (group / "memory.limit_in_bytes").write_text(str(used))
            # The control group is removed with the container.
            return not group.exists()

        if not wait_until(is_killed, 60, interval=0.2):
            raise Failure(f"{pod} still runs at its memory limit")
        self.await_restart(pod, count)
        ended = self.restarts(pod)[1]
        check(ended.get("reason") == "OOMKilled", f"the kernel killed {pod} at its memory limit: {ended.get('reason')}, {ended.get('exitCode')}")


def _is_ready(pod):
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]

