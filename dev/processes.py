"""Starts, measures and ends processes, for the scripts of this repository."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """An error that ends the command. Its text is for the user."""


class Process:
    """A process that a command starts. A `Daemon` continues after the command, a `Child` ends with it."""

    def __init__(self, name):
        self.name = name

    def pid(self):
        """Returns the process id, or None if the process does not run."""
        raise NotImplementedError

    def await_ready(self, is_ready, seconds=float("inf"), problem="was not ready"):
        """Waits until `is_ready` returns true. Raises Failure if the process ends before that, or after `seconds` with the text `problem`."""
        is_in_time = wait_until(lambda: not self.pid() or is_ready(), seconds)
        if not is_in_time or not self.pid():
            what = f"{problem} within {seconds} s" if self.pid() else "ended"
            raise Failure(f"{self.name} {what}{self.end_of_log()}")

    def end_of_log(self):
        """Returns the last lines of the process' log, for an error message."""
        return ""

    def resident_mb(self):
        """Returns the resident memory in MiB."""
        return self._used(memory_mb)

    def cpu_seconds(self):
        """Returns the CPU time used so far, in seconds."""
        return self._used(cpu_seconds)

    def _used(self, measure):
        used = measure(self.pid())
        if used is None:
            raise Failure(f"{self.name} ended")
        return used


class Daemon(Process):
    """A process that continues after the command that started it. A pid file identifies the process by its pid and its start time, because
    the kernel reuses pids."""

    def __init__(self, name, folder):
        super().__init__(name)
        self.log = folder / f"{name}.log"
        self.pid_file = folder / f"{name}.pid"

    def pid(self):
        pid, start, _ = self._read_pid_file()
        return int(pid) if pid and process_start(pid) == start else None

    def launch(self, command, **options):
        """Starts the process. `options` are those of `subprocess.Popen`."""
        with self.log.open("ab") as log:
            offset = log.tell()
            # The process has a session of its own and none of our pipes, so it continues after this script has ended.
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options)
        # Write the text to another file and rename that, so that no reader sees half of the text.
        partial = self.pid_file.with_suffix(".new")
        partial.write_text(f"{self.child.pid} {process_start(self.child.pid)} {offset}\n")
        partial.rename(self.pid_file)

    def log_since_start(self):
        """Returns what the process has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(int(self._read_pid_file()[2]) if self.pid() else 0)
            return log.read()

    def end_of_log(self):
        return f"; the end of {self.log}:\n{tail(self.log, 20)}"

    def end(self, signal_number, seconds):
        """Sends the signal, and returns whether the process ended within `seconds`. Removes the pid file of a process that has ended."""
        pid = self.pid()
        if not pid:
            return True
        start = process_start(pid)
        send_signal(pid, signal_number)
        # A stopped process handles SIGTERM only after SIGCONT.
        send_signal(pid, signal.SIGCONT)
        if not wait_until(lambda: process_start(pid) != start, seconds):
            return False
        self.pid_file.unlink(missing_ok=True)
        return True

    def _read_pid_file(self):
        """Returns the pid, the start time of the process, and the offset of its first line in the log. They are None, None and 0 without a
        valid pid file."""
        try:
            pid, start, *offset = self.pid_file.read_text().split()
        except (OSError, ValueError):
            return None, None, 0
        return pid, start, offset[0] if offset else 0


class Child(Process):
    """A process that the command stops before it ends. Its stderr is that of the command."""

    def launch(self, command):
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)

    def pid(self):
        return self.process.pid if self.process.poll() is None else None

    def stop(self):
        """Sends SIGTERM, and after 30 s SIGKILL. Returns the exit code: 0 after a clean shutdown."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self):
        """Sends SIGKILL and returns the exit code."""
        self.process.kill()
        return self.process.wait()


def wait_until(condition, seconds, interval=0.02):
    """Waits until the condition is true, for at most `seconds`, and returns whether it became true. Checks it every `interval` seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def process_start(pid):
    """Returns the start time of a process in clock ticks since boot, or None if the process does not run. Pid and start time together
    identify a process."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def cpu_seconds(pid):
    """Returns the CPU time that a process has used, in seconds, or None if there is no such process."""
    fields = _stat(pid)
    return None if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """Returns the fields of /proc/PID/stat from the third on (see proc(5)), or None if there is no such process."""
    try:
        # The second field is the program's name in brackets, which may have any characters.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None


def memory_mb(pid, field="VmRSS"):
    """Returns the resident memory of a process in MiB (with `VmHWM`, its peak), or None if the process does not run."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), None)


def send_signal(pid, signal_number):
    """Sends a signal to a process that may have ended."""
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        pass


def tail(path, lines):
    """Returns the last lines of a file."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def run(command, *, fails=None, **options):
    """Runs a command and returns its output. If the command fails, raises Failure with the text `fails` and the output."""
    done = subprocess.run([str(part) for part in command], stdin=None if "input" in options else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise Failure(f"{fails or ' '.join(str(part) for part in command[:4]) + ' failed'}:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout


def print_progress(text):
    """Prints a line about the progress of this command, with the name of the command."""
    print(f"{Path(sys.argv[0]).resolve().relative_to(ROOT)}: {text}", flush=True)


def follow_logs(processes, folder, is_followed):
    """Replaces this process by `tail`, which prints the log files of the processes. It does not return."""
    files = [str(process.log) for process in processes if process.log.exists()]
    if not files:
        raise Failure(f"there are no logs in {folder}: nothing has been started")
    os.execvp("tail", ["tail", "-n", "100", *(["-F"] if is_followed else []), *files])
