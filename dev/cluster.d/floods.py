"""Votes that are cast while something happens to the cluster, and what became of each."""

import base64
import json
import signal
import subprocess
import threading
import time
from urllib.parse import quote

from ovation import RELEASE, check
from parts import TOOLS
from processes import Failure, run, say, tail, wait_until

# No flood goes on for longer, whatever becomes of the command that began it.
LONGEST = "90m"

# Seconds until the votes that are on the log are counted, also after a fault.
COUNTED = 120


class Flood:
    """One `ovation flood`, in the background, with a receipt for each acknowledged vote."""

    def __init__(self, ovation, contest, host, protocol, rate, *flags):
        self.name = f"{contest}-{host}-{protocol}-{rate}"
        folder = ovation.cluster.folder / "floods"
        folder.mkdir(exist_ok=True)
        self.receipts, self.output = folder / f"{self.name}.receipts", folder / f"{self.name}.json"
        self.rate, self.protocol = rate, protocol
        url = f"http://{ovation.hosts[host]}:{ovation.port}"
        if not any(flag.startswith("--for=") for flag in flags):
            flags = (f"--for={LONGEST}", *flags)
        votes = [f"--protocol={protocol}", f"--url={url}", f"--contest={contest}", f"--rate={rate}", "--timeout=20s", *flags]
        self.command = ovation.cluster.nodes[0].inside(ovation.program, "flood", *votes, f"--receipts={self.receipts}", "--json", "--quiet")
        self.process = None

    def start(self):
        with self.output.open("w") as output:
            self.process = subprocess.Popen([str(part) for part in self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def acknowledged(self):
        try:
            return self.receipts.read_bytes().count(b"\n")
        except OSError:
            return 0

    def stop(self):
        """Ends it once the votes under way are answered; its report."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        """Its report, once it has ended."""
        self.process.wait(timeout=150)
        for line in self.output.read_text().splitlines():
            if line.startswith("{"):
                return json.loads(line)
        raise Failure(f"the flood {self.name} ended without a report:\n{tail(self.output, 20)}")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def forget(self):
        """Deletes its files."""
        self.receipts.unlink()
        self.output.unlink()


class Flooding:
    """Floods around what happens to the cluster: `with Flooding(...)`. After it every acknowledged vote has been compared with the
    stores. Where what happened was planned, no client may have seen a request fail."""

    def __init__(self, ovation, contest, floods, *, is_planned):
        self.ovation, self.contest, self.is_planned = ovation, contest, is_planned
        self.floods = [Flood(ovation, contest, *flood) for flood in floods]
        self.reports = []

    def __enter__(self):
        # Of an earlier run, when the cluster was kept.
        if not self.ovation.await_counted(COUNTED):
            raise Failure("what is on the log already isn't counted")
        self.before = self.ovation.tally(self.contest)["total"]
        for flood in self.floods:
            flood.start()
        if not wait_until(lambda: all(flood.acknowledged() for flood in self.floods), 30, every=0.2):
            waiting = [flood.name for flood in self.floods if not flood.acknowledged()]
            for flood in self.floods:
                flood.kill()
            raise Failure(f"no vote is acknowledged to {', '.join(waiting)}: {tail(self.floods[0].output, 5)}")
        return self

    def end(self, flood):
        """Ends one of the floods before the others."""
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
            say(f"  {flood.protocol:11} at {flood.rate}/s: {counts}; p99 {report['p99_ms'] or 0:.0f} ms, most {report['max_ms'] or 0:.0f} ms")
            for error in report["errors"][:3]:
                say(f"    {error['votes']} x {error['error']}")
        if self.is_planned:
            bad = sum(report["refused"] + report["failed"] for _, report in self.reports)
            check(bad == 0, f"no client saw a failed request, of {sum(report['sent'] for _, report in self.reports)}")
        self.prove()

    def prove(self):
        """That each acknowledged vote is counted, once, by what the stores hold and by the auditor."""
        ovation = self.ovation
        acknowledged = sum(report["acknowledged"] for _, report in self.reports)
        # A client that got no answer, or an uncertain one, doesn't know whether its vote is on the log.
        unsure = sum(report["refused"] + report["failed"] for _, report in self.reports)
        began = time.monotonic()
        if not ovation.await_counted(COUNTED):
            raise Failure(f"{COUNTED} s after the last vote the log isn't counted to its end")
        waited = time.monotonic() - began
        found = compare(ovation, self.contest, [flood.receipts for flood in self.floods])
        lost, twice = len(found["lost"]) + sum(found["uncounted"].values()), found["twice_acknowledged"] + len(found["twice_in_the_book"])
        check(found["acknowledged"] == acknowledged, f"{acknowledged} votes were acknowledged, each with a receipt; the log was counted {waited:.1f} s later")
        check(lost == 0, f"none of them is lost: each is in the book and in the tallies{_some(found['lost'], found['uncounted'])}")
        beyond = found["beyond"] - self.before
        check(twice == 0 and 0 <= beyond <= unsure, f"none is doubled: the tallies have {beyond} more, of {unsure} whose clients got no receipt{_some(found['twice_in_the_book'])}")
        audit = ovation.audit()
        check(audit["ok"], f"the audit finds log, book and tallies equal: {audit['tallies']} votes, {audit['duplicates']} repeats" + ("" if audit["ok"] else f": {audit['differences'][:3]}"))
        for flood in self.floods:
            flood.forget()


def _some(*wrong):
    wrong = [each for each in wrong if each]
    return f" ({str(wrong)[:300]})" if wrong else ""


def compare(ovation, contest, receipts):
    """What the stores say of a contest's receipts, by drivers that are not ours."""
    secret = json.loads(ovation.kubectl("get", "secret", RELEASE, "--output=json"))["data"]
    redis, mongodb = (quote(base64.b64decode(secret[f"{store}-password"]).decode()) for store in ("redis", "mongodb"))
    address = lambda store: ovation.kubectl("get", "service", f"{RELEASE}-{store}", "--output=jsonpath={.spec.clusterIP}")
    asked = {
        "book": f"mongodb://ovation:{mongodb}@{address('mongodb')}:27017/ovation?authSource=admin&directConnection=true",
        "tally": f"redis://:{redis}@{address('redis')}:6379",
        "contest": contest,
        "receipts": [str(file) for file in receipts],
    }
    python, script = TOOLS / "proof/bin/python", TOOLS.parent.parent.parent / "dev/cluster.d/proof/prove.py"
    return json.loads(run([python, "-B", script], input=json.dumps(asked), fails="the stores couldn't be compared with the receipts"))


class Positions:
    """Follows how far each partition of the log is counted, five times a second: `with Positions(...)`, while votes come to all."""

    # Both as Redis' hash of positions says them and as time passes here.
    COMMAND = "REDISCLI_AUTH=$REDIS_PASSWORD exec redis-cli --csv -r -1 -i 0.2 HGETALL '{ovation}:position'"

    def __init__(self, ovation):
        self.ovation = ovation
        self.moved, self.offsets, self.longest = {}, {}, 0.0

    def __enter__(self):
        command = self.ovation.kubectl_command("exec", f"statefulset/{RELEASE}-redis", "--container=redis", "--", "sh", "-c", self.COMMAND)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self.follow, daemon=True).start()
        return self

    def follow(self):
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
            raise Failure("Redis tells no positions")
        # What stands still at the end has paused, too.
        self.longest = max(self.longest, *(time.monotonic() - moved for moved in self.moved.values()))
