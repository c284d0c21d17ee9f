"""The base class of all servers of dev/stack: start, readiness and stop."""

import contextlib
import os
import signal
import socket
import urllib.request
from pathlib import Path

from processes import ROOT, Daemon, Failure

CONFIG = Path(__file__).resolve().parent / "config"
TOOLS = ROOT / "target/tools"

# The number of ports of a stack.
PORTS = 16


class Server(Daemon):
    """A server process of a stack. Subclasses define the files that it needs, its command, and how to check that it responds."""

    # The longest time for the start, and for the stop, in seconds.
    timeout = 30

    def __init__(self, stack, name, port):
        super().__init__(name, stack.folder)
        self.stack, self.port = stack, port
        self.data = stack.folder / name

    def prepare(self):
        """Creates the files that the server needs before its start."""
        self.data.mkdir(exist_ok=True)

    def command(self):
        """Returns the command line of the server."""
        raise NotImplementedError

    def responds(self):
        """Returns whether the server responds to a request."""
        raise NotImplementedError

    def exchange(self, request, size):
        """Sends a request to the server, as the function `exchange` does."""
        return exchange(self.port, request, size, self.stack.secure and self.stack.secure.context())

    def environment(self):
        """Returns additional environment variables for the server."""
        return {}

    def ports(self):
        """Returns all ports on which the server listens."""
        return [self.port]

    def start(self):
        """Starts the server if it does not run."""
        if self.pid():
            return
        self.prepare()
        for port in self.ports():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                raise Failure(f"{self.name} can't start: another process listens on port {port}; set OVATION_STACK_PORT to the first of {PORTS} free ports")
        self.launch(self.command(), cwd=self.data, env=os.environ | self.environment())

    def await_response(self):
        """Waits until the server responds. Raises Failure after the timeout."""
        self.await_ready(self.responds, self.timeout, f"did not respond on port {self.port}")

    def end_with(self, signal_number):
        """Sends a signal to the server and waits for its end. Raises Failure if it still runs after the timeout."""
        if not self.end(signal_number, self.timeout):
            raise Failure(f"{self.name} (pid {self.pid()}) still runs {self.timeout} s after {signal.Signals(signal_number).name}; see {self.log}, or: dev/stack kill {self.name}")


def exchange(port, request, size, tls=None):
    """Sends a request to a server on loopback and returns the first `size` bytes of the response. Returns fewer bytes if the server sends
    fewer, and none if it does not respond."""
    response = b""
    with contextlib.suppress(OSError), contextlib.ExitStack() as open_sockets:
        server = open_sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
        if tls:
            server = open_sockets.enter_context(tls.wrap_socket(server, server_hostname="localhost"))
        server.sendall(request)
        while len(response) < size and (more := server.recv(size - len(response))):
            response += more
    return response


def is_healthy(port, path):
    """Returns whether a server on loopback responds to GET `path` with status 200."""
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as response:
        return response.status == 200
    return False
