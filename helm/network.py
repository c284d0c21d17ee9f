"""Compares the connections that NetworkPolicies allow with the required connections.

A connection is allowed if both the egress rules of its source and the ingress rules of its target allow it."""

import ipaddress
from dataclasses import dataclass, field

import pods
from references import matches

PROGRAMS = "rest-producer grpc-producer forwarder consumer results"

# Hosts outside the release. Each one represents all hosts that the policies can't distinguish from it.
OUTSIDE_HOSTS = {
    "ingress": {"namespace": "traefik", "labels": {"app.kubernetes.io/name": "traefik"}, "address": "10.244.9.1"},
    "gateway": {"namespace": "envoy-gateway-system", "labels": {"app.kubernetes.io/name": "envoy"}, "address": "10.244.9.2"},
    "keda": {"namespace": "keda", "labels": {"app": "keda-operator"}, "address": "10.244.9.3"},
    "monitoring": {"namespace": "monitoring", "labels": {"app.kubernetes.io/name": "prometheus"}, "address": "10.244.9.4"},
    "office": {"namespace": "office", "labels": {}, "address": "10.244.9.5"},
    "cluster DNS": {"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}, "address": "10.244.9.6"},
    "the node's DNS": {"address": "169.254.20.10"},
    "Cloud DNS and metadata": {"address": "169.254.169.254"},
    "GKE metadata server": {"address": "169.254.169.252"},
    "EKS Pod Identity": {"address": "169.254.170.23"},
    "external stores": {"address": "192.0.2.7"},
    "receivers": {"address": "203.0.113.5"},
    "another pod in our namespace": {"namespace": "ovation", "labels": {}, "address": "10.244.9.8"},
    "a pod in another namespace": {"namespace": "default", "labels": {}, "address": "10.244.9.9"},
    "the internet": {"address": "198.51.100.1"},
}
# The default peers of external stores.
ANY_PEER = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]


# Conditions and ports of REQUIRED, as functions of the values.


def is_external(component):
    return lambda values: not values[component]["enabled"]


def has_entry(kind):
    return lambda values: values["entry"]["kind"] == kind


def has_rules(direction, component):
    return lambda values: component in values["networkPolicy"][direction]


def is_external_anywhere(component, store):
    return lambda values: not values[component]["enabled"] and values["external"][store]["to"] == ANY_PEER


def has_objects_anywhere(values):
    return values["external"]["objects"]["url"] and values["external"]["objects"]["to"] == ANY_PEER


def has_objects_at(scheme):
    return lambda values: values["external"]["objects"]["url"].startswith(scheme)


def ports_of(store):
    return lambda values: values["external"][store]["ports"]


def always(values):
    return True


# All required connections: sources, targets, ports and a condition. Components that are not installed are skipped, and ports that a pod does
# not have. `anyone` represents all hosts outside the release.
REQUIRED = (
    # The path of a vote: the entry, the forwarder, the producers, the vote log, the consumers.
    ("ingress", "rest-producer", 8000, has_entry("ingress")),
    ("ingress", "grpc-producer", 50051, has_entry("ingress")),
    ("ingress", "results", (8080, 50052), has_entry("ingress")),
    ("gateway", "rest-producer forwarder", 8000, has_entry("gateway")),
    ("gateway", "grpc-producer", 50051, has_entry("gateway")),
    ("gateway", "results", (8080, 50052), has_entry("gateway")),
    # An Ingress controller may run in the namespace kube-system.
    ("cluster DNS", "rest-producer", 8000, has_entry("ingress")),
    ("cluster DNS", "grpc-producer", 50051, has_entry("ingress")),
    ("cluster DNS", "results", (8080, 50052), has_entry("ingress")),
    ("forwarder", "grpc-producer", 50051, always),
    ("rest-producer grpc-producer consumer results", "kafka", 9092, always),
    ("consumer results", "redis", 6379, always),
    ("consumer results", "mongodb", 27017, always),
    ("kafka", "kafka", (9092, 9093), always),
    ("keda", "kafka", 9092, lambda values: values["consumer"]["keda"]["enabled"]),
    # Monitoring.
    ("prometheus", PROGRAMS, 9100, always),
    ("prometheus", "kafka", 9404, always),
    ("prometheus", "redis", 9121, always),
    ("prometheus", "mongodb", 9216, always),
    ("prometheus", "alertmanager", 9093, always),
    ("grafana", "prometheus", 9090, always),
    ("grafana", "alertmanager", 9093, always),
    ("monitoring", PROGRAMS, 9100, lambda values: values["podMonitor"]["enabled"]),
    ("monitoring", "kafka", 9404, lambda values: values["podMonitor"]["enabled"]),
    ("monitoring", "redis", 9121, lambda values: values["podMonitor"]["enabled"]),
    ("monitoring", "mongodb", 9216, lambda values: values["podMonitor"]["enabled"]),
    ("anyone", "grafana", 3000, lambda values: values["grafana"]["service"]["type"] != "ClusterIP"),
    ("office", "grafana", 3000, has_rules("ingress", "grafana")),
    ("alertmanager", "receivers", 443, has_rules("egress", "alertmanager")),
    # helm test.
    ("test", "rest-producer forwarder", 8000, always),
    ("test", "grpc-producer", 50051, always),
    ("test", "results", 8080, always),
    # External stores.
    ("rest-producer grpc-producer consumer results", "external stores", ports_of("voteLog"), is_external("kafka")),
    ("consumer results", "external stores", ports_of("tallies"), is_external("redis")),
    ("consumer results", "external stores", ports_of("ledger"), is_external("mongodb")),
    ("rest-producer grpc-producer consumer results", "anyone", ports_of("voteLog"), is_external_anywhere("kafka", "voteLog")),
    ("consumer results", "anyone", ports_of("tallies"), is_external_anywhere("redis", "tallies")),
    ("consumer results", "anyone", ports_of("ledger"), is_external_anywhere("mongodb", "ledger")),
    # The object store, and the metadata servers that return credentials for it.
    ("results", "external stores", ports_of("objects"), has_objects_at(("s3://", "gs://"))),
    ("results", "anyone", ports_of("objects"), has_objects_anywhere),
    ("results", "Cloud DNS and metadata", 80, has_objects_at("gs://")),
    ("results", "GKE metadata server", 988, has_objects_at("gs://")),
    ("results", "EKS Pod Identity", 80, has_objects_at("s3://")),
)
# The DNS servers. Every component that connects to another one must be allowed to query them.
DNS = ("cluster DNS", "the node's DNS")
CLOUD_DNS = {"ipBlock": {"cidr": "169.254.169.254/32"}}

