"""The ways to set the chart's values that helm/check tries, and what the chart makes of them."""

import concurrent.futures
import copy
import functools
import itertools
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/ovation"
TOOLS = ROOT / "target/tools/bin"
NAMESPACE = "ovation"

GATEWAY_API = "gateway.networking.k8s.io/v1/GRPCRoute"
ENVOY_GATEWAY = "gateway.envoyproxy.io/v1alpha1/BackendTrafficPolicy"

# Where stores elsewhere are, and who is told of alerts: network.py has somebody there.
STORES = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
RECEIVER = [{"ipBlock": {"cidr": "203.0.113.0/24"}}]


# What has a volume by itself.
STORED = ("kafka", "redis", "mongodb", "prometheus", "alertmanager")


def elsewhere(part, store, url, **more):
    return {f"{part}.enabled": False, f"external.{store}.url": url} | {f"external.{store}.{key}": value for key, value in more.items()}


def elsewhere_by_secret(part, store, **more):
    return elsewhere(part, store, "", existingSecret=f"{store}-url", key="address", caSecret=f"{store}-authorities", to=STORES, **more)


# Each option and its choices; the first is what values.yaml says. Every choice is tried alone, and with every choice of every other
# option.
OPTIONS = {
    "entry": {
        "ingress": {},
        "ingress with TLS": {
            "entry.ingress.className": "haproxy", "entry.ingress.annotations": {"example.org/a": "b"},
            "entry.ingress.grpcAnnotations": {"haproxy.org/server-proto": "h2"},
            "entry.ingress.tls.secretName": "certificate", "entry.ingress.tls.grpcSecretName": "grpc-certificate",
        },
        "gateway": {"entry.kind": "gateway"},
        "gateway with TLS": {
            "entry.kind": "gateway", "entry.gateway.tls.secretName": "certificate", "entry.gateway.tls.port": 8443,
            "entry.gateway.listenerPort": 8080, "entry.gateway.name": "front", "entry.gateway.className": "other",
        },
        "gateway that is there": {
            "entry.kind": "gateway", "entry.gateway.create": False, "entry.gateway.name": "shared", "entry.gateway.namespace": "infra",
            "entry.gateway.sectionName": "https",
        },
        "gateway that does not split": {"entry.kind": "gateway", "entry.gateway.weights.grpc": 0},
        "gateway, all through gRPC": {"entry.kind": "gateway", "entry.gateway.weights.rest": 0},
        "no entry": {"entry.kind": "none"},
    },
    "Envoy Gateway": {"there": {}, "not there": {"api-versions": [GATEWAY_API]}},
    "policies": {
        "on": {},
        "more": {
            "networkPolicy.ingress": {"grafana": [{
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "office"}}}],
                "ports": [{"port": 3000, "protocol": "TCP"}],
            }]},
            "networkPolicy.egress": {"alertmanager": [{"to": RECEIVER, "ports": [{"port": 443, "protocol": "TCP"}]}]},
        },
        "off": {"networkPolicy.enabled": False},
    },
    "kafka": {
        "one": {},
        "three": {"kafka.replicas": 3},
        "elsewhere": elsewhere("kafka", "queue", "kafka://kafka.example.org:9092/votes"),
        "elsewhere by Secret": elsewhere_by_secret("kafka", "queue", ports=[9093, 9094]),
    },
    "redis": {
        "here": {},
        "Valkey": {
            "redis.image.repository": "valkey/valkey", "redis.image.tag": "8.1-bookworm", "redis.server": "valkey-server",
            "redis.extraArgs": ["--io-threads", "2"],
        },
        "elsewhere": elsewhere("redis", "tally", "redis://redis.example.org:6379"),
        "elsewhere by Secret": elsewhere_by_secret("redis", "tally", ports=[6380]),
    },
    "mongodb": {
        "here": {},
        "with arguments": {"mongodb.extraArgs": ["--slowms", "500"], "mongodb.cacheSizeGB": 0.25},
        "elsewhere": elsewhere("mongodb", "book", "mongodb://mongodb.example.org/ovation"),
        "elsewhere by Secret": elsewhere_by_secret("mongodb", "book", ports=[27018]),
    },
    "object store": {
        "none": {},
        "S3 with credentials": {
            "external.objects.url": "s3://ovation/objects", "external.objects.credentialsSecret": "objects-credentials",
            "external.objects.to": STORES, "external.objects.ports": [9000],
        },
        "Google's with an account": {
            "external.objects.url": "gs://ovation/objects", "results.serviceAccountAnnotations": {"iam.gke.io/gcp-service-account": "a@b"},
        },
    },
    "exporters": {
        "off": {},
        "on": {"kafka.jmxExporter.enabled": True, "redis.exporter.enabled": True, "mongodb.exporter.enabled": True},
    },
    "volumes": {
        "kept": {},
        "of a class": {"storageClassName": "fast", "mongodb.persistence.storageClassName": "faster", "grafana.persistence.enabled": True},
        "none": {f"{part}.persistence.enabled": False for part in STORED},
    },
    "scaling": {
        "HPA": {},
        "KEDA": {"consumer.hpa.enabled": False, "consumer.keda.enabled": True},
        "KEDA with brokers of its own": {
            "consumer.hpa.enabled": False, "consumer.keda.enabled": True, "consumer.keda.brokers": "kafka.example.org:9092",
            "consumer.keda.authentication": "kafka", "consumer.keda.topic": "ballots",
        },
        "none": {"consumer.hpa.enabled": False},
    },
    "prometheus": {
        "on": {},
        "with more": {
            "prometheus.rules": {"mine.yml": "groups: []"}, "prometheus.scrapeConfigs": [{"job_name": "mine"}],
            "prometheus.alertmanagers": ["alertmanager.example.org:9093"], "prometheus.retentionSize": "",
        },
        "off": {"prometheus.enabled": False, "grafana.prometheusUrl": "http://prometheus.monitoring:9090"},
    },
    "alertmanager": {
        "on": {},
        "with receivers": {
            "alertmanager.receivers": [{"name": "on-call", "webhook_configs": [{"url": "https://203.0.113.5/"}]}],
            "alertmanager.secretName": "alerts",
        },
        "off": {"alertmanager.enabled": False},
    },
    "grafana": {
        "on": {},
        "load balancer": {
            "grafana.service.type": "LoadBalancer", "grafana.service.port": 5000, "grafana.service.sourceRanges": ["203.0.113.0/24"],
            "grafana.service.annotations": {"example.org/a": "b"}, "grafana.rootUrl": "https://grafana.example.org/",
        },
        "node port": {
            "grafana.service.type": "NodePort", "grafana.service.nodePort": 30000, "grafana.env": {"GF_AUTH_BASIC_ENABLED": False},
        },
        "off": {"grafana.enabled": False},
        "off, dashboards for another": {"grafana.enabled": False, "grafana.dashboardLabels": {"grafana_dashboard": "1"}},
    },
    "PodMonitor": {"off": {}, "on": {"podMonitor.enabled": True, "podMonitor.labels": {"release": "prometheus"}}},
    "Secret": {"made": {}, "there": {"secret.existing": "passwords"}},
    "images": {
        "as written": {},
        "from a mirror": {"global.imageRegistry": "mirror.example.org/hub"},
        "ours from a registry": {
            "image.registry": "registry.example.org/ours", "image.tag": "1.2.3", "image.pullPolicy": "Always",
            "imagePullSecrets": [{"name": "registry"}],
        },
        "each from its own": {
            **{f"{part}.image.registry": "third.example.org" for part in (*STORED, "grafana")},
            **{f"{part}.exporter.image.registry": "fourth.example.org" for part in ("redis", "mongodb")},
        },
    },
    "where pods go": {
        "anywhere": {},
        "somewhere": {
            "nodeSelector": {"pool": "votes"}, "tolerations": [{"key": "votes", "operator": "Exists"}], "priorityClassName": "high",
            "affinity": {"nodeAffinity": {}}, "kafka.nodeSelector": {"pool": "stores"},
        },
    },
    "configuration": {
        "none": {},
        "some": {
            "config": {"log_format": "json", "trusted_proxies": ["10.0.0.0/8"]}, "env": [{"name": "OVATION_LOG", "value": "debug"}],
            "contests": {"bands": {"candidates": ["Pink Floyd", "Genesis"], "votes_per_voter": "one"}}, "drainSeconds": 15,
        },
    },
    "name": {"the release's": {}, "another": {"fullnameOverride": "votes"}},
}

