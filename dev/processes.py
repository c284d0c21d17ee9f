"""Processes that outlive the command which started them: those of dev/stack and of dev/cluster."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """Ends the command with a sentence for the user."""


def wait_until(condition, seconds, every=0.02):
    """Whether the condition came true in time; it is looked at once in so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def process_start(pid):
    """When a living process started, in clock ticks since boot, or None. With the pid it names a process for good."""
    try:
        # The second field is the program's name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def tail(path, lines):
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def run(command, *, fails=None, **options):
    """What a command says. Where it fails, that with a sentence."""
    done = subprocess.run([str(part) for part in command], stdin=None if "input" in options else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise Failure(f"{fails or ' '.join(str(part) for part in command[:4]) + ' failed'}:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout


def say(text):
    """A line on how far a command is, under its name."""
    print(f"{Path(sys.argv[0]).resolve().relative_to(ROOT)}: {text}", flush=True)


class Process:
    """One process, known by its pid file. A pid that another process got since is not ours."""

    def __init__(self, name, folder):
        self.name = name
        self.log = folder / f"{name}.log"
        self.pid_file = folder / f"{name}.pid"

    def pid(self):
        """Its process id, or None if it doesn't run."""
        try:
            pid, start = self.pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if process_start(pid) == start else None

    def launch(self, command):
        with self.log.open("ab") as log:
            # A session of its own, and none of our pipes: it outlives this script and whoever waits for the script's output.
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        # Written aside and renamed, so that nobody reads half a file.
        half = self.pid_file.with_suffix(".new")
        half.write_text(f"{self.child.pid} {process_start(self.child.pid)}\n")
        half.rename(self.pid_file)

    def await_ready(self, is_ready, seconds):
        in_time = wait_until(lambda: not self.pid() or is_ready(), seconds)
        if not in_time or not self.pid():
            what = f"isn't ready after {seconds} s" if self.pid() else "ended"
            raise Failure(f"{self.name} {what}; the end of {self.log}:\n{tail(self.log, 20)}")
