"""The addresses of the cluster, and the folders of this checkout."""

from pathlib import Path

from processes import ROOT

LINK = "ovation-k8s"  # The interface on the machine's side.
NODE_IPS = ["10.90.0.2", "10.90.0.6"]
SERVER = f"https://{NODE_IPS[0]}:6443"
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/16"

FOLDER = Path(__file__).resolve().parent
MANIFESTS = FOLDER / "manifests"

# The outputs of dev/install and dev/images.
TOOLS = ROOT / "target/tools/cluster"
HELM = ROOT / "target/tools/bin/helm"
IMAGES = ROOT / "target/images"