# What can't be together, with the sentence in which the chart says so.
REFUSED = (
    ({"consumer.keda.enabled": True}, "consumer.hpa.enabled and consumer.keda.enabled are both true"),
    ({"consumer.minReplicas": 6}, "consumer.minReplicas is more than consumer.maxReplicas"),
    (OPTIONS["scaling"]["KEDA"] | OPTIONS["kafka"]["elsewhere"], "name its brokers for KEDA in consumer.keda.brokers"),
    ({"entry.kind": "gateway", "api-versions": []}, "install the Gateway API and a controller that serves it"),
    ({"entry.kind": "gateway", "entry.gateway.create": False}, "name the Gateway that is there in entry.gateway.name"),
    ({"entry.kind": "gateway", "entry.gateway.weights": {"rest": 0, "grpc": 0}}, "no vote would come in"),
    ({"external.objects.url": "file:///objects"}, "/external/objects/url"),
    ({"external.objects.credentialsSecret": "a"}, "external.objects.credentialsSecret is of no object store"),
    ({"entry.kind": "door"}, "/entry/kind"),
    ({"kafka.replicas": 2}, "/kafka/replicas"),
    ({"rest-producer.replicas": 3}, "rest-producer"),
    *(
        refusal
        for part, store, url in (
            ("kafka", "queue", "kafka://a/votes"), ("redis", "tally", "redis://a"), ("mongodb", "book", "mongodb://a/b"),
        )
        for refusal in (
            ({f"{part}.enabled": False}, f"there is no {store}: set {part}.enabled"),
            ({f"external.{store}.url": url}, f"{part}.enabled is true, and external.{store} names a store elsewhere"),
            ({f"{part}.enabled": False, f"external.{store}.url": "ftp://a"}, f"/external/{store}/url"),
            (
                {f"{part}.enabled": False, f"external.{store}.url": url, f"external.{store}.existingSecret": "b"},
                f"external.{store} has a url and an existingSecret",
            ),
        )
    ),
)

