"""The nodes of the cluster and their processes."""

import contextlib
import json
from pathlib import Path

from processes import Daemon, Failure, run

from .authority import Authority
from .layout import LINK, NODE_IPS, PODS, SERVER, SERVICES, TOOLS
from .part import Part


class Containerd(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, f"containerd-{node.name}")
        self.socket = cluster.folder / f"{node.name}.sock"

    def prepare(self):
        (self.folder / "net.d").mkdir(parents=True, exist_ok=True)
        network = {
            "cniVersion": "1.0.0",
            "name": "ovation",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {"type": "host-local", "ranges": [[{"subnet": self.node.pods}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"},
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        (self.folder / "net.d/ovation.conflist").write_text(json.dumps(network))
        unused = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
        unused += ["io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
        # This process may not be allowed to lower its OOM score. Then containers may not lower theirs: restrict_oom_score_adj.
        (self.folder / "config.toml").write_text(
            f"""version = 2
root = "{self.folder}/root"
state = "/run/containerd"
oom_score = 0
disabled_plugins = {json.dumps(unused)}
[grpc]
address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/ovation-dev/pause:dev"
restrict_oom_score_adj = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{self.folder}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
        )

    def command(self):
        return ["containerd", f"--config={self.folder}/config.toml"]

    def ctr(self, *arguments):
        return run(["ctr", f"--address={self.socket}", "--namespace=k8s.io", *arguments])

    def is_ready(self):
        with contextlib.suppress(Failure):
            return bool(self.ctr("version"))
        return False

    def load(self, files):
        """Imports the image archives that have changed, and returns their number."""
        record = self.folder / "loaded"
        loaded = json.loads(record.read_text()) if record.exists() else {}
        count = 0
        for file in files:
            state = [file.stat().st_mtime_ns, file.stat().st_size]
            if loaded.get(str(file)) != state:
                self.ctr("images", "import", file)
                loaded[str(file)] = state
                record.write_text(json.dumps(loaded))
                count += 1
        return count


class Kubelet(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, f"kubelet-{node.name}")

    def prepare(self):
        self.folder.mkdir(exist_ok=True)
        keys, node = self.keys, self.node
        authority = Authority(keys, "ca", SERVER)
        authority.create_user(f"kubelet-{node.name}", f"/O=system:nodes/CN=system:node:{node.name}")
        authority.sign(f"{node.name}-server", f"/O=system:nodes/CN=system:node:{node.name}", "serverAuth", f"DNS:{node.name},IP:{node.ip},IP:127.0.0.1")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{node.cgroup}",
            "containerRuntimeEndpoint": f"unix://{node.containerd.socket}",
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{keys}/ca.crt"}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{keys}/{node.name}-server.crt",
            "tlsPrivateKeyFile": f"{keys}/{node.name}-server.key",
            "oomScoreAdj": 0,
            "clusterDomain": "cluster.local",
            "clusterDNS": ["10.96.0.10"],
            "resolvConf": "",
            "volumePluginDir": f"{self.folder}/plugins",
            "podLogsDir": f"{self.folder}/logs",
            "enforceNodeAllocatable": ["pods"],
            "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
            # Images come from files, so the kubelet must not delete unused ones.
            "imageGCHighThresholdPercent": 100,
        }
        (self.folder / "config.json").write_text(json.dumps(config, indent=2))

    def command(self):
        node = self.node
        config = [f"--config={self.folder}/config.json", f"--kubeconfig={self.keys}/kubelet-{node.name}.kubeconfig"]
        return [TOOLS / "kubernetes/kubelet", *config, f"--root-dir={self.folder}/root", f"--hostname-override={node.name}", f"--node-ip={node.ip}"]

    def is_ready(self):
        with contextlib.suppress(Failure):
            return self.cluster.kubectl("get", "node", self.node.name, '-ojsonpath={.status.conditions[?(@.type=="Ready")].status}') == "True"
        return False


class Proxy(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, f"kube-proxy-{node.name}")

    def prepare(self):
        self.folder.mkdir(exist_ok=True)
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": f"{self.keys}/proxy.kubeconfig"},
            "clusterCIDR": PODS,
            "hostnameOverride": self.node.name,
            "oomScoreAdj": 0,
            # These settings would apply to the whole machine, so kube-proxy must not change them.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        (self.folder / "config.json").write_text(json.dumps(config, indent=2))

    def command(self):
        return [TOOLS / "kubernetes/kube-proxy", f"--config={self.folder}/config.json"]


class Namespaces(Daemon):
    """The process, a `sleep`, that holds a node's network and mount namespaces."""

    def __init__(self, cluster, node):
        super().__init__(f"namespaces-{node.name}", cluster.folder)
        self.node = node

    def start(self):
        if self.pid():
            return
        self.launch(["unshare", "--mount", "--net", "--propagation", "slave", "sleep", "infinity"])
        # When `unshare` runs `sleep`, it has created the namespaces.
        self.await_ready(lambda: Path(f"/proc/{self.pid()}/comm").read_text() == "sleep\n", 5)


# The kubelet sets these kernel parameters, which apply to the whole machine. So files of the node are mounted over them: the kubelet writes to
# these files instead.
KERNEL = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1, "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}

SET_UP = """\
address=$1 gateway=$2 state=$3
mount --make-rshared /
for folder in /run /var/log /var/lib; do mount -t tmpfs -o mode=755 ovation $folder; done
mount --bind $state/hosts /etc/hosts
cd $state/kernel
for file in $(find -type f); do mount --bind $file /proc/sys/$file; done
ip link set lo up
ip addr add $address/30 dev eth0
ip link set eth0 up
ip route add default via $gateway
sysctl -qw net.ipv4.ip_forward=1
# This parameter exists only if the module br_netfilter is loaded.
sysctl -qw net.bridge.bridge-nf-call-iptables=1 || true
"""


class Node:
    def __init__(self, cluster, index):
        self.cluster, self.index = cluster, index
        self.name = f"n{index + 1}"
        self.ip, self.gateway = NODE_IPS[index], ("10.90.0.1", "10.90.0.5")[index]
        self.pods = f"10.244.{index}.0/24"
        self.cgroup = f"ovation-{self.name}"
        self.namespaces = Namespaces(cluster, self)
        self.containerd = Containerd(cluster, self)
        self.kubelet = Kubelet(cluster, self)
        self.parts = [self.containerd, self.kubelet, Proxy(cluster, self)]

    def inside(self, *command):
        """Returns the command with a prefix that runs it in the node's namespaces. The prefix is not `ip netns exec`, because that would hide the
        cgroups."""
        return ["nsenter", f"--target={self.namespaces.pid()}", "--mount", "--net", "--", *(str(part) for part in command)]

    def set_up(self):
        """Creates the node's namespaces and cgroups, and the network link to the machine or to the first node."""
        if self.namespaces.pid():
            return
        folder = self.cluster.folder
        for name, value in KERNEL.items():
            file = folder / "kernel" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        for hierarchy in hierarchies():
            (hierarchy / self.cgroup).mkdir(exist_ok=True)
            # A new cpuset has no processors and accepts no process.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / self.cgroup / name).exists() and hierarchy.name == "cpuset":
                    (hierarchy / self.cgroup / name).write_text((hierarchy / name).read_text())
        self.namespaces.start()
        pid = self.namespaces.pid()
        outer = [] if self.index == 0 else self.cluster.nodes[0].inside()
        link = LINK if self.index == 0 else self.name
        run([*outer, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid], fails=f"the network link to {self.name} can't be created; `dev/cluster down` removes the rest of an earlier cluster")
        run([*outer, "ip", "addr", "add", f"{self.gateway}/30", "dev", link])
        run([*outer, "ip", "link", "set", link, "up"])
        for network in (PODS, SERVICES, f"{NODE_IPS[1]}/30") if self.index == 0 else (self.pods,):
            network = network.replace(".6/30", ".4/30")
            run([*outer, "ip", "route", "add", network, "via", self.ip])
        run(self.inside("bash", "-ec", SET_UP, "dev/cluster", self.ip, self.gateway, folder), fails=f"{self.name} could not be set up")


def hierarchies():
    """Returns the roots of the cgroup hierarchies. With cgroups of version 1 there are several, with version 2 there is one."""
    top = Path("/sys/fs/cgroup")
    return [top] if (top / "cgroup.controllers").exists() else sorted({path.resolve() for path in top.iterdir() if (path / "cgroup.procs").exists()})
