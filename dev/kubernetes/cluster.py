"""The cluster of one folder: its processes, its keys, and access with kubectl and Helm."""

import contextlib
import fcntl
import json
import os
import shutil
import string
import subprocess
import sys
from pathlib import Path

from processes import ROOT, Failure, run

from .authority import Authority
from .control_plane import ApiServer, Controllers, Etcd, Scheduler
from .layout import HELM, NODE_IPS, SERVER, TOOLS
from .node import Node
from .ovation import NAMESPACE, RELEASE


class Cluster:
    """The cluster whose state is in one folder. A file in the folder has the number of nodes, so later commands need no options."""

    def __init__(self):
        self.folder = Path(os.environ.get("OVATION_CLUSTER_DIR") or ROOT / "target/cluster").resolve()
        if any(self.folder.is_relative_to(hidden) for hidden in ("/run", "/var/lib", "/var/log", "/sys", "/proc", "/dev")):
            raise Failure(f"nodes mount their own /run, /var/lib and /var/log over the machine's, so {self.folder} can't be the cluster's folder")
        if len(str(self.folder)) > 80:
            raise Failure(f"{self.folder} is too long: the cluster creates sockets in it, whose paths may have at most 107 characters; set OVATION_CLUSTER_DIR")
        self.settings = self.folder / "settings"
        self.config = self.folder / "keys/admin.kubeconfig"
        count = 1
        with contextlib.suppress(OSError, ValueError):
            count = int(self.settings.read_text().partition("=")[2])
        self.set_nodes(count)

    def set_nodes(self, count):
        self.nodes = [Node(self, index) for index in range(count)]
        first = self.nodes[0]
        self.control = [Etcd(self, first), ApiServer(self, first), Controllers(self, first), Scheduler(self, first)]

    def parts(self):
        return [*self.control, *(part for node in self.nodes for part in node.parts)]

    @contextlib.contextmanager
    def locked(self):
        """Holds the cluster's lock, so that only one command at a time changes the cluster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def require(self):
        """Raises Failure unless all processes of the cluster run."""
        if not all(part.pid() for part in self.parts()):
            raise Failure("the cluster does not run, or not all of its processes do: `dev/cluster up` starts them")

    def kubectl(self, *arguments, **options):
        return run(self.kubectl_command(*arguments), **options)

    def kubectl_command(self, *arguments):
        return [str(TOOLS / "kubernetes/kubectl"), f"--kubeconfig={self.config}", *arguments]

    def helm(self, *arguments, **options):
        return run([HELM, f"--kubeconfig={self.config}", *arguments], **options)

    def apply(self, path, **values):
        """Applies one of our manifests, in which `$NAME` stands for a value."""
        text = string.Template(path.read_text()).substitute(values)
        self.kubectl("apply", "--server-side", "--filename=-", input=text, fails=f"{path.relative_to(ROOT)} was refused")

    def apply_patched(self, objects, kustomization, **values):
        """Applies the manifests of a tool, with the changes in one of our kustomizations."""
        folder = self.folder / kustomization.name
        shutil.copytree(objects, folder, dirs_exist_ok=True)
        (folder / "kustomization.yaml").write_text(string.Template(kustomization.read_text()).substitute(values))
        self.kubectl("apply", "--server-side", f"--kustomize={folder}", fails=f"{kustomization.relative_to(ROOT)} was refused")

    def await_deployment(self, namespace, name, seconds=120):
        self.kubectl("--namespace", namespace, "rollout", "status", f"deployment/{name}", f"--timeout={seconds}s", fails=f"{name} isn't ready; see: dev/cluster kubectl -n {namespace} describe pods")

    def create_keys(self):
        """Creates all keys, certificates and kubeconfig files, unless they exist."""
        keys = self.folder / "keys"
        if self.config.exists():
            return
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir(mode=0o700)
        authority, front = Authority(keys, "ca", SERVER), Authority(keys, "front-proxy-ca")
        authority.create()
        front.create()
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        names = ",".join([f"DNS:{name}" for name in names] + ["IP:127.0.0.1", "IP:10.96.0.1", f"IP:{NODE_IPS[0]}"])
        authority.sign("apiserver", "/CN=kube-apiserver", "serverAuth", names)
        authority.sign("apiserver-to-kubelet", "/CN=apiserver-to-kubelet", "clientAuth")
        front.sign("front-proxy", "/CN=front-proxy", "clientAuth")
        run(["openssl", "genrsa", "-out", keys / "accounts.key", "2048"])
        run(["openssl", "rsa", "-in", keys / "accounts.key", "-pubout", "-out", keys / "accounts.pub"])
        authority.create_user("controllers", "/CN=system:kube-controller-manager")
        authority.create_user("scheduler", "/CN=system:kube-scheduler")
        authority.create_user("proxy", "/CN=system:kube-proxy")
        authority.create_user("admin", "/O=system:masters/CN=admin")

    def load(self, files):
        """Imports image archives into all nodes, and returns how many were new on at least one node."""
        return max(node.containerd.load(files) for node in self.nodes)

    def entry(self):
        """Returns the release's values, and the node port of its Gateway."""
        values = json.loads(self.helm("get", "values", RELEASE, f"--namespace={NAMESPACE}", "--all", "--output=json", fails="Ovation is not installed: run `dev/cluster install`"))
        selector = f"--selector=gateway.envoyproxy.io/owning-gateway-namespace={NAMESPACE}"
        services = json.loads(self.kubectl("--namespace=envoy-gateway-system", "get", "services", selector, "--output=json"))["items"]
        if not services:
            raise Failure(f"the Gateway of {NAMESPACE} has no Envoy service; see: dev/cluster kubectl -n {NAMESPACE} describe gateways")
        return values, services[0]["spec"]["ports"][0]["nodePort"]

    def name_hosts(self, names):
        """Writes the hosts file of the nodes, which resolves the host names of the entry."""
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{NODE_IPS[0]} {' '.join(names)}\n")


def prepare(command, *arguments):
    """Runs a command of this repository that builds prerequisites. Its output goes to stderr."""
    if subprocess.run([ROOT / command, *arguments], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise Failure(f"`{' '.join([command, *arguments])}` failed")
