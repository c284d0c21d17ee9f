"""Defines the combinations of values that helm/check tries, and renders them with Helm."""

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

# The networks of external stores and of alert receivers. `OUTSIDE_HOSTS` in network.py contains a host in each of them.
STORES = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
RECEIVER = [{"ipBlock": {"cidr": "203.0.113.0/24"}}]

# Components that have a volume by default.
STORED = ("kafka", "redis", "mongodb", "prometheus", "alertmanager")
# Names of the Secrets of external stores, by their keys in `external`.
SECRETS = {"voteLog": "vote-log", "tallies": "tallies", "ledger": "ledger"}


def external(component, store, url, **more):
    return {f"{component}.enabled": False, f"external.{store}.url": url} | {f"external.{store}.{key}": value for key, value in more.items()}


def external_by_secret(component, store, **more):
    name = SECRETS[store]
    return external(component, store, "", existingSecret=f"{name}-url", key="address", caSecret=f"{name}-authorities", to=STORES, **more)


# All options and their choices, as values by dotted names. The first choice of an option is the default of values.yaml. Every choice is
# tried alone, and together with every choice of every other option.
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
        "existing gateway": {
            "entry.kind": "gateway", "entry.gateway.create": False, "entry.gateway.name": "shared", "entry.gateway.namespace": "infra",
            "entry.gateway.sectionName": "https",
        },
        "gateway without forwarder": {"entry.kind": "gateway", "entry.gateway.weights.grpc": 0},
        "gateway, only the forwarder": {"entry.kind": "gateway", "entry.gateway.weights.rest": 0},
        "no entry": {"entry.kind": "none"},
    },
    "Envoy Gateway": {"installed": {}, "not installed": {"api-versions": [GATEWAY_API]}},
    "policies": {
        "on": {},
        "with additional rules": {
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
        "external": external("kafka", "voteLog", "kafka://kafka.example.org:9092/votes"),
        "external by Secret": external_by_secret("kafka", "voteLog", ports=[9093, 9094]),
    },
    "redis": {
        "installed": {},
        "Valkey": {
            "redis.image.repository": "valkey/valkey", "redis.image.tag": "8.1-bookworm", "redis.server": "valkey-server",
            "redis.extraArgs": ["--io-threads", "2"],
        },
        "external": external("redis", "tallies", "redis://redis.example.org:6379"),
        "external by Secret": external_by_secret("redis", "tallies", ports=[6380]),
    },
    "mongodb": {
        "installed": {},
        "with arguments": {"mongodb.extraArgs": ["--slowms", "500"], "mongodb.cacheSizeGB": 0.25},
        "external": external("mongodb", "ledger", "mongodb://mongodb.example.org/ovation"),
        "external by Secret": external_by_secret("mongodb", "ledger", ports=[27018]),
    },
    "object store": {
        "none": {},
        "S3 with credentials": {
            "external.objects.url": "s3://ovation/objects", "external.objects.credentialsSecret": "objects-credentials",
            "external.objects.to": STORES, "external.objects.ports": [9000],
        },
        "Google Cloud Storage with a ServiceAccount": {
            "external.objects.url": "gs://ovation/objects", "results.serviceAccountAnnotations": {"iam.gke.io/gcp-service-account": "a@b"},
        },
    },
    "exporters": {
        "off": {},
        "on": {"kafka.jmxExporter.enabled": True, "redis.exporter.enabled": True, "mongodb.exporter.enabled": True},
    },
    "volumes": {
        "on": {},
        "of a storage class": {"storageClassName": "fast", "mongodb.persistence.storageClassName": "faster", "grafana.persistence.enabled": True},
        "off": {f"{component}.persistence.enabled": False for component in STORED},
    },
    "scaling": {
        "HPA": {},
        "KEDA": {"consumer.hpa.enabled": False, "consumer.keda.enabled": True},
        "KEDA with external brokers": {
            "consumer.hpa.enabled": False, "consumer.keda.enabled": True, "consumer.keda.brokers": "kafka.example.org:9092",
            "consumer.keda.authentication": "kafka", "consumer.keda.topic": "ballots",
        },
        "none": {"consumer.hpa.enabled": False},
    },
    "prometheus": {
        "on": {},
        "with additional configuration": {
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
        "off, dashboards for another Grafana": {"grafana.enabled": False, "grafana.dashboardLabels": {"grafana_dashboard": "1"}},
    },
    "PodMonitor": {"off": {}, "on": {"podMonitor.enabled": True, "podMonitor.labels": {"release": "prometheus"}}},
    "Secret": {"created": {}, "existing": {"secret.existing": "passwords"}},
    "images": {
        "default": {},
        "from a mirror": {"global.imageRegistry": "mirror.example.org/hub"},
        "ours from another registry": {
            "image.registry": "registry.example.org/ours", "image.tag": "1.2.3", "image.pullPolicy": "Always",
            "imagePullSecrets": [{"name": "registry"}],
        },
        "each from its own registry": {
            **{f"{component}.image.registry": "third.example.org" for component in (*STORED, "grafana")},
            **{f"{component}.exporter.image.registry": "fourth.example.org" for component in ("redis", "mongodb")},
        },
    },
    "scheduling": {
        "default": {},
        "restricted": {
            "nodeSelector": {"pool": "votes"}, "tolerations": [{"key": "votes", "operator": "Exists"}], "priorityClassName": "high",
            "affinity": {"nodeAffinity": {}}, "kafka.nodeSelector": {"pool": "stores"},
        },
    },
    "configuration": {
        "default": {},
        "changed": {
            "config": {"log_format": "json", "trusted_proxies": ["10.0.0.0/8"]}, "env": [{"name": "OVATION_LOG", "value": "debug"}],
            "contests": {"bands": {"candidates": ["Pink Floyd", "Genesis"], "votes_per_voter": "one"}}, "drainSeconds": 15,
        },
    },
    "name": {"of the release": {}, "another": {"fullnameOverride": "votes"}},
}

# Invalid combinations of values, and a part of the message with which the chart rejects each.
REJECTED = (
    ({"consumer.keda.enabled": True}, "consumer.hpa.enabled and consumer.keda.enabled are both true"),
    ({"consumer.minReplicas": 6}, "consumer.minReplicas is greater than consumer.maxReplicas"),
    (OPTIONS["scaling"]["KEDA"] | OPTIONS["kafka"]["external"], "set consumer.keda.brokers to its brokers"),
    ({"entry.kind": "gateway", "api-versions": []}, "install the Gateway API and a controller"),
    ({"entry.kind": "gateway", "entry.gateway.create": False}, "set entry.gateway.name to the name of an existing Gateway"),
    ({"entry.kind": "gateway", "entry.gateway.weights": {"rest": 0, "grpc": 0}}, "no producer would receive votes"),
    ({"external.objects.url": "file:///objects"}, "/external/objects/url"),
    ({"external.objects.credentialsSecret": "a"}, "external.objects.credentialsSecret is set without external.objects.url"),
    ({"entry.kind": "proxy"}, "/entry/kind"),
    ({"kafka.replicas": 2}, "/kafka/replicas"),
    ({"rest-producer.replicas": 3}, "rest-producer"),
    *(
        rejection
        for component, store, url in (
            ("kafka", "voteLog", "kafka://a/votes"), ("redis", "tallies", "redis://a"), ("mongodb", "ledger", "mongodb://a/b"),
        )
        for rejection in (
            ({f"{component}.enabled": False}, f"{component}.enabled is false and external.{store} is not set"),
            ({f"external.{store}.url": url}, f"{component}.enabled is true and external.{store} is set"),
            ({f"{component}.enabled": False, f"external.{store}.url": "ftp://a"}, f"/external/{store}/url"),
            (
                {f"{component}.enabled": False, f"external.{store}.url": url, f"external.{store}.existingSecret": "b"},
                f"external.{store}.url and external.{store}.existingSecret are both set",
            ),
        )
    ),
)

# Maps of the values that accept any key: Helm shares `global` among charts, and `alertmanager.global` is a section of Alertmanager's
# configuration.
ANY_KEY = {"global", "alertmanager.global"}


def misspelled():
    """Yields an unknown key in every map of the values, with the message that must reject it."""

    def maps(values, within=""):
        for key, value in values.items():
            if isinstance(value, dict) and value and key not in ("requests", "limits") and within + key not in ANY_KEY:
                yield within + key
                yield from maps(value, f"{within}{key}.")

    for name in maps(load(CHART / "values.yaml")):
        yield {f"{name}.misspelled": 1}, "additional properties 'misspelled' not allowed"


@dataclass
class Row:
    """A combination of values. `render` adds the objects that Helm renders with it."""

    name: str
    chosen: dict = field(default_factory=dict)
    files: tuple = ()
    objects: list = field(default_factory=list)
    # The texts of the objects, in the same order.
    documents: list = field(default_factory=list)
    values: dict = field(default_factory=dict)


def nested(chosen):
    """Returns values by dotted names as nested maps, the form of a values file."""
    values = {}
    for name, value in chosen.items():
        *path, last = name.split(".")
        within = values
        for key in path:
            within = within.setdefault(key, {})
        within[last] = value
    return values


def merged(base, overrides):
    """Returns `base` with the values of `overrides`, as Helm merges values."""
    if not (isinstance(base, dict) and isinstance(overrides, dict)):
        return copy.deepcopy(overrides)
    return {
        key: merged(base.get(key), overrides[key]) if key in overrides else copy.deepcopy(base[key])
        for key in {**base, **overrides}
    }


def load(path):
    return yaml.load(Path(path).read_text(), yaml.CSafeLoader)


def is_valid(choices):
    return not (choices.get("scaling") == "KEDA" and choices.get("kafka", "").startswith("external"))


def pairwise_combinations():
    """Yields combinations of one choice for each option, until every valid pair of choices is in one of them. The algorithm is greedy and
    deterministic: for each option it takes the choice that adds the most new pairs."""
    options = list(OPTIONS)
    missing_pairs = {
        ((one, this), (other, that))
        for one, other in itertools.combinations(options, 2)
        for this in OPTIONS[one] for that in OPTIONS[other]
        if is_valid({one: this, other: that})
    }
    order = {pair: number for number, pair in enumerate((option, choice) for option in options for choice in OPTIONS[option])}
    while missing_pairs:
        choices = dict(min(missing_pairs, key=lambda pair: (order[pair[0]], order[pair[1]])))
        for option in options:
            if option in choices:
                continue

            def count_new_pairs(choice):
                return sum(
                    ((option, choice), pair) in missing_pairs or (pair, (option, choice)) in missing_pairs
                    for pair in choices.items()
                )

            choices[option] = max((choice for choice in OPTIONS[option] if is_valid(choices | {option: choice})), key=count_new_pairs)
        missing_pairs -= set(itertools.combinations(((option, choices[option]) for option in options), 2))
        yield choices


def values_files():
    """Returns the values files of the repository, {name: files to pass to Helm}."""
    local = CHART / "values-local.yaml"
    found = {path.name: (path,) for path in sorted(CHART.glob("values-*.yaml"))}
    cluster = ROOT / "dev/kubernetes/manifests/values.yaml"
    return found | ({"dev/kubernetes/manifests/values.yaml": (local, cluster)} if cluster.exists() else {})


def rows():
    """Yields all combinations that helm/check renders."""
    yield Row("values.yaml")
    for name, files in values_files().items():
        yield Row(name, files=files)
    for option, choices in OPTIONS.items():
        for choice, chosen in list(choices.items())[1:]:
            yield Row(f"{option}: {choice}", chosen)
    for number, choices in enumerate(pairwise_combinations(), 1):
        chosen = {}
        for option, choice in choices.items():
            chosen |= OPTIONS[option][choice]
        name = ", ".join(f"{option} {choice}" for option, choice in choices.items() if OPTIONS[option][choice])
        yield Row(f"pairs {number}: {name}", chosen)


def template(chosen=None, files=(), more=()):
    """Runs `helm template` with values by dotted names, and returns the completed process."""
    chosen = dict(chosen or {})
    versions = chosen.pop("api-versions", [GATEWAY_API, ENVOY_GATEWAY])
    command = [TOOLS / "helm", "template", "ovation", CHART, "--namespace", NAMESPACE, *more]
    for version in versions:
        command += ["--api-versions", version]
    for path in (*files, "-"):
        command += ["--values", path]
    # Do not read the kubeconfig of the caller.
    return subprocess.run(
        command, input=yaml.safe_dump(nested(chosen)), text=True, capture_output=True, env=os.environ | {"KUBECONFIG": "/dev/null"},
    )


@functools.lru_cache(None)
def parsed(document):
    """Returns the object of a YAML document. Objects are cached, because many rows have the same objects: do not modify them."""
    return yaml.load(document, yaml.CSafeLoader)


def documents(text):
    """Yields the objects in the output of Helm, each with its text."""
    for part in ("\n" + text).split("\n---\n"):
        if one := parsed(part):
            yield one, part.strip() + "\n"


def render(row):
    """Renders the row: sets its objects, documents and values. Returns errors as messages."""
    done = template(row.chosen, row.files)
    if done.returncode:
        return [f"helm template failed: {done.stderr.strip()}"]
    for one, text in documents(done.stdout):
        row.objects.append(one)
        row.documents.append(text)
    row.values = load(CHART / "values.yaml")
    for path in row.files:
        row.values = merged(row.values, load(path))
    row.values = merged(row.values, nested({name: value for name, value in row.chosen.items() if name != "api-versions"}))
    row.values["image"]["tag"] = row.values["image"]["tag"] or str(load(CHART / "Chart.yaml")["appVersion"])
    return []


def run_parallel(function, arguments):
    """Returns the results of the function in the order of its arguments. It runs as many calls at once as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, arguments))
