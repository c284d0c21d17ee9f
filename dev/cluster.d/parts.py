"""The nodes of the cluster, and the processes on them."""

import contextlib
import json
from pathlib import Path

from authority import Authority
from processes import Failure, Process, run

LINK = "ovation-k8s"  # The machine's interface.
NODE_IPS = ["10.90.0.2", "10.90.0.6"]
SERVER = f"https://{NODE_IPS[0]}:6443"
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/16"

TOOLS = Path(__file__).resolve().parent.parent.parent / "target/tools/cluster"


class Part(Process):
    """A process of the cluster: how it is run and asked whether it is there."""

    def __init__(self, cluster, node, name):
        super().__init__(name, cluster.folder)
        self.cluster, self.node = cluster, node
        self.folder = cluster.folder / name
        self.keys = cluster.folder / "keys"

    def prepare(self):
        """Makes what it needs before its start."""

    def command(self):
        raise NotImplementedError

    def is_ready(self):
        return True

    def start(self):
        if not self.pid():
            self.prepare()
            self.launch(self.node.inside(*self.command()))
        self.await_ready(self.is_ready, 90)


class Etcd(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, "etcd")

    def command(self):
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        clients = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        peers = [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=only={peer}"]
        # Its data are thrown away: they need not survive the machine.
        return [TOOLS / "etcd/etcd", "--name=only", f"--data-dir={self.folder}", *clients, *peers, "--unsafe-no-fsync", "--log-level=warn"]


class ApiServer(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, "kube-apiserver")

    def command(self):
        keys = self.keys
        return [
            TOOLS / "kubernetes/kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={self.node.ip}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--enable-aggregator-routing=true",
            f"--client-ca-file={keys}/ca.crt",
            f"--tls-cert-file={keys}/apiserver.crt",
            f"--tls-private-key-file={keys}/apiserver.key",
            f"--kubelet-certificate-authority={keys}/ca.crt",
            f"--kubelet-client-certificate={keys}/apiserver-to-kubelet.crt",
            f"--kubelet-client-key={keys}/apiserver-to-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={keys}/accounts.pub",
            f"--service-account-signing-key-file={keys}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--requestheader-client-ca-file={keys}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={keys}/front-proxy.crt",
            f"--proxy-client-key-file={keys}/front-proxy.key",
        ]

    def is_ready(self):
        with contextlib.suppress(Failure):
            return self.cluster.kubectl("get", "--raw=/readyz") == "ok"
        return False


class Controllers(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, "kube-controller-manager")

    def command(self):
        keys = self.keys
        config = f"{keys}/controllers.kubeconfig"
        # Quick enough for tests. An autoscaler's own window stands over the third.
        scaling = {"sync-period": "5s", "cpu-initialization-period": "10s", "downscale-stabilization": "15s", "initial-readiness-delay": "5s"}
        return [
            TOOLS / "kubernetes/kube-controller-manager",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--service-account-private-key-file={keys}/accounts.key",
            f"--root-ca-file={keys}/ca.crt",
            "--use-service-account-credentials=true",
            f"--cluster-signing-cert-file={keys}/ca.crt",
            f"--cluster-signing-key-file={keys}/ca.key",
            f"--client-ca-file={keys}/ca.crt",
            f"--requestheader-client-ca-file={keys}/front-proxy-ca.crt",
            *(f"--horizontal-pod-autoscaler-{name}={value}" for name, value in scaling.items()),
        ]


class Scheduler(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, "kube-scheduler")

    def command(self):
        config = f"{self.keys}/scheduler.kubeconfig"
        configs = [f"--{kind}kubeconfig={config}" for kind in ("", "authentication-", "authorization-")]
        return [TOOLS / "kubernetes/kube-scheduler", *configs, "--leader-elect=false", "--bind-address=127.0.0.1"]


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
        # Where this process may not lower the score by which the kernel chooses whom to kill, neither may containers.
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
        """Imports those of the files that changed, and says how many."""
        known = self.folder / "loaded"
        loaded = json.loads(known.read_text()) if known.exists() else {}
        count = 0
        for file in files:
            state = [file.stat().st_mtime_ns, file.stat().st_size]
            if loaded.get(str(file)) != state:
                self.ctr("images", "import", file)
                loaded[str(file)] = state
                known.write_text(json.dumps(loaded))
                count += 1
        return count


class Kubelet(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, f"kubelet-{node.name}")

    def prepare(self):
        self.folder.mkdir(exist_ok=True)
        keys, node = self.keys, self.node
        authority = Authority(keys, "ca", SERVER)
        authority.user(f"kubelet-{node.name}", f"/O=system:nodes/CN=system:node:{node.name}")
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
            # Images come from files, so none that is unused for now may be deleted.
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
            # These would be settings of the whole machine.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        (self.folder / "config.json").write_text(json.dumps(config, indent=2))

    def command(self):
        return [TOOLS / "kubernetes/kube-proxy", f"--config={self.folder}/config.json"]


class Namespaces(Process):
    """The sleeper whose network and mounts are a node's."""

    def __init__(self, cluster, node):
        super().__init__(f"namespaces-{node.name}", cluster.folder)
        self.node = node

    def start(self):
        if self.pid():
            return
        self.launch(["unshare", "--mount", "--net", "--propagation", "slave", "sleep", "infinity"])
        # Not before it has become the sleeper is it in namespaces of its own.
        self.await_ready(lambda: Path(f"/proc/{self.pid()}/comm").read_text() == "sleep\n", 5)


# The kubelet sets these for the whole machine: a node gets files of its own in their place.
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
# Only where bridges ask the tables at all.
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
        """The command in the node's namespaces. `ip netns exec` would hide the cgroups."""
        return ["nsenter", f"--target={self.namespaces.pid()}", "--mount", "--net", "--", *(str(part) for part in command)]

    def set_up(self):
        """Namespaces, and the way to them from the machine or from the first node."""
        if self.namespaces.pid():
            return
        folder = self.cluster.folder
        for name, value in KERNEL.items():
            file = folder / "kernel" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        for hierarchy in hierarchies():
            (hierarchy / self.cgroup).mkdir(exist_ok=True)
            # A new set of processors is empty, and takes no process.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / self.cgroup / name).exists() and hierarchy.name == "cpuset":
                    (hierarchy / self.cgroup / name).write_text((hierarchy / name).read_text())
        self.namespaces.start()
        pid = self.namespaces.pid()
        outer = [] if self.index == 0 else self.cluster.nodes[0].inside()
        link = LINK if self.index == 0 else self.name
        run([*outer, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid], fails=f"the way to {self.name} can't be made; `dev/cluster down` clears what an earlier cluster left")
        run([*outer, "ip", "addr", "add", f"{self.gateway}/30", "dev", link])
        run([*outer, "ip", "link", "set", link, "up"])
        for network in (PODS, SERVICES, f"{NODE_IPS[1]}/30") if self.index == 0 else (self.pods,):
            network = network.replace(".6/30", ".4/30")
            run([*outer, "ip", "route", "add", network, "via", self.ip])
        run(self.inside("bash", "-ec", SET_UP, "dev/cluster", self.ip, self.gateway, folder), fails=f"{self.name} couldn't be set up")


def hierarchies():
    """Where cgroups are made: of version 1 several, of version 2 one."""
    top = Path("/sys/fs/cgroup")
    return [top] if (top / "cgroup.controllers").exists() else sorted({path.resolve() for path in top.iterdir() if (path / "cgroup.procs").exists()})
