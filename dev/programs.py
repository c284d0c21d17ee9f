"""Starts Ovation's programs as children of a script. They use free ports, and a topic, a key prefix and a database of their own on running
servers."""

import json
import random
import socket
import subprocess
import urllib.request
import uuid
from pathlib import Path

from processes import ROOT, Child

RELEASE = ROOT / "target/release"


class Program(Child):
    """One of Ovation's programs. Creating the object starts the program and waits until it is ready. `admin` is its admin address."""

    def __init__(self, command, admin):
        super().__init__(Path(str(command[0])).name)
        self.admin = admin
        self.peak_mb = 0.0
        self.launch(command)
        self.await_ready(self.is_ready)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def resident_mb(self):
        now = super().resident_mb()
        self.peak_mb = max(self.peak_mb, now)
        return now


class Programs:
    """Separate programs on free ports, with a topic, a key prefix and a database of their own. Creating the object starts the programs `names`.

    `servers` has the variables that `dev/stack env` prints, `folder` is that of the programs, and `flags` has additional flags by program. If
    `ledger` has a URL, the programs use that ledger instead of a new database. `vote_log_options` is the query part of the vote log's URL.
    """

    def __init__(self, servers, *names, folder=RELEASE, vote_log_options="", flags=None, ledger=None):
        self.folder, self.flags = folder, flags or {}
        self.name = f"run-{uuid.uuid4().hex[:8]}"
        self.vote_log = servers["OVATION_VOTE_LOG"].rsplit("/", 1)[0] + f"/{self.name}?{vote_log_options}"
        self.tallies = servers["OVATION_TALLIES"] + f"?prefix={self.name}"
        self.ledger = ledger or servers["OVATION_LEDGER"].rsplit("/", 1)[0] + f"/{self.name}"
        self.stores = ["--vote-log", self.vote_log, "--tallies", self.tallies, "--ledger", self.ledger]
        self.programs = {}
        self.addresses = {}
        try:
            for name in names:
                self.start(name)
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, name):
        address, results_grpc, admin = free_addresses(3)
        command = [self.folder / name, "--log", "warn", *self.stores, "--admin", admin]
        if name != "consumer":
            command += ["--listen", address]
        if name == "results":
            command += ["--grpc", results_grpc]
        command += self.flags.get(name, [])
        self.addresses[name] = address
        self.programs[name] = Program(command, admin)

    def audit(self):
        """Runs `ovation audit` and returns its report."""
        done = subprocess.run([self.folder / "ovation", "audit", "--json", *self.stores], stdout=subprocess.PIPE, check=False)
        return json.loads(done.stdout)

    def stop(self):
        """Stops all programs and returns their exit codes."""
        return [program.stop() for program in self.programs.values()]


def free_addresses(count):
    """Returns free loopback addresses. Their ports are below the range that the kernel uses for outgoing connections."""
    sockets = []
    while len(sockets) < count:
        each = socket.socket()
        try:
            each.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            sockets.append(each)
        except OSError:
            each.close()
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def get(url):
    """Requests a URL and returns the decoded JSON of the response."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)
