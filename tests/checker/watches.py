"""Threads that observe the system: the tallies and the partitions during the faults, and the health of the programs after them."""

import contextlib
import threading
import time

from processes import START, log, now
from programs import ONCE, OPEN

# How long after the last fault each program has to be healthy, in seconds.
HEALTHY_WITHIN = 60
# The health check of the machine's CPU, which the servers, the clients and the faults use too. It says nothing about the program.
MACHINE_CHECK = "cpu"
# mongo-java-server does not have the command `hello`, which the health check of the ledger uses.
LEDGER_CHECK = "ledger"
# After this time without progress, a partition is reported, in seconds. Faults may stop partitions, so this alone is no violation.
STANDSTILL_REPORTED = 15


class Watch:
    """A thread that calls `look` at an interval. A look that fails is repeated at the next interval."""

    interval = 0.5

    def __init__(self):
        self.is_over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.is_over:
            time.sleep(self.interval)
            with contextlib.suppress(Exception):
                self.look()

    def look(self):
        raise NotImplementedError

    def stop(self):
        self.is_over = True
        self.thread.join()


class TalliesWatch(Watch):
    """The tallies never have more votes than ballots were cast."""

    interval = 0.2

    def __init__(self, stores, clients):
        self.stores, self.clients = stores, clients
        self.looks, self.violations = 0, []
        super().__init__()

    def look(self):
        client = self.stores.redis(timeout=2)
        total = sum(int(count) for contest in (OPEN, ONCE) for count in client.hvals(self.stores.key(f"tally:{contest}")))
        cast = len(self.clients.sent_keys) + len(self.clients.marks)
        self.looks += 1
        if total > cast:
            self.violations.append(("doubled", f"at {now() - START:.1f} s the tallies had {total} votes, and {cast} ballots were cast"))


class PartitionsWatch(Watch):
    """Measures how long each partition stood still: its position in Redis did not change although records waited. `longest` has the longest
    standstill of any partition, `standstills` those that were reported."""

    interval = 1

    def __init__(self, stores):
        self.stores = stores
        # By partition: the last position, and since when it is the position while records wait.
        self.seen = {}
        self.longest, self.standstills = 0, []
        super().__init__()

    def look(self):
        bounds, positions = self.stores.bounds(), self.stores.positions()
        is_new = False
        for partition, (_, end) in bounds.items():
            position = positions.get(partition, 0)
            before, since, is_reported = self.seen.get(partition, (None, now(), False))
            if position != before or position >= end:
                if is_reported:
                    self.standstills.append(f"partition {partition} at {position}: {now() - since:.0f} s, until {now() - START:.0f} s")
                    log("  ", self.standstills[-1])
                self.seen[partition] = (position, now(), False)
                continue
            duration = now() - since
            self.longest = max(self.longest, round(duration, 1))
            if duration > STANDSTILL_REPORTED and not is_reported:
                log(f"   partition {partition} stands still at {position}, {end - position} records wait")
                is_reported = is_new = True
            self.seen[partition] = (before, since, is_reported)
        if is_new:
            log("   the consumer group:", self.stores.group())


class HealthWatch(Watch):
    """Starts after the last fault. Every program has to be healthy within a minute, and stay healthy."""

    def __init__(self, programs, is_ledger_in_memory=False):
        self.programs, self.begun = programs, now()
        self.ignored_checks = {MACHINE_CHECK, LEDGER_CHECK} if is_ledger_in_memory else {MACHINE_CHECK}
        # By program: since when it is healthy, in seconds after the last fault, or None; and what was wrong when it was last not healthy.
        self.healthy_since, self.problems = {}, {}
        super().__init__()

    def look(self):
        for key in [key for key, is_wanted in list(self.programs.wanted.items()) if is_wanted]:
            problem = self._problem(key)
            if problem:
                self.healthy_since[key] = None
                self.problems[key] = problem
            elif self.healthy_since.get(key) is None:
                self.healthy_since[key] = now() - self.begun

    def finish(self):
        """Waits until all programs are healthy, or until the time is up. Returns the violations."""
        while (not self.healthy_since or None in self.healthy_since.values()) and now() - self.begun <= HEALTHY_WITHIN:
            time.sleep(self.interval)
        self.stop()
        violations = []
        for (name, number), since in self.healthy_since.items():
            if since is None or since > HEALTHY_WITHIN:
                when = "not healthy at the end" if since is None else f"healthy only {since:.0f} s after the last fault"
                violations.append(("unhealthy", f"{name}-{number} was {when}: {self.problems.get((name, number))}"))
        return violations

    def _problem(self, key):
        """Returns why a program is not healthy, or None if it is."""
        try:
            report = self.programs.health(*key)
        except (OSError, ValueError) as error:
            return f"no response: {error}"
        failed = [check for check in report.get("checks", []) if check["status"] != "healthy" and check["name"] not in self.ignored_checks]
        if report.get("ready") and not failed:
            return None
        errors = [f"{check['name']}: {check.get('error')}" for check in failed]
        return f"{report.get('status')}, waiting for {report.get('waiting_for')}, {errors}"
