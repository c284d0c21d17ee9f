"""The cluster on fire: it scales, is upgraded, drained and broken while people vote, and every vote that was acknowledged is counted
once."""

import contextlib
import json
import os
import re
import signal
import time
import urllib.request

from floods import Flooding, Positions
from ovation import NAMESPACE, RELEASE, Ovation, check
from processes import Failure, say, wait_until

PROGRAMS = ("rest-producer", "grpc-producer", "forwarder", "consumer", "results")

# Votes a second over each of the entry's ways, for as long as something goes on. Streams are single, long calls.
CALM = [("votes", "rest", 60), ("grpc", "grpc", 40), ("grpc", "grpc-stream", 150), ("votes", "rest-batch", 100, "--batch-size=20")]

# What keeps consumers' CPUs busy: single votes, each a small batch. And what comes faster than it is counted: votes in thousands.
BUSY = ("votes", "rest", 400)
RUSH = ("votes", "rest-batch", 6000, "--batch-size=250", "--connections=4")

# Before, beside and after those: every two seconds some votes for each partition, which cost little.
QUIET = ("votes", "rest-batch", 60, "--batch-size=120", "--connections=1")

# Seconds between two looks at pods: looking takes CPU, of which there is little.
EVERY = 2

# Seconds that a partition may stand still while its votes come.
LONGEST_PAUSE = 5


PARTS = ("cpu", "lag", "upgrade", "pods", "drain", "faults")


def burn(cluster, chart, values, parts):
    """The parts that are named, or all, one after the other."""
    if unknown := set(parts) - set(PARTS):
        raise Failure(f"there is no part {' '.join(unknown)}; there is: {' '.join(PARTS)}")
    fire = Fire(Ovation(cluster), chart, values)
    for part in PARTS:
        if not parts or part in parts:
            began = time.monotonic()
            getattr(fire, part)()
            say(f"the part {part} took {time.monotonic() - began:.0f} s")


