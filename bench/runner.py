"""The common code of the measurements in this folder: builds the programs, starts separate servers, runs floods, and prints tables and
broken promises."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "dev"))

# Some of these names are imported only for the scripts, which import them from this module, because it adds `dev` to the path.
from processes import Child, Failure, cpu_seconds, memory_mb  # noqa: E402, F401
from programs import RELEASE, Program, Programs, free_addresses, get  # noqa: E402, F401

PROGRAM = RELEASE / "ovation"

# The environment of `dev/stack` for the measured servers, which are a separate stack.
STACK = {**os.environ, "OVATION_STACK_DIR": str(ROOT / "target/engines"), "OVATION_STACK_PORT": "19800"}


def build(folder=RELEASE):
    """Builds the programs into the folder: target/release or target/debug."""
    subprocess.run(["cargo", "build", *(["--release"] if folder == RELEASE else []), "--quiet", "--workspace"], cwd=ROOT, check=True)
    os.sync()  # Write the files of the build to disk now, not during a measurement.


def stack(*command):
    """Runs dev/stack for the measured servers, and returns what it prints."""
    return subprocess.run([ROOT / "dev/stack", *command], env=STACK, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def servers(*options):
    """Starts empty servers with these options of `dev/stack up`, and yields the variables of `dev/stack env`. At the end, stops the servers
    and deletes their data."""
    stack("up", "--fresh", *options)
    try:
        yield dict(line.split("=", 1) for line in stack("env").split())
    finally:
        stack("down", "--wipe")


class Embedded(Program):
    """A process of `ovation up`, with embedded stores in the folder `data` of `folder`."""

    def __init__(self, folder, *flags, program=PROGRAM):
        self.rest, self.grpc, self.results, results_grpc, admin = free_addresses(5)
        self.data = Path(folder) / "data"
        super().__init__([program, "up", "--log", "warn", "--data", self.data, "--rest", self.rest, "--grpc", self.grpc, "--results", self.results,
                          "--results-grpc", results_grpc, "--admin", admin, *flags], admin)


def flood_command(protocol, address, rate, seconds, *flags):
    """Returns the command of a flood. `rate` is in votes a second; 0 is the maximum rate."""
    command = [PROGRAM, "flood", "--protocol", protocol, "--url", f"http://{address}", "--rate", rate, "--for", f"{seconds}s", *flags]
    return [str(part) for part in command]


def start_flood(*flood):
    """Starts a flood in the background. `report_of` waits for its end."""
    return subprocess.Popen([*flood_command(*flood), "--json"], stdout=subprocess.PIPE)


def report_of(flooding):
    """Waits for the end of a flood and returns its report."""
    return json.loads(flooding.communicate()[0])


def series(admin, name):
    """Returns the series of a metric of the program with the admin port `admin`. Each series is a pair of its name with labels, as text, and its
    value."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return [(labels, float(value)) for labels, value in (line.rsplit(" ", 1) for line in lines if line.startswith(name + "{"))]


class Report:
    """Prints rows as Markdown tables to stdout, and broken promises to stderr."""

    def __init__(self):
        self.header, self.is_broken = None, False

    def row(self, row):
        """Prints a row, and before the first row of a table its header."""
        if self.header is None:
            self.header = list(row)
            print("| " + " | ".join(self.header) + " |\n|" + " --- |" * len(self.header))
        print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)

    def end_table(self):
        """Ends the table: the next row starts a new one."""
        self.header = None

    def broken(self, problems):
        """Prints the broken promises in `problems`, if there are any."""
        for problem in problems:
            print(f"broken: {problem}", file=sys.stderr)
            self.is_broken = True

    def exit(self):
        """Exits with 1 if a promise is broken, and with 0 otherwise."""
        sys.exit(1 if self.is_broken else 0)


def run(main):
    """Runs the `main` of a script of this folder. If it raises a Failure, prints the failure and exits with 1."""
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench/{Path(sys.argv[0]).name}: {failure}")
