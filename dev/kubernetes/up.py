"""`dev/cluster up`: starts the nodes, the control plane, CoreDNS, metrics-server and local-path-provisioner."""

import json
import os
import time
from pathlib import Path

from processes import Failure, print_progress

from .cluster import prepare
from .images import BASE_IMAGES, build_image
from .layout import MANIFESTS, TOOLS


def up(cluster, options):
    if os.geteuid():
        raise Failure("only root can create namespaces, interfaces and containers")
    count = options.nodes or len(cluster.nodes)
    if not cluster.config.exists():
        for log in cluster.folder.glob("*.log"):
            log.unlink()
    if count < len(cluster.nodes) and cluster.settings.exists():
        raise Failure("the cluster has two nodes: run `dev/cluster down` first")
    prepare("dev/install", "cluster")
    began = time.monotonic()

    def lap(what):
        print_progress(f"{what} ({time.monotonic() - began:.0f} s)")

    cluster.set_nodes(count)
    cluster.settings.write_text(f"nodes={count}\n")
    cluster.create_keys()
    hosts = cluster.folder / "hosts"
    if not hosts.exists():
        hosts.write_text("127.0.0.1 localhost\n")
    images = [build_image(cluster, name) for name in BASE_IMAGES]
    cluster.nodes[0].set_up()
    for part in cluster.control:
        part.start()
    lap("the control plane is ready")
    cluster.apply(MANIFESTS / "access.yaml")
    for node in cluster.nodes:
        node.set_up()
        node.containerd.start()
        node.containerd.load(images)
        if node.index:
            # Pods may be scheduled to this node as well, so it needs all images of the first node.
            for file in json.loads((cluster.nodes[0].containerd.folder / "loaded").read_text()):
                if Path(file).exists():
                    node.containerd.load([Path(file)])
        for part in node.parts:
            part.start()
        lap(f"{node.name} is ready at {node.ip}")
    (cluster.folder / "volumes").mkdir(exist_ok=True)
    cluster.apply(MANIFESTS / "coredns.yaml")
    cluster.apply_patched(TOOLS / "metrics-server/base", MANIFESTS / "metrics-server.kustomization.yaml")
    cluster.apply_patched(TOOLS / "local-path-provisioner/deploy", MANIFESTS / "local-path.kustomization.yaml", volumes=cluster.folder / "volumes")
    for namespace, name in ("kube-system", "coredns"), ("local-path-storage", "local-path-provisioner"), ("kube-system", "metrics-server"):
        cluster.await_deployment(namespace, name)
        lap(f"{name} is ready")