# Maps in the values that take any key: Helm shares `global` among charts, Alertmanager and nodes have more than we know of.
ANY_KEY = {"global", "alertmanager.global"}


def misspelled():
    """A value that there isn't, in every map of the values: each has to be refused."""

    def maps(values, within=""):
        for key, value in values.items():
            if isinstance(value, dict) and value and key not in ("requests", "limits") and within + key not in ANY_KEY:
                yield within + key
                yield from maps(value, f"{within}{key}.")

    for name in maps(load(CHART / "values.yaml")):
        yield {f"{name}.misspelled": 1}, "additional properties 'misspelled' not allowed"


@dataclass
class Row:
    """One way to set values, and once it is rendered, its objects."""

    name: str
    chosen: dict = field(default_factory=dict)
    files: tuple = ()
    objects: list = field(default_factory=list)
    # As the API server would be sent them.
    documents: list = field(default_factory=list)
    values: dict = field(default_factory=dict)


def nested(chosen):
    """Values by their dotted names, as a values file would have them."""
    values = {}
    for name, value in chosen.items():
        *path, last = name.split(".")
        within = values
        for key in path:
            within = within.setdefault(key, {})
        within[last] = value
    return values


def merged(under, over):
    """Values over values, as Helm lays them."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return copy.deepcopy(over)
    return {key: merged(under.get(key), over[key]) if key in over else copy.deepcopy(under[key]) for key in {**under, **over}}


def load(path):
    return yaml.load(Path(path).read_text(), yaml.CSafeLoader)


def goes_together(choices):
    return not (choices.get("scaling") == "KEDA" and choices.get("kafka", "").startswith("elsewhere"))


def pairs():
    """Choices of all options, so that any two of different options are together in one of them. Each round takes what brings the
    most new pairs; always the same, since nothing is drawn."""
    options = list(OPTIONS)
    left = {
        ((one, this), (other, that))
        for one, other in itertools.combinations(options, 2)
        for this in OPTIONS[one] for that in OPTIONS[other]
        if goes_together({one: this, other: that})
    }
    order = {pair: number for number, pair in enumerate((option, choice) for option in options for choice in OPTIONS[option])}
    while left:
        choices = dict(min(left, key=lambda pair: (order[pair[0]], order[pair[1]])))
        for option in options:
            if option in choices:
                continue

            def gain(choice):
                return sum(
                    ((option, choice), pair) in left or (pair, (option, choice)) in left
                    for pair in choices.items()
                )

            choices[option] = max((choice for choice in OPTIONS[option] if goes_together(choices | {option: choice})), key=gain)
        left -= set(itertools.combinations(((option, choices[option]) for option in options), 2))
        yield choices


def values_files():
    """The files of values that we hand out, each as it is given to Helm."""
    local = CHART / "values-local.yaml"
    found = {path.name: (path,) for path in sorted(CHART.glob("values-*.yaml"))}
    cluster = ROOT / "dev/cluster.d/values.yaml"
    return found | ({"dev/cluster.d/values.yaml": (local, cluster)} if cluster.exists() else {})


def rows():
    yield Row("values.yaml")
    for name, files in values_files().items():
        yield Row(name, files=files)
    for option, choices in OPTIONS.items():
        for choice, chosen in list(choices.items())[1:]:
            yield Row(f"{option}: {choice}", chosen)
    for number, choices in enumerate(pairs(), 1):
        chosen = {}
        for option, choice in choices.items():
            chosen |= OPTIONS[option][choice]
        name = ", ".join(f"{option} {choice}" for option, choice in choices.items() if OPTIONS[option][choice])
        yield Row(f"pairs {number}: {name}", chosen)


def template(chosen=None, files=(), more=()):
    """What `helm template` prints, of chosen values by their dotted names."""
    chosen = dict(chosen or {})
    versions = chosen.pop("api-versions", [GATEWAY_API, ENVOY_GATEWAY])
    command = [TOOLS / "helm", "template", "ovation", CHART, "--namespace", NAMESPACE, *more]
    for version in versions:
        command += ["--api-versions", version]
    for path in (*files, "-"):
        command += ["--values", path]
    # The caller's cluster is none of its business.
    return subprocess.run(
        command, input=yaml.safe_dump(nested(chosen)), text=True, capture_output=True, env=os.environ | {"KUBECONFIG": "/dev/null"},
    )


@functools.lru_cache(None)
def parsed(document):
    """One object. Most are the same in most rows, and large: nobody changes them."""
    return yaml.load(document, yaml.CSafeLoader)


def documents(text):
    """The objects in what Helm prints, each beside its text."""
    for part in ("\n" + text).split("\n---\n"):
        if one := parsed(part):
            yield one, part.strip() + "\n"


def render(row):
    """Fills the row; what is wrong, in sentences."""
    done = template(row.chosen, row.files)
    if done.returncode:
        return [f"helm template fails: {done.stderr.strip()}"]
    for one, text in documents(done.stdout):
        row.objects.append(one)
        row.documents.append(text)
    row.values = load(CHART / "values.yaml")
    for path in row.files:
        row.values = merged(row.values, load(path))
    row.values = merged(row.values, nested({name: value for name, value in row.chosen.items() if name != "api-versions"}))
    row.values["image"]["tag"] = row.values["image"]["tag"] or str(load(CHART / "Chart.yaml")["appVersion"])
    return []


def at_once(work, many):
    """The work's results, in order, on all cores."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, many))
