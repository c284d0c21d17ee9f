"""What the scripts that run the programs share: free ports, questions over HTTP, the programs, and what a process costs."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
PROGRAM = RELEASE / "ovation"

# The measured servers are a stack of their own.
STACK = {**os.environ, "OVATION_STACK_DIR": str(ROOT / "target/engines"), "OVATION_STACK_PORT": "19800"}


def stack(*command):
    """Runs dev/stack for the measured servers, and returns what it prints."""
    return subprocess.run([ROOT / "dev/stack", *command], env=STACK, check=True, stdout=subprocess.PIPE, text=True).stdout


def measured_servers():
    """What `dev/stack env` prints of the measured servers, by name."""
    return dict(line.split("=", 1) for line in stack("env").split())


def free_addresses(count):
    """Loopback addresses that nobody listens on, below the ports that outgoing connections are given."""
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
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def series(admin, name):
    """What a program at `admin` measures by this name: its labels, as they are written, and its value."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [(labels, float(value)) for labels, value in (line.rsplit(" ", 1) for line in lines if line.startswith(name + "{"))]


def row_of(row, header):
    """Prints a row of a Markdown table, after the header if there was none yet; returns the header."""
    if header is None:
        header = list(row)
        print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    return header


class Process:
    """A program of ours that has `/readyz` at `admin`."""

    def __init__(self, command, admin):
        self.name = Path(str(command[0])).name
        self.admin = admin
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
        self.peak_mb = 0.0
        while True:
            try:
                urllib.request.urlopen(f"http://{admin}/readyz", timeout=5)
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{self.name} ended")
                time.sleep(0.05)

    def resident_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
        self.peak_mb = max(self.peak_mb, now)
        return now

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)

    def stop(self):
        """Its exit code: 0 if it left when it was asked to."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Programs:
    """The separate programs, each on free ports, with a topic, keys and a database of their own.

    `servers` are what `dev/stack env` prints, by name; `folder` has the programs; `flags` are more of some, by name. A `book` that is
    given is taken as it is.
    """

    def __init__(self, servers, *names, folder=RELEASE, queue_options="", flags=None, book=None):
        self.folder, self.flags = folder, flags or {}
        self.name = f"run-{uuid.uuid4().hex[:8]}"
        self.queue = servers["OVATION_QUEUE"].rsplit("/", 1)[0] + f"/{self.name}?{queue_options}"
        self.tally = servers["OVATION_TALLY"] + f"?prefix={self.name}"
        self.book = book or servers["OVATION_BOOK"].rsplit("/", 1)[0] + f"/{self.name}"
        self.stores = ["--queue", self.queue, "--tally", self.tally, "--book", self.book]
        self.programs = {}
        self.addresses = {}
        try:
            for name in names:
                self.start(name)
        except BaseException:
            self.stop()
            raise

    def start(self, name):
        address, results_grpc, admin = free_addresses(3)
        command = [self.folder / name, "--log", "warn", *self.stores, "--admin", admin]
        if name != "consumer":
            command += ["--listen", address]
        if name == "results":
            command += ["--grpc", results_grpc]
        command += self.flags.get(name, [])
        self.addresses[name] = address
        self.programs[name] = Process(command, admin)

    def audit(self):
        done = subprocess.run([self.folder / "ovation", "audit", "--json", *self.stores], stdout=subprocess.PIPE, check=False)
        return json.loads(done.stdout)

    def stop(self):
        return [program.stop() for program in self.programs.values()]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def build(folder=RELEASE):
    """Builds the programs that the folder has, `release` or `debug`."""
    subprocess.run(["cargo", "build", *(["--release"] if folder == RELEASE else []), "--quiet", "--workspace"], cwd=ROOT, check=True)
    os.sync()  # what the build wrote must not reach the disk during a measurement