# Ports that are checked in addition to those in the manifests.
EXTRA_PORTS = [("TCP", port) for port in (1, 22, 53, 80, 443, 2379, 6443, 8080, 10250, 65535)] + [("UDP", port) for port in (1, 53, 9092, 65535)]


@dataclass(frozen=True)
class Party:
    """A pod, or a host outside the cluster. Such a host has no namespace."""

    name: str
    address: str
    namespace: str = ""
    labels: dict = field(default_factory=dict, hash=False, compare=False)
    # Ports of the containers by name, {name: number}, and all their ports.
    named: dict = field(default_factory=dict, hash=False, compare=False)
    ports: frozenset = frozenset()


def release_pods(objects, namespace):
    """Yields the pods of the release: one for each pod template."""
    for number, (one, metadata, spec) in enumerate(pods.pod_templates(objects), 1):
        labels = metadata.get("labels") or {}
        ports = [port for container in pods.containers(spec) for port in container.get("ports") or []]
        yield Party(
            labels.get("app.kubernetes.io/component", one["metadata"]["name"]), f"10.244.1.{number}", namespace, labels,
            {port["name"]: port["containerPort"] for port in ports if "name" in port},
            frozenset((port.get("protocol", "TCP"), port["containerPort"]) for port in ports),
        )


def outside_hosts(inside):
    """Yields all hosts that are not pods of the release."""
    yield from (Party(name, **one) for name, one in OUTSIDE_HOSTS.items())
    # Pods like those of the release: in another release in our namespace, and in a release of the same name in another namespace.
    for number, one in enumerate(inside, 1):
        labels = one.labels | {"app.kubernetes.io/instance": "other"}
        yield Party(f"{one.name} of another release", f"10.244.2.{number}", one.namespace, labels)
        yield Party(f"{one.name} in another namespace", f"10.244.3.{number}", "other", one.labels)


def is_peer(peer, party, namespace):
    """Returns whether a peer of a policy in the namespace selects the party."""
    if "ipBlock" in peer:
        address = ipaddress.ip_address(party.address)
        return address in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(
            address in ipaddress.ip_network(block) for block in peer["ipBlock"].get("except") or []
        )
    if not party.namespace:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"] or {}, {"kubernetes.io/metadata.name": party.namespace}):
            return False
    elif party.namespace != namespace:
        return False
    return matches(peer.get("podSelector") or {}, party.labels)


def ports_allowed(rule, target, all_ports):
    """Returns the ports of the target that a rule allows."""
    if not rule.get("ports"):
        return all_ports
    allowed_ports = set()
    for port in rule["ports"]:
        protocol, number = port.get("protocol", "TCP"), port.get("port")
        if isinstance(number, str):
            number = target.named.get(number)
            if number is None:
                continue
        last = port.get("endPort", number)
        allowed_ports |= {(a, b) for a, b in all_ports if a == protocol and (number is None or number <= b <= last)}
    return allowed_ports


def rules_on(policies, party, direction):
    """Returns the rules for a pod in a direction. Returns None if no policy selects the pod: then all connections are allowed."""
    if not party.namespace:
        return None
    specs = [
        policy["spec"] for policy in policies
        if policy["metadata"].get("namespace", policy["release"]) == party.namespace
        and direction in policy["spec"].get("policyTypes", ["Ingress", *(["Egress"] if "egress" in policy["spec"] else [])])
        and matches(policy["spec"].get("podSelector") or {}, party.labels)
    ]
    return [rule for spec in specs for rule in spec.get(direction.lower()) or []] if specs else None


