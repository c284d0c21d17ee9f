"""A stack: the servers of one folder, with their options, ports and data."""

import base64
import contextlib
import fcntl
import os
import shutil
import signal
import uuid
from pathlib import Path

from processes import ROOT, Failure, send_signal

from .kafka import Kafka
from .mongo import Mongo, MongoInMemory
from .monitoring import Alertmanager, Prometheus, RedisExporter
from .redis import Redis
from .s3 import S3
from .secure import Secure
from .server import PORTS


class Stack:
    """The servers of one folder. A file in the folder has their options, so later commands need none."""

    def __init__(self):
        self.folder = Path(os.environ.get("OVATION_STACK_DIR") or ROOT / "target/stack").absolute()
        self.settings = self.folder / "settings"
        saved = {}
        with contextlib.suppress(OSError):
            saved = dict(line.split("=", 1) for line in self.settings.read_text().split())
        # Whether the folder belongs to servers that were started before. Then some options can't change.
        self.has_settings = bool(saved)
        wanted_port = os.environ.get("OVATION_STACK_PORT")
        if wanted_port and not (wanted_port.isdecimal() and 1024 <= int(wanted_port) <= 65536 - PORTS):
            raise Failure(f"OVATION_STACK_PORT is the first of {PORTS} ports and must be from 1024 to {65536 - PORTS}, not {wanted_port!r}")
        self.port = int(saved.get("port", wanted_port or 19000))
        self.brokers = int(saved.get("brokers", 1))
        self.is_watched = saved.get("watched") == "yes"
        self.has_s3 = saved.get("s3") == "yes"
        self.secure = Secure(self.folder / "secure") if saved.get("secure") == "yes" else None
        self.is_ledger_in_memory = saved.get("ledger_in_memory") == "yes"
        # Each stack has its own cluster id, so brokers of another stack can't join if ports are mixed up.
        self.cluster = saved.get("cluster") or random_id()
        self.create_servers()
        if wanted_port and int(wanted_port) != self.port:
            if any(server.pid() for server in self.servers):
                raise Failure(f"the servers in {self.folder} run on ports from {self.port}, not {wanted_port}: stop them first, or set OVATION_STACK_DIR to another folder")
            self.port = int(wanted_port)
            self.create_servers()

    def create_servers(self):
        """Creates the objects of all servers from the current options. It does not start the servers."""
        self.kafkas = [Kafka(self, number, self.brokers) for number in range(1, self.brokers + 1)]
        mongo = MongoInMemory(self) if self.is_ledger_in_memory else Mongo(self)
        self.stores = [Redis(self), mongo, *self.kafkas]
        self.s3 = S3(self)
        self.monitoring = [Alertmanager(self), RedisExporter(self), Prometheus(self)]
        self.servers = [*self.stores, self.s3, *self.monitoring]

    def named(self, name):
        """Returns the servers of this name; for `kafka`, all brokers."""
        found = self.kafkas if name == "kafka" else [server for server in self.servers if server.name == name]
        if not found:
            names = " ".join(server.name for server in self.servers)
            raise Failure(f"unknown server {name}; the servers are: {names}" + (" (kafka means all brokers)" if self.brokers > 1 else ""))
        return found

    @contextlib.contextmanager
    def locked(self):
        """Holds the folder's lock, so that only one command at a time changes the servers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start(self, servers):
        """Saves the options, starts the servers, and waits until they respond."""
        self.has_s3 |= self.s3 in servers
        options = {"watched": self.is_watched, "secure": self.secure, "s3": self.has_s3, "ledger_in_memory": self.is_ledger_in_memory}
        lines = "".join(f"{name}={'yes' if is_enabled else 'no'}\n" for name, is_enabled in options.items())
        self.settings.write_text(f"port={self.port}\nbrokers={self.brokers}\ncluster={self.cluster}\n{lines}")
        for server in servers:
            server.start()
        for server in servers:
            server.await_response()

    def stop(self, servers):
        """Sends SIGTERM to the servers and waits for their end. Raises Failure if a server still runs after its timeout."""
        # Send the signal to all servers first: brokers that are stopped one after the other wait for each other's controllers.
        failures = []
        for server in servers:
            if pid := server.pid():
                send_signal(pid, signal.SIGTERM)
        for server in servers:
            try:
                server.end_with(signal.SIGTERM)
            except Failure as failure:
                failures.append(str(failure))
        if failures:
            raise Failure("\n".join(failures))

    def wipe(self):
        """Deletes the data and the options of the servers, which must not run."""
        for server in self.servers:
            shutil.rmtree(server.data, ignore_errors=True)
            for path in (server.log, server.pid_file, self.folder / f"{server.name}.properties"):
                path.unlink(missing_ok=True)
        for folder in ("prometheus.d", "alertmanager.d", "secure"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)
        # The file with the targets of our programs is not deleted: it is configuration, not data.
        (self.folder / "targets/stores.json").unlink(missing_ok=True)
        self.settings.unlink(missing_ok=True)
        self.has_settings = self.is_watched = self.has_s3 = self.is_ledger_in_memory = False
        self.secure = None
        self.cluster = random_id()


def random_id():
    """Returns a random UUID in Kafka's format. It does not begin with a dash, because Kafka's tools would read that as an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
