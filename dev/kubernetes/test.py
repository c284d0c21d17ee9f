"""`dev/cluster test`: tests the release during faults and changes, on the running cluster or on a temporary one, and restores the state
afterwards."""

import argparse
import json
import time

from processes import Failure, print_progress

from .cluster import prepare
from .down import down
from .fire import run_parts
from .install import install, install_keda, remove_keda
from .layout import MANIFESTS
from .ovation import NAMESPACE, RELEASE
from .up import up

# The node of the stores, which the test does not drain. fire.values.yaml puts the stores on this node.
STORE_NODE = "n1"


def test(cluster, options):
    was_up = any(part.pid() for part in cluster.parts())
    if was_up and len(cluster.nodes) < 2:
        raise Failure("the test drains a node, so it needs two: run `dev/cluster up --nodes 2`, or `dev/cluster down`, and the test creates its own cluster")
    has_keda = not options.parts or "lag" in options.parts
    prepare("dev/install", "charts", "proof", *(["keda"] if has_keda else []))
    if not was_up:
        up(cluster, argparse.Namespace(nodes=2))
    releases = json.loads(cluster.helm("list", f"--namespace={NAMESPACE}", "--output=json"))
    if away := claims_away_from(cluster, STORE_NODE):
        raise Failure(f"the test places the stores on {STORE_NODE} and drains the other node, but these volumes are on the other node: {', '.join(away)}. "
                      "Run `dev/cluster down`, and the test creates its own cluster")
    began = time.monotonic()
    values = MANIFESTS / "fire.values.yaml"
    install(cluster, argparse.Namespace(chart=options.chart, values=[values]))
    if has_keda:
        install_keda(cluster)
    print_progress(f"everything is installed ({time.monotonic() - began:.0f} s)")
    chart = options.chart.resolve()
    run_parts(cluster, chart, [chart / "values-local.yaml", MANIFESTS / "values.yaml", values], options.parts)
    print_progress(f"all parts passed, in {(time.monotonic() - began) / 60:.0f} minutes")
    if options.keep:
        return
    if not was_up:
        down(cluster, options)
        return
    if has_keda:
        remove_keda(cluster)
    if releases:
        cluster.helm("rollback", RELEASE, str(releases[0]["revision"]), f"--namespace={NAMESPACE}", "--wait", "--timeout=5m")
    else:
        cluster.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
        cluster.kubectl("delete", "namespace", NAMESPACE)
    print_progress("the cluster is in its former state")


def claims_away_from(cluster, node):
    """Returns the names of Ovation's PersistentVolumeClaims whose volumes are not on the node."""
    claims = json.loads(cluster.kubectl(f"--namespace={NAMESPACE}", "get", "persistentvolumeclaims", "--output=json"))["items"]
    node_of = lambda claim: claim["metadata"].get("annotations", {}).get("volume.kubernetes.io/selected-node", node)
    return [claim["metadata"]["name"] for claim in claims if node_of(claim) != node]