def allowed_by(rules, peers, peer, namespace, target, all_ports):
    """Returns the ports of the target that the rules allow. `peers` is the key of the rules' peers, `to` or `from`. `peer` is the other end of
    the connection, and `namespace` that of the policies."""
    if rules is None:
        return all_ports
    ports = set()
    for rule in rules:
        # A rule without peers allows all peers.
        if not rule.get(peers) or any(is_peer(one, peer, namespace) for one in rule[peers]):
            ports |= ports_allowed(rule, target, all_ports)
    return ports


def allowed(policies, source, target, all_ports):
    """Returns the ports at which the source can connect to the target."""
    return allowed_by(rules_on(policies, source, "Egress"), "to", target, source.namespace, target, all_ports) & allowed_by(
        rules_on(policies, target, "Ingress"), "from", source, target.namespace, target, all_ports)


def required(values, inside, outside):
    """Returns all required connections as (source, target, (protocol, port)), by names."""
    installed = {party.name: party for party in inside}
    anyone = {party.name for party in outside}
    found = set()

    def parties(text):
        return anyone if text == "anyone" else [text] if text in OUTSIDE_HOSTS else [name for name in text.split() if name in installed]

    for sources, targets, ports, condition in REQUIRED:
        if not condition(values):
            continue
        ports = ports(values) if callable(ports) else ports
        for source in parties(sources):
            for target in parties(targets):
                for port in (ports if isinstance(ports, (list, tuple)) else (ports,)):
                    if target not in installed or ("TCP", port) in installed[target].ports:
                        found.add((source, target, ("TCP", port)))
    names = (*DNS, *(["Cloud DNS and metadata"] if CLOUD_DNS in values["networkPolicy"]["dns"] else []))
    for source in {source for source, _, _ in found if source in installed}:
        found |= {(source, target, (protocol, 53)) for target in names for protocol in ("UDP", "TCP")}
    return found


def ingress_problems(objects, namespace, wanted):
    """Yields connections to the pods of a namespace that are wrongly allowed or denied, as messages. `wanted` has the connections that must
    be allowed, as (source, target, (protocol, port)), by names."""
    policies = [one | {"release": namespace} for one in objects if one["kind"] == "NetworkPolicy"]
    inside = list(release_pods(objects, namespace))
    # These manifests are installed once, so there is no other release of them.
    outside = [party for party in outside_hosts(inside) if not party.name.endswith("of another release")]
    outside.append(Party("another pod in the namespace", "10.244.9.10", namespace))
    installed = {party.name for party in inside}
    all_ports = set(EXTRA_PORTS).union(*(party.ports for party in inside))
    found = {
        (source.name, target.name, port) for source in [*inside, *outside] for target in inside
        for port in allowed(policies, source, target, all_ports)
    }
    wanted = {one for one in wanted if {*one[:2]} <= installed}
    yield from (f"{source} can connect to {target} at {port[1]}/{port[0]}, which is not required" for source, target, port in sorted(found - wanted))
    yield from (f"{source} cannot connect to {target} at {port[1]}/{port[0]}, which is required" for source, target, port in sorted(wanted - found))


def connection_problems(objects, values, namespace="ovation"):
    """Yields connections that are wrongly allowed or denied, as messages."""
    policies = [one | {"release": namespace} for one in objects if one["kind"] == "NetworkPolicy"]
    if not values["networkPolicy"]["enabled"]:
        if policies:
            yield "networkPolicy.enabled is false, but the release contains NetworkPolicies"
        return
    inside = list(release_pods(objects, namespace))
    outside = list(outside_hosts(inside))
    all_ports = set(EXTRA_PORTS).union(*(party.ports for party in inside))
    for policy in policies:
        for rule in (policy["spec"].get("ingress") or []) + (policy["spec"].get("egress") or []):
            for port in rule.get("ports") or []:
                if isinstance(number := port.get("port"), int):
                    all_ports |= {(port.get("protocol", "TCP"), each) for each in (number, number + 1, port.get("endPort", number))}

    wanted = required(values, inside, outside)
    missing = set(wanted)
    parties = [*inside, *outside]
    egress = [rules_on(policies, party, "Egress") for party in parties]
    ingress = [rules_on(policies, party, "Ingress") for party in parties]
    for number, source in enumerate(parties):
        # Skip connections between two hosts outside the release.
        for other, target in enumerate(parties if number < len(inside) else inside):
            ports = allowed_by(egress[number], "to", target, source.namespace, target, all_ports)
            ports = ports and allowed_by(ingress[other], "from", source, target.namespace, target, ports)
            for port in ports:
                if (source.name, target.name, port) in wanted:
                    missing.discard((source.name, target.name, port))
                else:
                    yield f"{source.name} can connect to {target.name} at {port[1]}/{port[0]}, which is not required"
    for source, target, port in sorted(missing):
        yield f"{source} cannot connect to {target} at {port[1]}/{port[0]}, which is required"
