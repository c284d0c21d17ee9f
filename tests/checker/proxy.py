"""A TCP proxy between the programs, their servers and the clients. It runs in a process of its own.

A link is one listening port and the port that it leads to. Each direction of a link has its own faults: `up` is towards the server, `down` towards
the client.

    {"drop": true}                           bytes are read and not passed on
    {"freeze": true}                         bytes are not read
    {"latency": SECONDS, "jitter": SECONDS}  bytes arrive later, by the latency and a random part of the jitter
    {"rate": BYTES}                          at most so many bytes per second arrive
    {"cut_after": [MIN, MAX], "cut_chance": SHARE}
                                             `down` only: the connection is cut in the middle of a reply, after so many bytes or by chance

A link may also refuse connections. The class `Proxy` controls the process over a Unix socket: one JSON object per line.
"""

import asyncio
import contextlib
import json
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvloop

from processes import Process, wait_for


class Proxy:
    """Starts the proxy's process and controls it. `links` has for each name the listening port and the server's port."""

    def __init__(self, folder, links):
        self.links = links
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "links.json"
        file.write_text(json.dumps(links))
        # The path of a Unix socket has at most 107 bytes, so the socket is not in our folder.
        self.socket_folder = tempfile.mkdtemp(prefix="ovation-checker-")
        path = f"{self.socket_folder}/proxy.sock"
        self.process = Process("proxy", [sys.executable, __file__, path, file], folder / "proxy.log").start()
        wait_for(lambda: b"proxy ready" in self.process.log_since_start(), 20, "the proxy starts")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rwb")
        self.lock = threading.Lock()

    def set(self, link, **what):
        """Changes a link, or with `*` all links. Returns the numbers of connections and cuts of each link."""
        with self.lock:
            self.file.write((json.dumps({"link": link, **what}) + "\n").encode())
            self.file.flush()
            return json.loads(self.file.readline())

    def heal(self, link="*", reset=False):
        """Ends the faults of a link. With `reset`, also cuts its connections."""
        return self.set(link, up={}, down={}, refuse=False, reset=reset)

    def stop(self):
        self.process.stop(3)
        shutil.rmtree(self.socket_folder, ignore_errors=True)


class ProxyServer:
    """The proxy's process."""

    def __init__(self, links):
        self.links = {
            name: {"listen": listen, "to": to, "up": {}, "down": {}, "refuse": False, "connections": set(), "server": None, "seen": 0, "cuts": 0}
            for name, (listen, to) in links.items()
        }

    async def run(self, path):
        for link in self.links.values():
            link["server"] = await asyncio.start_server(lambda reader, writer, link=link: self.serve(link, reader, writer), "127.0.0.1", link["listen"], backlog=512)
        await asyncio.start_unix_server(self.control, path)
        print("proxy ready", flush=True)
        await asyncio.Event().wait()

    async def control(self, reader, writer):
        """Applies each line to its link, and responds with the state of all links."""
        while line := await reader.readline():
            change = json.loads(line)
            names = self.links if change.get("link") in (None, "*") else [change["link"]]
            for name in names:
                link = self.links[name]
                for key in ("up", "down", "refuse", "to"):
                    if key in change:
                        link[key] = change[key]
                if change.get("reset"):
                    for cut in list(link["connections"]):
                        cut()
            state = {
                name: {"connections": len(link["connections"]), "seen": link["seen"], "cuts": link["cuts"]} for name, link in self.links.items()
            }
            writer.write((json.dumps(state) + "\n").encode())
            await writer.drain()

    async def serve(self, link, reader, writer):
        """Passes one connection on until one of its ends closes it."""
        link["seen"] += 1
        if link["refuse"]:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", link["to"], limit=1 << 20), 5)
        except OSError:
            writer.transport.abort()
            return
        for each in (writer, server_writer):
            each.transport.set_write_buffer_limits(high=1 << 20)

        def cut():
            writer.transport.abort()
            server_writer.transport.abort()

        link["connections"].add(cut)
        try:
            await asyncio.gather(self.pump(link, "up", reader, server_writer, cut), self.pump(link, "down", server_reader, writer, cut))
        finally:
            link["connections"].discard(cut)
            cut()

    async def pump(self, link, side, reader, writer, cut):
        """Passes the bytes of one direction on, with the faults that the link has at the time."""
        queue = asyncio.Queue(64)

        async def read():
            try:
                while True:
                    while link[side].get("freeze"):
                        await asyncio.sleep(0.02)
                    data = await reader.read(65536)
                    await queue.put((time.monotonic(), data))
                    if not data:
                        return
            except (OSError, asyncio.IncompleteReadError):
                await queue.put((0, b""))

        task = asyncio.ensure_future(read())
        sent = 0
        try:
            while True:
                read_at, data = await queue.get()
                if not data:
                    break
                fault = link[side]
                if delay := fault.get("latency", 0):
                    delay += random.uniform(0, fault.get("jitter", 0))
                    await asyncio.sleep(max(0, read_at + delay - time.monotonic()))
                    fault = link[side]
                if fault.get("drop"):
                    continue
                if side == "down" and (span := fault.get("cut_after")):
                    limit = random.randint(*span)
                    if sent + len(data) > limit or random.random() < fault.get("cut_chance", 0.02):
                        writer.write(data[: random.randint(0, max(0, len(data) - 1))])
                        with contextlib.suppress(Exception):
                            await asyncio.wait_for(writer.drain(), 1)
                        link["cuts"] += 1
                        cut()
                        return
                if rate := fault.get("rate"):
                    step = max(1, int(rate / 50))
                    for start in range(0, len(data), step):
                        writer.write(data[start : start + step])
                        await writer.drain()
                        await asyncio.sleep(step / rate)
                        if not link[side].get("rate"):
                            writer.write(data[start + step :])
                            break
                else:
                    writer.write(data)
                sent += len(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            task.cancel()
            cut()


if __name__ == "__main__":
    uvloop.run(ProxyServer(json.loads(Path(sys.argv[2]).read_text())).run(sys.argv[1]))
