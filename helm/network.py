"""What NetworkPolicies let through, worked out from manifests, against what is needed. Both ends have to allow a connection: the
policies of the pod that makes it, and those of the pod that takes it."""

import ipaddress
from dataclasses import dataclass, field

import pods
from references import matches

PROGRAMS = "rest-producer grpc-producer forwarder consumer results"

# Who is around: outside the release, and none of ours. An address stands for all that a policy can tell from it.
OTHERS = {
    "ingress": {"namespace": "traefik", "labels": {"app.kubernetes.io/name": "traefik"}, "address": "10.244.9.1"},
    "gateway": {"namespace": "envoy-gateway-system", "labels": {"app.kubernetes.io/name": "envoy"}, "address": "10.244.9.2"},
    "keda": {"namespace": "keda", "labels": {"app": "keda-operator"}, "address": "10.244.9.3"},
    "monitoring": {"namespace": "monitoring", "labels": {"app.kubernetes.io/name": "prometheus"}, "address": "10.244.9.4"},
    "office": {"namespace": "office", "labels": {}, "address": "10.244.9.5"},
    "cluster DNS": {"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}, "address": "10.244.9.6"},
    "the node's DNS": {"address": "169.254.20.10"},
    "Cloud DNS and metadata": {"address": "169.254.169.254"},
    "metadata on the node": {"address": "169.254.169.252"},
    "credentials on the node": {"address": "169.254.170.23"},
    "stores elsewhere": {"address": "192.0.2.7"},
    "receivers": {"address": "203.0.113.5"},
    "a stranger beside us": {"namespace": "ovation", "labels": {}, "address": "10.244.9.8"},
    "a stranger": {"namespace": "default", "labels": {}, "address": "10.244.9.9"},
    "the internet": {"address": "198.51.100.1"},
}


def is_elsewhere(part):
    return lambda values: not values[part]["enabled"]


def enters_by(kind):
    return lambda values: values["entry"]["kind"] == kind


def has_more(way, component):
    return lambda values: component in values["networkPolicy"][way]


def at_any_address(part, store):
    anywhere = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    return lambda values: not values[part]["enabled"] and values["external"][store]["to"] == anywhere


def at_any_address_if_there(store):
    anywhere = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    return lambda values: values["external"][store]["url"] and values["external"][store]["to"] == anywhere


def kept_at(scheme):
    return lambda values: values["external"]["objects"]["url"].startswith(scheme)


def ports_of(store):
    return lambda values: values["external"][store]["ports"]


def always(values):
    return True


# All connections that are needed: from, to, at which ports, and with which values. One of ours that isn't deployed needs none, nor does a port
# that the pod doesn't have. `anyone` is everybody in OTHERS.
NEEDED = (
    # Votes come in, are forwarded, put on the log, and counted.
    ("ingress", "rest-producer", 8000, enters_by("ingress")),
    ("ingress", "grpc-producer", 50051, enters_by("ingress")),
    ("ingress", "results", (8080, 50052), enters_by("ingress")),
    ("gateway", "rest-producer forwarder", 8000, enters_by("gateway")),
    ("gateway", "grpc-producer", 50051, enters_by("gateway")),
    ("gateway", "results", (8080, 50052), enters_by("gateway")),
    # An Ingress controller may be a part of the cluster itself.
    ("cluster DNS", "rest-producer", 8000, enters_by("ingress")),
    ("cluster DNS", "grpc-producer", 50051, enters_by("ingress")),
    ("cluster DNS", "results", (8080, 50052), enters_by("ingress")),
    ("forwarder", "grpc-producer", 50051, always),
    ("rest-producer grpc-producer consumer results", "kafka", 9092, always),
    ("consumer results", "redis", 6379, always),
    ("consumer results", "mongodb", 27017, always),
    ("kafka", "kafka", (9092, 9093), always),
    ("keda", "kafka", 9092, lambda values: values["consumer"]["keda"]["enabled"]),
    # What watches.
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
    ("office", "grafana", 3000, has_more("ingress", "grafana")),
    ("alertmanager", "receivers", 443, has_more("egress", "alertmanager")),
    # helm test.
    ("test", "rest-producer forwarder", 8000, always),
    ("test", "grpc-producer", 50051, always),
    ("test", "results", 8080, always),
    # Stores elsewhere.
    ("rest-producer grpc-producer consumer results", "stores elsewhere", ports_of("queue"), is_elsewhere("kafka")),
    ("consumer results", "stores elsewhere", ports_of("tally"), is_elsewhere("redis")),
    ("consumer results", "stores elsewhere", ports_of("book"), is_elsewhere("mongodb")),
    ("rest-producer grpc-producer consumer results", "anyone", ports_of("queue"), at_any_address("kafka", "queue")),
    ("consumer results", "anyone", ports_of("tally"), at_any_address("redis", "tally")),
    ("consumer results", "anyone", ports_of("book"), at_any_address("mongodb", "book")),
    # The object store, and who tells its credentials.
    ("results", "stores elsewhere", ports_of("objects"), kept_at(("s3://", "gs://"))),
    ("results", "anyone", ports_of("objects"), at_any_address_if_there("objects")),
    ("results", "Cloud DNS and metadata", 80, kept_at("gs://")),
    ("results", "metadata on the node", 988, kept_at("gs://")),
    ("results", "credentials on the node", 80, kept_at("s3://")),
)
# Who connects to anything asks for its name first.
NAMES = ("cluster DNS", "the node's DNS")
CLOUD_DNS = {"ipBlock": {"cidr": "169.254.169.254/32"}}

# Ports that somebody might leave open, beside all that manifests mention.
PROBED = [("TCP", port) for port in (1, 22, 53, 80, 443, 2379, 6443, 8080, 10250, 65535)] + [("UDP", port) for port in (1, 53, 9092, 65535)]


@dataclass(frozen=True)
class Party:
    """A pod, or whoever has an address outside the cluster (then it is in no namespace)."""

    name: str
    address: str
    namespace: str = ""
    labels: dict = field(default_factory=dict, hash=False, compare=False)
    # Of a container's ports: {name: number}, and the numbers.
    named: dict = field(default_factory=dict, hash=False, compare=False)
    ports: frozenset = frozenset()


def ours(objects, namespace):
    """The release's pods, one of each template."""
    for number, (one, metadata, spec) in enumerate(pods.templates(objects), 1):
        labels = metadata.get("labels") or {}
        ports = [port for container in pods.containers(spec) for port in container.get("ports") or []]
        yield Party(
            labels.get("app.kubernetes.io/component", one["metadata"]["name"]), f"10.244.1.{number}", namespace, labels,
            {port["name"]: port["containerPort"] for port in ports if "name" in port},
            frozenset((port.get("protocol", "TCP"), port["containerPort"]) for port in ports),
        )


def others(ours_):
    yield from (Party(name, **one) for name, one in OTHERS.items())
    # The same in the namespace of another release, and another release in ours.
    for number, one in enumerate(ours_, 1):
        twin = one.labels | {"app.kubernetes.io/instance": "other"}
        yield Party(f"{one.name} of another release", f"10.244.2.{number}", one.namespace, twin)
        yield Party(f"{one.name} in another namespace", f"10.244.3.{number}", "elsewhere", one.labels)


def is_peer(peer, party, namespace):
    """Whether a policy's peer, in that namespace, means the party."""
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


def at(rule, target, universe):
    """The ports that a rule lets through to the target."""
    if not rule.get("ports"):
        return universe
    let = set()
    for port in rule["ports"]:
        protocol, number = port.get("protocol", "TCP"), port.get("port")
        if isinstance(number, str):
            number = target.named.get(number)
            if number is None:
                continue
        last = port.get("endPort", number)
        let |= {(a, b) for a, b in universe if a == protocol and (number is None or number <= b <= last)}
    return let


def rules_on(policies, party, way):
    """The rules of the policies that are on a pod, that way; None if there is no policy on it, and everything is allowed."""
    if not party.namespace:
        return None
    on = [
        policy["spec"] for policy in policies
        if policy["metadata"].get("namespace", policy["release"]) == party.namespace
        and way in policy["spec"].get("policyTypes", ["Ingress", *(["Egress"] if "egress" in policy["spec"] else [])])
        and matches(policy["spec"].get("podSelector") or {}, party.labels)
    ]
    return [rule for spec in on for rule in spec.get(way.lower()) or []] if on else None


def let_through(rules, peers, peer, namespace, target, universe):
    """The ports at the target that rules of a namespace let through, to or from the peer."""
    if rules is None:
        return universe
    let = set()
    for rule in rules:
        # A rule without peers means all.
        if not rule.get(peers) or any(is_peer(one, peer, namespace) for one in rule[peers]):
            let |= at(rule, target, universe)
    return let


def allowed(policies, source, target, universe):
    """The ports at which the source may connect to the target."""
    return let_through(rules_on(policies, source, "Egress"), "to", target, source.namespace, target, universe) & let_through(
        rules_on(policies, target, "Ingress"), "from", source, target.namespace, target, universe)


def needed(values, inside, outside):
    """All connections that are needed, as (from, to, (protocol, port)), by names."""
    there = {party.name: party for party in inside}
    around = {party.name for party in outside}
    found = set()

    def parties(text):
        return around if text == "anyone" else [text] if text in OTHERS else [name for name in text.split() if name in there]

    for sources, targets, ports, when in NEEDED:
        if not when(values):
            continue
        ports = ports(values) if callable(ports) else ports
        for source in parties(sources):
            for target in parties(targets):
                for port in (ports if isinstance(ports, (list, tuple)) else (ports,)):
                    if target not in there or ("TCP", port) in there[target].ports:
                        found.add((source, target, ("TCP", port)))
    names = (*NAMES, *(["Cloud DNS and metadata"] if CLOUD_DNS in values["networkPolicy"]["dns"] else []))
    for source in {source for source, _, _ in found if source in there}:
        found |= {(source, target, (protocol, 53)) for target in names for protocol in ("UDP", "TCP")}
    return found


def arrivals(objects, namespace, wanted):
    """What is wrong with who may connect to the pods of a namespace, from there or from elsewhere, in sentences; `wanted` is all that
    may, as (from, to, (protocol, port)), by names."""
    policies = [one | {"release": namespace} for one in objects if one["kind"] == "NetworkPolicy"]
    inside = list(ours(objects, namespace))
    # There is one release of them, so others() has more than there can be.
    outside = [party for party in others(inside) if not party.name.endswith("of another release")]
    outside.append(Party("a stranger beside them", "10.244.9.10", namespace))
    there = {party.name for party in inside}
    universe = set(PROBED).union(*(party.ports for party in inside))
    found = {
        (source.name, target.name, port) for source in [*inside, *outside] for target in inside
        for port in allowed(policies, source, target, universe)
    }
    wanted = {one for one in wanted if {*one[:2]} <= there}
    yield from (f"{source} may connect to {target} at {port[1]}/{port[0]}, and needs not" for source, target, port in sorted(found - wanted))
    yield from (f"{source} can't connect to {target} at {port[1]}/{port[0]}, and needs to" for source, target, port in sorted(wanted - found))


def connections(objects, values, namespace="ovation"):
    """What is wrong with who may connect to whom, in sentences."""
    policies = [one | {"release": namespace} for one in objects if one["kind"] == "NetworkPolicy"]
    if not values["networkPolicy"]["enabled"]:
        if policies:
            yield "networkPolicy.enabled is false, and there are NetworkPolicies"
        return
    inside = list(ours(objects, namespace))
    outside = list(others(inside))
    universe = set(PROBED).union(*(party.ports for party in inside))
    for policy in policies:
        for rule in (policy["spec"].get("ingress") or []) + (policy["spec"].get("egress") or []):
            for port in rule.get("ports") or []:
                if isinstance(number := port.get("port"), int):
                    universe |= {(port.get("protocol", "TCP"), each) for each in (number, number + 1, port.get("endPort", number))}

    wanted = needed(values, inside, outside)
    unmet = set(wanted)
    everybody = [*inside, *outside]
    leaving = [rules_on(policies, party, "Egress") for party in everybody]
    entering = [rules_on(policies, party, "Ingress") for party in everybody]
    for number, source in enumerate(everybody):
        # Others among themselves are none of ours.
        for other, target in enumerate(everybody if number < len(inside) else inside):
            ports = let_through(leaving[number], "to", target, source.namespace, target, universe)
            ports = ports and let_through(entering[other], "from", source, target.namespace, target, ports)
            for port in ports:
                if (source.name, target.name, port) in wanted:
                    unmet.discard((source.name, target.name, port))
                else:
                    yield f"{source.name} may connect to {target.name} at {port[1]}/{port[0]}, and needs not"
    for source, target, port in sorted(unmet):
        yield f"{source} can't connect to {target} at {port[1]}/{port[0]}, and needs to"
