"""Starts, measures and ends processes, and waits for conditions."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

now = time.monotonic
START = now()


def log(*what):
    """Prints a line with the seconds since the start of the checker."""
    print(f"{now() - START:7.1f}s ", *what, flush=True)


class Process:
    """A process with a log file. It can be started again after its end."""

    def __init__(self, name, command, log_file, folder=None):
        self.name, self.command, self.log_file, self.folder = name, [str(part) for part in command], Path(log_file), folder
        self.child = None
        # Where the current run begins in the log file.
        self.log_offset = 0

    def start(self):
        """Starts the process if it does not run. The URLs in our environment are not for it."""
        if self.is_alive():
            return self
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OVATION_")}
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            self.log_offset = output.tell()
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, env=environment, start_new_session=True
            )
        return self

    def is_alive(self):
        return self.child is not None and self.child.poll() is None

    @property
    def pid(self):
        return self.child.pid

    def signal(self, number):
        """Sends a signal to the process if it runs."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.child:
            self.child.wait()

    def stop(self, seconds=15):
        """Sends SIGTERM and returns the exit code. A process that still runs after `seconds` is killed; then the result is the text `killed`."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.child.wait(seconds) if self.child else None
        except subprocess.TimeoutExpired:
            self.kill()
            return "killed"

    def log_since_start(self):
        """Returns what the process has logged since its last start."""
        with self.log_file.open("rb") as file:
            file.seek(self.log_offset)
            return file.read()

    def resident_mb(self):
        """Returns the resident memory in MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def threads(self):
        """Returns the number of threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))


def wait_for(condition, seconds, what, interval=0.05):
    """Waits until `condition` returns a true value, and returns this value. An exception means that the condition does not hold yet. Raises
    RuntimeError after `seconds`."""
    deadline = now() + seconds
    while True:
        with contextlib.suppress(Exception):
            if value := condition():
                return value
        if now() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(interval)
