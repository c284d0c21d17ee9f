"""Ovation's programs. A program that ends is started again at once."""

import collections
import json
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from processes import START, Process, now, wait_for

SECRET = b"a checker's secret of more than sixteen bytes"
# Two contests. In `ONCE`, each voter has one vote, and there is a list of candidates.
OPEN, ONCE = "bands", "final"
BANDS = ["Pink Floyd", "Queen", "ABBA", "Sigur Rós", "東京事変", 'AC/DC "live"', "Guns N' Roses", "Björk", "a\\b:c|d{e}", "Ω"]
CANDIDATES = BANDS[:6]

# Offsets of the first program's port from the first port.
PORTS = {"rest-producer": 60, "grpc-producer": 65, "consumer": 70, "results": 80}
# How far a program's admin port, and the results' gRPC port, are from its port.
ADMIN, RESULTS_GRPC = 30, 5

# A value of `flags`: this producer forwards its votes.
FORWARD = "forward"


class Programs:
    """Two REST and two gRPC producers, consumers, and one results process. Each is identified by its name and number."""

    def __init__(self, build, folder, port, urls, consumers=3, flags=None, config=None):
        """`build` is the folder with the programs. `urls(name, number)` returns the URLs of the vote log, the tallies and the ledger."""
        self.build, self.folder, self.port, self.urls, self.flags = Path(build), Path(folder), port, urls, flags or {}
        self.folder.mkdir(parents=True, exist_ok=True)
        secret = self.folder / "secret"
        secret.write_bytes(SECRET)
        candidates = json.dumps(CANDIDATES, ensure_ascii=False)
        self.config = self.folder / "ovation.toml"
        self.config.write_text(
            config or f'secret_file = "{secret}"\n\n[contests.{OPEN}]\n\n[contests.{ONCE}]\ncandidates = {candidates}\nvotes_per_voter = "one"\n'
        )
        self.lock = threading.RLock()
        self.processes = {}
        # Whether the program has to run. If it is false, the program is not started again.
        self.wanted = {}
        self.removed, self.paused = set(), set()
        self.kills, self.exits = collections.Counter(), []
        for name, count in (("rest-producer", 2), ("grpc-producer", 2), ("consumer", consumers), ("results", 1)):
            for number in range(count):
                self.add(name, number)
        self.is_over = self.is_stopped = False
        self.thread = threading.Thread(target=self._restart, daemon=True)
        self.thread.start()

    def address(self, name, number):
        return f"127.0.0.1:{self.port + PORTS[name] + number}"

    def admin(self, name, number):
        return f"127.0.0.1:{self.port + PORTS[name] + number + ADMIN}"

    def add(self, name, number):
        """Adds a program and starts it."""
        with self.lock:
            process = Process(f"{name}-{number}", self._command(name, number), self.folder / f"{name}-{number}.log", folder=self.folder)
            self.processes[name, number], self.wanted[name, number] = process, True
            self.removed.discard((name, number))
            process.start()

    def remove(self, name, number, how="stop"):
        """Ends a program, with SIGTERM or SIGKILL, which is then not started again."""
        with self.lock:
            self.wanted[name, number] = False
            self.removed.add((name, number))
            process = self.processes[name, number]
        return process.kill() if how == "kill" else process.stop()

    def restore(self, key):
        """Starts a removed program again."""
        with self.lock:
            self.wanted[key] = True

    def running(self, *names):
        """Returns the programs of these names that run and are not paused."""
        with self.lock:
            return [key for key, process in self.processes.items() if key[0] in names and self.wanted[key] and process.is_alive() and key not in self.paused]

    def kill(self, key):
        with self.lock:
            process = self.processes[key]
            if process.is_alive():
                process.signal(signal.SIGKILL)
                self.kills[key[0]] += 1

    def pause(self, key, seconds):
        """Stops a program with SIGSTOP, and continues it after `seconds`."""
        with self.lock:
            process, child = self.processes[key], self.processes[key].child
            self.paused.add(key)
            process.signal(signal.SIGSTOP)
        time.sleep(seconds)
        with self.lock:
            self.paused.discard(key)
            if process.child is child:
                process.signal(signal.SIGCONT)
        self.kills["pause"] += 1

    def health(self, name, number):
        """Returns the health report of a program. Raises OSError if the program does not respond."""
        try:
            with urllib.request.urlopen(f"http://{self.admin(name, number)}/health", timeout=3) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"{}")

    def await_ready(self, seconds=60):
        for key in list(self.processes):
            if self.wanted[key]:
                wait_for(lambda key=key: self._is_ready(*key), seconds, f"{key} is ready")

    def stop(self):
        """Stops all programs, and returns their exit codes. The second call does nothing."""
        self.is_over = True
        self.thread.join()
        if self.is_stopped:
            return {}
        self.is_stopped = True
        for process in self.processes.values():
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        return {process.name: process.stop() for process in self.processes.values()}

    def _command(self, name, number):
        command = [self.build / name, "--config", self.config, "--admin", self.admin(name, number), "--data", self.folder / f"data-{name}-{number}"]
        flags = self.flags.get(name, [])
        if name != "consumer":
            command += ["--listen", self.address(name, number)]
        if flags == FORWARD:
            return [*command, "--forward", f"http://{self.address('grpc-producer', number)}"]
        vote_log, tallies, ledger = self.urls(name, number)
        command += ["--vote-log", vote_log]
        if name in ("consumer", "results"):
            command += ["--tallies", tallies, "--ledger", ledger]
        if name == "results":
            command += ["--grpc", f"127.0.0.1:{self.port + PORTS[name] + RESULTS_GRPC + number}"]
        return [*command, *flags]

    def _restart(self):
        """Starts programs that have ended, and records those that ended without a signal from the checker."""
        while not self.is_over:
            with self.lock:
                for key, process in self.processes.items():
                    if self.wanted[key] and not process.is_alive():
                        code = process.child.returncode
                        if code != -signal.SIGKILL and key not in self.removed:
                            self.exits.append((round(now() - START, 1), process.name, code, process.log_since_start()[-600:].decode(errors="replace")))
                            time.sleep(0.2)
                        self.removed.discard(key)
                        process.start()
            time.sleep(0.02)

    def _is_ready(self, name, number):
        with urllib.request.urlopen(f"http://{self.admin(name, number)}/readyz", timeout=2) as response:
            return response.status == 200
