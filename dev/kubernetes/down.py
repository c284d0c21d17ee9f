"""`dev/cluster down`: ends all processes, and deletes everything except logs and images."""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

from processes import Failure, print_progress, process_start, run, send_signal, wait_until

from .layout import LINK, NODE_IPS
from .node import hierarchies


def down(cluster, _):
    cluster.set_nodes(len(NODE_IPS))
    # Kubelets are killed first, because they restart containers. All data are deleted, so no process needs a clean shutdown.
    for part in [*(node.kubelet for node in cluster.nodes), *cluster.parts()]:
        if pid := part.pid():
            send_signal(pid, signal.SIGKILL)
    holders = {node.namespaces.pid() for node in cluster.nodes}

    def have_ended():
        remaining = members(cluster) - holders
        for pid in remaining:
            send_signal(pid, signal.SIGKILL)
        return not remaining

    if not wait_until(have_ended, 30):
        raise Failure(f"these processes can't be ended: {sorted(members(cluster) - holders)}")
    # When the last process in a namespace ends, the kernel removes the namespace with its mounts, interfaces, routes and rules.
    for pid in holders - {None}:
        os.kill(pid, signal.SIGKILL)

    def is_removed():
        for hierarchy in hierarchies():
            for node in cluster.nodes:
                for folder, _, _ in os.walk(hierarchy / node.cgroup, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)
        return not remains(cluster)

    if not wait_until(is_removed, 30):
        raise Failure("this remains of the cluster:\n" + "\n".join(remains(cluster)))
    for path in cluster.folder.iterdir():
        if path.is_dir() and path.name != "images":
            shutil.rmtree(path)
        elif path.suffix in (".pid", ".sock", ".ttrpc") or path.name in ("settings", "hosts"):
            path.unlink()
    print_progress(f"the cluster is removed; its logs and images are in {cluster.folder}")


def members(cluster):
    """Returns the ids of all processes of the cluster: those in the namespaces and cgroups of its nodes, and the containerd shims of
    nodes whose namespaces no longer exist."""
    namespaces, sockets = set(), {str(node.containerd.socket).encode() for node in cluster.nodes}
    for node in cluster.nodes:
        with contextlib.suppress(OSError):
            namespaces.add(os.readlink(f"/proc/{node.namespaces.pid()}/ns/mnt"))
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                arguments = (process / "cmdline").read_bytes().split(b"\0")
                if os.readlink(process / "ns/mnt") in namespaces or (b"containerd-shim" in arguments[0] and not sockets.isdisjoint(arguments)):
                    found.add(int(process.name))
    for hierarchy in hierarchies():
        for node in cluster.nodes:
            for file in (hierarchy / node.cgroup).rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in file.read_text().split())
    return {pid for pid in found if process_start(pid)}


def remains(cluster):
    """Returns what remains of the cluster, as lines of text."""
    remaining = [f"process {pid}" for pid in members(cluster)]
    remaining += [f"cgroup {hierarchy / node.cgroup}" for hierarchy in hierarchies() for node in cluster.nodes if (hierarchy / node.cgroup).exists()]
    remaining += [f"interface {LINK}"] if Path(f"/sys/class/net/{LINK}").exists() else []
    remaining += [f"route {line}" for line in run(["ip", "route"]).splitlines() if re.match(r"10\.(90\.0|244|96)\.", line)]
    remaining += [f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4].startswith(f"{cluster.folder}/")]
    return remaining
