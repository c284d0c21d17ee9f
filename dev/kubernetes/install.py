"""`dev/cluster install` and `dev/cluster load`: install Envoy Gateway and the chart, and load images. Also installs KEDA, for one part of the
test."""

import json
import shutil
import string
import time

from processes import Failure, print_progress

from .cluster import prepare
from .images import GATEWAY_IMAGES, KEDA_IMAGES, OUR_IMAGES, envoy_version, build_image
from .layout import HELM, IMAGES, MANIFESTS, NODE_IPS, TOOLS
from .ovation import NAMESPACE, RELEASE


def install(cluster, options):
    cluster.require()
    chart = options.chart.resolve()
    if not (chart / "Chart.yaml").exists():
        raise Failure(f"{chart} has no chart")
    if not HELM.exists():
        prepare("dev/install", "charts")
    if not all((IMAGES / f"{name}.tar").exists() for name in OUR_IMAGES):
        prepare("dev/images", "build")
    began = time.monotonic()

    def lap(what):
        print_progress(f"{what} ({time.monotonic() - began:.0f} s)")

    cluster.load([build_image(cluster, name) for name in GATEWAY_IMAGES])
    count = cluster.load(sorted(IMAGES.glob("*.tar")))
    lap(f"{count} new images of ours were imported into the nodes")
    install_gateway(cluster)
    lap("Envoy Gateway is ready")

    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}
    cluster.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(namespace))
    was_installed = json.loads(cluster.helm("list", f"--namespace={NAMESPACE}", "--output=json")) != []
    values = [chart / "values-local.yaml", MANIFESTS / "values.yaml", *options.values]
    flags = [f"--namespace={NAMESPACE}", *(f"--values={file}" for file in values)]
    try:
        cluster.helm("upgrade", "--install", RELEASE, chart, *flags, "--wait", "--timeout=6m", fails="the chart could not be installed")
    except Failure as failure:
        pods = cluster.kubectl(f"--namespace={NAMESPACE}", "get", "pods", "--output=wide")
        events = cluster.kubectl(f"--namespace={NAMESPACE}", "get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp").splitlines()
        raise Failure("\n".join([str(failure), pods, *events[-15:]])) from None
    if count and was_installed:
        # Running pods keep their old images, even if the tag is the same.
        cluster.kubectl(f"--namespace={NAMESPACE}", "rollout", "restart", "deployments,statefulsets")
        for kind in "deployments", "statefulsets":
            cluster.kubectl(f"--namespace={NAMESPACE}", "rollout", "status", kind, "--timeout=5m", fails=f"some {kind} are not ready with the new images")
    lap("the chart is installed")
    print(cluster.helm("test", RELEASE, f"--namespace={NAMESPACE}", "--logs", "--timeout=3m", fails="the chart's tests failed"))
    lap("the chart's tests passed")

    values, port = cluster.entry()
    hosts = values["entry"]["hosts"]
    cluster.name_hosts(hosts.values())
    resolve = lambda name: f"--resolve {hosts[name]}:{port}:{NODE_IPS[0]}"
    print(f"""
The entry listens on port {port} of {NODE_IPS[0]}, for these hosts:
  votes    curl {resolve("votes")} http://{hosts["votes"]}:{port}/v1/votes --json '{{"name": "Pink Floyd"}}'
  results  curl {resolve("results")} http://{hosts["results"]}:{port}/v1/contests/bands/tally
  gRPC     {hosts["grpc"]}:{port}
For a browser, add the line `{NODE_IPS[0]} {" ".join(hosts.values())}` to /etc/hosts and open http://{hosts["results"]}:{port}/.
For kubectl: export KUBECONFIG={cluster.config}""")


def install_gateway(cluster):
    """Installs Envoy Gateway with its own chart, which includes the CRDs of the Gateway API, and our GatewayClass."""
    releases = json.loads(cluster.helm("list", "--namespace=envoy-gateway-system", "--output=json"))
    if not any(release["name"] == "eg" and release["status"] == "deployed" for release in releases):
        chart = cluster.folder / "gateway-helm"
        shutil.copytree(TOOLS / "envoy-gateway/gateway-helm", chart, dirs_exist_ok=True)
        # The chart's values are a template that its release process fills in. Our values file sets the images.
        text = (chart / "values.tmpl.yaml").read_text()
        (chart / "values.yaml").write_text(string.Template(text).safe_substitute(GatewayImage="unset", GatewayImagePullPolicy="IfNotPresent"))
        flags = ["--namespace=envoy-gateway-system", "--create-namespace", f"--values={MANIFESTS / 'envoy-gateway.values.yaml'}"]
        cluster.helm("upgrade", "--install", "eg", chart, *flags, "--wait", "--timeout=3m", fails="Envoy Gateway could not be installed")
    cluster.apply(MANIFESTS / "gateway.yaml", envoy=envoy_version())


def install_keda(cluster):
    """Installs KEDA with its CRDs, and waits until it serves the external metrics API for autoscalers."""
    cluster.load([build_image(cluster, name) for name in KEDA_IMAGES])
    cluster.apply_patched(TOOLS / "keda/config", MANIFESTS / "keda.kustomization.yaml")
    for name in "keda-operator", "keda-metrics-apiserver":
        cluster.await_deployment("keda", name)
    metrics = "apiservice/v1beta1.external.metrics.k8s.io"
    cluster.kubectl("wait", "--for=condition=Available", metrics, "--timeout=60s", fails=f"the API of KEDA's metrics is not available; see: dev/cluster kubectl describe {metrics}")


def remove_keda(cluster):
    cluster.kubectl("delete", f"--kustomize={cluster.folder / 'keda.kustomization.yaml'}", "--ignore-not-found", "--timeout=120s", fails="KEDA could not be removed")


def load(cluster, options):
    cluster.require()
    files = [file.resolve() for file in options.files] or sorted(IMAGES.glob("*.tar"))
    if not files:
        raise Failure(f"there are no images in {IMAGES}: run dev/images build")
    print_progress(f"{cluster.load(files)} of {len(files)} images were new and are imported. Running pods keep their old images until they are replaced")
