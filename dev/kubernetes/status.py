"""`dev/cluster status`, `logs`, `kubectl` and `kubeconfig`."""

import json
import os

from processes import Failure, follow_logs, memory_mb

from .layout import TOOLS


def kubeconfig(cluster, _):
    if not cluster.config.exists():
        raise Failure("there is no cluster: run dev/cluster up")
    print(cluster.config)


def status(cluster, _):
    is_ready = True
    print(f"{'process':24} {'state':12} {'pid':>8} {'memory':>8}")
    for part in cluster.parts():
        pid = part.pid()
        state = "down" if not pid else "up" if part.is_ready() else "not ready"
        resident = memory_mb(pid)
        memory = "-" if resident is None else f"{int(resident)} MB"
        is_ready &= state == "up"
        print(f"{part.name:24} {state:12} {pid or '-':>8} {memory:>8}")
    if is_ready:
        pods = json.loads(cluster.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]
        for pod in pods:
            conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
            if pod["status"]["phase"] != "Succeeded" and conditions.get("Ready") != "True":
                is_ready = False
                print(f"not ready: pod {pod['metadata']['namespace']}/{pod['metadata']['name']}")
        print(f"{len(pods)} pods" + (", all ready" if is_ready else ""))
    return 0 if is_ready else 1


def logs(cluster, options):
    parts = [part for part in cluster.parts() if options.process in (None, part.name)]
    if not parts:
        raise Failure(f"unknown process {options.process}; the processes are: {' '.join(part.name for part in cluster.parts())}")
    follow_logs(parts, cluster.folder, options.follow)


def kubectl(cluster, options):
    kubeconfig = cluster.config
    if not kubeconfig.exists():
        raise Failure("there is no cluster: run dev/cluster up")
    program = str(TOOLS / "kubernetes/kubectl")
    os.execv(program, [program, f"--kubeconfig={kubeconfig}", *options.arguments])