class Fire:
    def __init__(self, ovation, chart, values):
        self.ovation, self.cluster = ovation, ovation.cluster
        self.chart = chart
        self.flags = [f"--namespace={NAMESPACE}", *(f"--values={file}" for file in values), "--wait", "--timeout=5m"]

    def helm_upgrade(self, *flags):
        self.cluster.helm("upgrade", RELEASE, self.chart, *self.flags, *flags, fails="helm upgrade failed")

    # ---- What there is ----

    def pods_of(self, program):
        selector = f"--selector=app.kubernetes.io/component={program}"
        return json.loads(self.ovation.kubectl("get", "pods", selector, "--output=json"))["items"]

    def ready_pods(self, program):
        return [pod for pod in self.pods_of(program) if _is_ready(pod)]

    def shares(self):
        """How many partitions each ready consumer has."""
        shares = []
        for pod in self.ready_pods("consumer"):
            with contextlib.suppress(OSError, KeyError), urllib.request.urlopen(f"http://{pod['status']['podIP']}:9100/metrics", timeout=5) as answer:
                shares.append(int(re.search(rb"(?m)^ovation_counted_partitions (\d+)|\Z", answer.read())[1] or 0))
        return shares

    def await_consumers(self, count, seconds, why):
        """Until so many consumers have their share of the partitions, and there is no other pod of theirs."""
        began = time.monotonic()

        def is_there():
            shares = self.shares()
            return len(shares) == count and sum(shares) == 12 and min(shares) >= 12 // count and len(self.pods_of("consumer")) == count

        if not wait_until(is_there, seconds, every=EVERY):
            autoscalers = self.ovation.kubectl("get", "horizontalpodautoscalers")
            raise Failure(f"there aren't {count} consumers with their share of the partitions after {seconds} s ({why}), but {self.shares()}:\n{autoscalers}")
        return time.monotonic() - began

    # ---- Scaling ----

    def scale(self, contest, flood, signal):
        self.await_consumers(2, 120, "before the flood")
        with Flooding(self.ovation, contest, [QUIET, flood], is_planned=False) as flooding:
            with Positions(self.ovation) as positions:
                took = self.await_consumers(5, 180, f"the flood should be seen on {signal}")
                check(True, f"under the flood {signal} scales the consumers from 2 to 5, and each has its share of the partitions after {took:.0f} s")
                flooding.end(flooding.floods[-1])
                took = self.await_consumers(2, 240, f"after the flood, on {signal}")
                check(True, f"after the flood {signal} scales them back to 2 within {took:.0f} s")
            check(positions.longest <= LONGEST_PAUSE, f"no partition paused for longer than {positions.longest:.1f} s meanwhile, of {LONGEST_PAUSE}")

    def cpu(self):
        self.scale("cpu", BUSY, "CPU")

    def lag(self):
        """The recommended signal. Either autoscaler is the release's only one."""
        self.helm_upgrade("--set=consumer.hpa.enabled=false,consumer.keda.enabled=true")
        self.scale("lag", RUSH, "KEDA's lag")
        self.helm_upgrade()

    # ---- Planned changes ----

    def upgrade(self):
        """Every Deployment's pods are replaced, and replaced again by those of before."""
        was = self.uids()
        revision = json.loads(self.cluster.helm("history", RELEASE, f"--namespace={NAMESPACE}", "--output=json"))[-1]["revision"]
        with Flooding(self.ovation, "upgrade", CALM, is_planned=True):
            began = time.monotonic()
            self.helm_upgrade("--set=env[0].name=UPGRADE", "--set-string=env[0].value=1")
            now = self.uids()
            check(not was & now, f"helm upgrade replaced all {len(was)} pods of ours in {time.monotonic() - began:.0f} s")
            began = time.monotonic()
            self.cluster.helm("rollback", RELEASE, str(revision), f"--namespace={NAMESPACE}", "--wait", "--timeout=5m", fails="helm rollback failed")
            check(not now & self.uids(), f"helm rollback replaced them again in {time.monotonic() - began:.0f} s")

    def uids(self):
        return {pod["metadata"]["uid"] for program in PROGRAMS for pod in self.ready_pods(program)}

    def pods(self):
        with Flooding(self.ovation, "pods", CALM, is_planned=False):
            for program in PROGRAMS:
                began = time.monotonic()
                pod = self.ready_pods(program)[0]["metadata"]["name"]
                self.ovation.kubectl("delete", "pod", pod, "--timeout=60s")
                self.await_rollout(f"deployment/{RELEASE}-{program}")
                say(f"{pod} was deleted, and another is ready ({time.monotonic() - began:.0f} s)")

    def await_rollout(self, name):
        self.ovation.kubectl("rollout", "status", name, "--timeout=180s", fails=f"{name} doesn't become ready again")

    def drain(self):
        """The node without stores."""
        node = self.cluster.nodes[1].name
        there = lambda: {program for program in PROGRAMS for pod in self.pods_of(program) if pod["spec"].get("nodeName") == node}
        for program in set(PROGRAMS) - there():
            # After all that went before, both may be on the other.
            self.ovation.kubectl("rollout", "restart", f"deployment/{RELEASE}-{program}")
            self.await_rollout(f"deployment/{RELEASE}-{program}")
        check(there() == set(PROGRAMS), f"pods of each program are on {node}")
        try:
            with Flooding(self.ovation, "drain", CALM, is_planned=True):
                began = time.monotonic()
                self.cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s", fails=f"{node} can't be drained")
                for program in PROGRAMS:
                    self.await_rollout(f"deployment/{RELEASE}-{program}")
                check(not there(), f"{node} was drained in {time.monotonic() - began:.0f} s, and all pods are ready elsewhere")
        finally:
            self.cluster.kubectl("uncordon", node)

    # ---- Faults ----

    def faults(self):
        """Patient clients cast a vote again until it is acknowledged; others say what they were told."""
        patient = [(*flood, "--retry-for=120s") for flood in CALM]
        # So that the pod whose memory is short is not one that is taken away just then.
        self.helm_upgrade("--set=consumer.hpa.enabled=false")
        with Flooding(self.ovation, "faults", [*patient, ("votes", "rest", 20), ("grpc", "grpc", 20)], is_planned=False) as flooding:
            for store, container in ("kafka", "kafka"), ("redis", "redis"), ("mongodb", "mongodb"):
                self.with_recovery(flooding, f"kill -9 of {store}", f"statefulset/{RELEASE}-{store}", lambda: self.kill(f"{RELEASE}-{store}-0", container))
            self.with_recovery(flooding, "an emptyDir of Kafka's that is full", f"statefulset/{RELEASE}-kafka", self.fill)
            for program in ("consumer", "grpc-producer", "rest-producer"):
                self.with_recovery(flooding, f"a memory limit that {program} hits", f"deployment/{RELEASE}-{program}", lambda: self.exhaust(program))
            for flood in flooding.floods[: len(patient)]:
                flooding.end(flood)
            left = sum(report["refused"] + report["failed"] for _, report in flooding.reports)
            check(left == 0, "who casts a vote again until it is acknowledged gets a receipt for each")
        impatient = [report for flood, report in flooding.reports if flood in flooding.floods[len(patient) :]]
        check(any(report["refused"] for report in impatient), "who doesn't is refused while there is no vote log")
        self.helm_upgrade()

    def with_recovery(self, flooding, what, workload, do):
        """Does it, and waits until votes are acknowledged over every way and counted to the log's end again."""
        began = time.monotonic()
        do()
        self.await_rollout(workload)
        before = [flood.acknowledged() for flood in flooding.floods]
        if not wait_until(lambda: all(flood.acknowledged() > count + 10 for flood, count in zip(flooding.floods, before)), 120, every=0.2):
            raise Failure(f"{what}: votes aren't acknowledged again")
        if not self.ovation.await_counted(120):
            raise Failure(f"{what}: votes aren't counted again")
        check(True, f"{what}: votes are acknowledged and counted again after {time.monotonic() - began:.0f} s, by itself")

    def pid_of(self, pod, container):
        for name, each, pid in self.ovation.containers():
            if (name, each) == (pod, container):
                return pid
        raise Failure(f"{pod} doesn't run")

    def restarts(self, pod):
        status = json.loads(self.ovation.kubectl("get", "pod", pod, "--output=json"))["status"]["containerStatuses"][0]
        return status["restartCount"], status.get("lastState", {}).get("terminated", {})

    def await_restart(self, pod, count):
        """Until its container has started more often than that."""
        if not wait_until(lambda: self.restarts(pod)[0] > count, 60, every=EVERY):
            raise Failure(f"{pod} was killed, and doesn't start again")

    def kill(self, pod, container):
        count, _ = self.restarts(pod)
        os.kill(self.pid_of(pod, container), signal.SIGKILL)
        self.await_restart(pod, count)

    def fill(self):
        """The node evicts a pod whose emptyDir is over its limit, and another comes."""
        pod = f"{RELEASE}-kafka-0"
        uid = lambda: self.ovation.kubectl("get", "pod", pod, "--ignore-not-found", "--output=jsonpath={.metadata.uid}")
        was = uid()
        self.ovation.kubectl("exec", pod, "--", "sh", "-c", "head -c 100000000 /dev/zero >/tmp/full")
        if not wait_until(lambda: uid() not in ("", was), 120, every=EVERY):
            raise Failure(f"the node doesn't mind what is in {pod}'s emptyDir")

    def exhaust(self, program):
        """Lowers the container's limit, by hand, below what it is about to use."""
        pod = self.ready_pods(program)[0]["metadata"]["name"]
        count, _ = self.restarts(pod)
        group = self.ovation.control_group(self.pid_of(pod, program), "memory")

        def is_killed():
            with contextlib.suppress(OSError):
                used = int((group / "memory.usage_in_bytes").read_text())
                (group / "memory.limit_in_bytes").write_text(str(used))
            # Its control group is gone with it.
            return not group.exists()

        if not wait_until(is_killed, 60, every=0.2):
            raise Failure(f"{pod} lives on at its memory limit")
        self.await_restart(pod, count)
        ended = self.restarts(pod)[1]
        check(ended.get("reason") == "OOMKilled", f"{pod} was ended for its memory, by the kernel: {ended.get('reason')}, {ended.get('exitCode')}")


def _is_ready(pod):
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]

