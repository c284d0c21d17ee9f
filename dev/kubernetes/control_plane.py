"""The control plane: etcd, the API server, the controllers and the scheduler."""

import contextlib

from processes import Failure

from .layout import SERVICES, TOOLS
from .part import Part


class Etcd(Part):
    def __init__(self, cluster, node):
        super().__init__(cluster, node, "etcd")

    def command(self):
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        clients = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        peers = [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=only={peer}"]
        # The cluster is temporary, so its data need not survive a power failure.
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
        # The intervals are short, for tests. The stabilization window of an autoscaler overrides `downscale-stabilization`.
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
