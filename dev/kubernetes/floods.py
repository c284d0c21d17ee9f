"""Floods the release with votes during a test, and checks that each acknowledged vote is counted once."""

import base64
import json
import signal
import subprocess
import threading
import time
from urllib.parse import quote

from processes import Failure, print_progress, run, tail, wait_until

from .layout import FOLDER, TOOLS
from .ovation import RELEASE, check

# The longest duration of a flood. It also ends a flood that continues because the test was killed.
MAX_DURATION = "90m"

# Seconds in which all votes on the log have to be counted, also after a fault.
COUNT_TIMEOUT = 120


class Flood:
    """An `ovation flood` in the background. It writes a receipt for each acknowledged vote."""

    def __init__(self, ovation, contest, host, protocol, rate, *flags):
        self.name = f"{contest}-{host}-{protocol}-{rate}"
        folder = ovation.cluster.folder / "floods"
        folder.mkdir(exist_ok=True)
        self.receipts, self.output = folder / f"{self.name}.receipts", folder / f"{self.name}.json"
        self.rate, self.protocol = rate, protocol
        url = f"http://{ovation.hosts[host]}:{ovation.port}"
        if not any(flag.startswith("--for=") for flag in flags):
            flags = (f"--for={MAX_DURATION}", *flags)
        votes = [f"--protocol={protocol}", f"--url={url}", f"--contest={contest}", f"--rate={rate}", "--timeout=20s", *flags]
        self.command = ovation.cluster.nodes[0].inside(ovation.program, "flood", *votes, f"--receipts={self.receipts}", "--json", "--quiet")
        self.process = None

    def start(self):
        with self.output.open("w") as output:
            self.process = subprocess.Popen([str(part) for part in self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def acknowledged(self):
        """Returns the number of votes that were acknowledged so far."""
        try:
            return self.receipts.read_bytes().count(b"\n")
        except OSError:
            return 0

    def stop(self):
        """Stops casting votes, waits for the responses to the votes in flight, and returns the report of the flood."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self):
        """Waits for the end of the flood and returns its report."""
        self.process.wait(timeout=150)
        for line in self.output.read_text().splitlines():
            if line.startswith("{"):
                return json.loads(line)
        raise Failure(f"the flood {self.name} ended without a report:\n{tail(self.output, 20)}")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def delete_files(self):
        self.receipts.unlink()
        self.output.unlink()


class Flooding:
    """Floods that run during the body of `with Flooding(...)`. At its end, the acknowledged votes are compared with the stores. If `is_planned`
    is true, no request of a client may have failed."""

    def __init__(self, ovation, contest, floods, *, is_planned):
        self.ovation, self.contest, self.is_planned = ovation, contest, is_planned
        self.floods = [Flood(ovation, contest, *flood) for flood in floods]
        self.reports = []

    def __enter__(self):
        # Votes of an earlier run on the same cluster may wait to be counted.
        if not self.ovation.await_counted(COUNT_TIMEOUT):
            raise Failure("votes of an earlier run are still not counted")
        self.before = self.ovation.tally(self.contest)["total"]
        for flood in self.floods:
            flood.start()
        if not wait_until(lambda: all(flood.acknowledged() for flood in self.floods), 30, interval=0.2):
            silent = [flood.name for flood in self.floods if not flood.acknowledged()]
            for flood in self.floods:
                flood.kill()
            raise Failure(f"these floods got no acknowledgement: {', '.join(silent)}: {tail(self.floods[0].output, 5)}")
        return self

    def end(self, flood):
        """Stops one of the floods and stores its report."""
        self.reports.append((flood, flood.stop()))

    def __exit__(self, kind, problem, trace):
        if kind:
            for flood in self.floods:
                flood.kill()
            return
        for flood in self.floods:
            if flood not in [ended for ended, _ in self.reports]:
                self.end(flood)
        for flood, report in self.reports:
            counts = ", ".join(f"{report[name]} {name}" for name in ("acknowledged", "refused", "failed", "retries") if report[name] or name == "acknowledged")
            print_progress(f"  {flood.protocol:11} at {flood.rate}/s: {counts}; p99 {report['p99_ms'] or 0:.0f} ms, maximum {report['max_ms'] or 0:.0f} ms")
            for error in report["errors"][:3]:
                print_progress(f"    {error['votes']} x {error['error']}")
        if self.is_planned:
            failures = sum(report["refused"] + report["failed"] for _, report in self.reports)
            check(failures == 0, f"none of {sum(report['sent'] for _, report in self.reports)} votes had a failed request")
        self.prove()

    def prove(self):
        """Checks that each acknowledged vote is counted once: compares the receipts with the stores, and runs the audit."""
        ovation = self.ovation
        acknowledged = sum(report["acknowledged"] for _, report in self.reports)
        # After an error or a time-out, a client can't tell whether its vote is on the log.
        uncertain = sum(report["refused"] + report["failed"] for _, report in self.reports)
        began = time.monotonic()
        if not ovation.await_counted(COUNT_TIMEOUT):
            raise Failure(f"the log is not counted to its end {COUNT_TIMEOUT} s after the last vote")
        waited = time.monotonic() - began
        found = compare(ovation, self.contest, [flood.receipts for flood in self.floods])
        lost, counted_twice = len(found["lost"]) + sum(found["uncounted"].values()), found["twice_acknowledged"] + len(found["twice_in_the_ledger"])
        check(found["acknowledged"] == acknowledged, f"{acknowledged} votes were acknowledged, each with a receipt; all were counted {waited:.1f} s after the last one")
        check(lost == 0, f"none of them is lost: each is in the ledger and in the tallies{_some(found['lost'], found['uncounted'])}")
        beyond = found["beyond"] - self.before
        check(counted_twice == 0 and 0 <= beyond <= uncertain, f"none is counted twice: the tallies have {beyond} more, from at most {uncertain} votes whose clients got no receipt{_some(found['twice_in_the_ledger'])}")
        audit = ovation.audit()
        check(audit["ok"], f"the audit passes: {audit['tallies']} votes and {audit['duplicates']} duplicates" + ("" if audit["ok"] else f": {audit['differences'][:3]}"))
        for flood in self.floods:
            flood.delete_files()


def _some(*wrong):
    """Returns the beginning of what is wrong, for a message."""
    wrong = [each for each in wrong if each]
    return f" ({str(wrong)[:300]})" if wrong else ""


def compare(ovation, contest, receipts):
    """Compares the receipts of a contest with the stores, which are read with their public drivers. Returns the output of proof/prove.py."""
    secret = json.loads(ovation.kubectl("get", "secret", RELEASE, "--output=json"))["data"]
    redis, mongodb = (quote(base64.b64decode(secret[f"{store}-password"]).decode()) for store in ("redis", "mongodb"))
    address = lambda store: ovation.kubectl("get", "service", f"{RELEASE}-{store}", "--output=jsonpath={.spec.clusterIP}")
    request = {
        "ledger": f"mongodb://ovation:{mongodb}@{address('mongodb')}:27017/ovation?authSource=admin&directConnection=true",
        "tallies": f"redis://:{redis}@{address('redis')}:6379",
        "contest": contest,
        "receipts": [str(file) for file in receipts],
    }
    python, script = TOOLS / "proof/bin/python", FOLDER / "proof/prove.py"
    return json.loads(run([python, "-B", script], input=json.dumps(request), fails="the receipts could not be compared with the stores"))


class Positions:
    """Reads the position of each partition in the tallies five times a second, during the body of `with Positions(...)`. After it, `longest` is
    the longest time, in seconds, for which the position of a partition did not change. All partitions must get votes meanwhile."""

    # redis-cli repeats the command every 0.2 s and prints one line each time.
    COMMAND = "REDISCLI_AUTH=$REDIS_PASSWORD exec redis-cli --csv -r -1 -i 0.2 HGETALL '{ovation}:position'"

    def __init__(self, ovation):
        self.ovation = ovation
        self.moved, self.offsets, self.longest = {}, {}, 0.0

    def __enter__(self):
        command = self.ovation.kubectl_command("exec", f"statefulset/{RELEASE}-redis", "--container=redis", "--", "sh", "-c", self.COMMAND)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def read(self):
        for line in self.process.stdout:
            now, fields = time.monotonic(), [field.strip('"') for field in line.strip().split(",")]
            for partition, offset in zip(fields[::2], fields[1::2]):
                if self.offsets.get(partition) != offset:
                    self.longest = max(self.longest, now - self.moved.get(partition, now))
                    self.moved[partition], self.offsets[partition] = now, offset

    def __exit__(self, kind, problem, trace):
        self.process.kill()
        self.process.wait()
        if not self.moved:
            raise Failure("Redis returned no positions")
        # This includes the time since the last change of each position.
        self.longest = max(self.longest, *(time.monotonic() - moved for moved in self.moved.values()))
