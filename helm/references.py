"""What helm/check wants of names: whatever an object names is there, with the port or key that it names."""

import re

import pods

# Objects that people make, by what names them in the values of matrix.py.
OF_PEOPLE = {
    "Secret": {"passwords", "queue-url", "tally-url", "book-url", "queue-authorities", "tally-authorities", "book-authorities", "alerts",
               "objects-credentials", "certificate", "grpc-certificate"},
    "ConfigMap": set(),
    "Gateway": {"shared"},
}
ADDRESS = re.compile(r"\b(?:https?|kafka|redis|mongodb)://(?:[^/@\s]*@)?([a-z0-9-]+):(\d+)\b")


def matches(selector, labels):
    """Whether a label selector selects."""
    labels = labels or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions") or ():
        value, among, operator = labels.get(one["key"]), one.get("values") or [], one["operator"]
        if not {
            "In": value in among, "NotIn": value not in among, "Exists": one["key"] in labels, "DoesNotExist": one["key"] not in labels,
        }[operator]:
            return False
    return True


def references(objects):
    """What is named and not there, in sentences."""
    there = {}
    for one in objects:
        there.setdefault(one["kind"], {})[one["metadata"]["name"]] = one
    templates = list(pods.templates(objects))

    def has(kind, name):
        return name in there.get(kind, {}) or name in OF_PEOPLE.get(kind, ())

    def keys(kind, name):
        one = there.get(kind, {}).get(name)
        # Of people's we trust that they are as documented.
        return None if one is None else set(one.get("data") or {}) | set(one.get("stringData") or {})

    def source(kind, name, wanted):
        if not has(kind, name):
            yield f"names the {kind} {name}, which is not there"
        elif keys(kind, name) is not None and set(wanted) - keys(kind, name):
            yield f"names {', '.join(sorted(set(wanted) - keys(kind, name)))} in the {kind} {name}, which has none"

    def of_volume(volume):
        for part in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            for key, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if key in part:
                    one = part[key]
                    yield from source(kind, one.get(name) or one.get("name"), [item["key"] for item in one.get("items") or []])

    def of_container(container, volumes):
        named = {port["name"] for port in container.get("ports") or [] if "name" in port}
        for variable in container.get("env") or []:
            value = variable.get("valueFrom") or {}
            for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if key in value:
                    yield from source(kind, value[key]["name"], [value[key]["key"]])
        for source_ in container.get("envFrom") or []:
            for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if key in source_:
                    yield from source(kind, source_[key]["name"], [])
        before = set()
        for variable in container.get("env") or []:
            for name in re.findall(r"\$\(([A-Za-z_]\w*)\)", variable.get("value") or ""):
                if name not in before:
                    yield f"{variable['name']} takes $({name}), which is not set before it"
            before.add(variable["name"])
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"mounts the volume {mount['name']}, which is not there"
        for probe in pods.PROBES:
            for action in ("httpGet", "tcpSocket"):
                port = (container.get(probe) or {}).get(action, {}).get("port")
                if isinstance(port, str) and port not in named:
                    yield f"{probe} asks the port {port}, which is not there"

    def service(name, port, by):
        """Whether a Service has a port, and pods that have it."""
        one = there.get("Service", {}).get(name)
        if one is None:
            yield f"{by} names the Service {name}, which is not there"
        elif port is not None and port not in [key for each in one["spec"]["ports"] for key in (each["port"], each.get("name"))]:
            yield f"{by} names port {port} of the Service {name}, which has none"

    for one, metadata, spec in templates:
        by = f"{one['kind']} {one['metadata']['name']}"
        if not has("ServiceAccount", spec.get("serviceAccountName")):
            yield f"{by}: its ServiceAccount {spec.get('serviceAccountName')} is not there"
        volumes = {volume["name"] for volume in spec.get("volumes") or []}
        volumes |= {claim["metadata"]["name"] for claim in (one.get("spec") or {}).get("volumeClaimTemplates") or []}
        for volume in spec.get("volumes") or []:
            yield from (f"{by}: volume {volume['name']} {what}" for what in of_volume(volume))
        for container in pods.containers(spec):
            yield from (f"{by}: container {container['name']} {what}" for what in of_container(container, volumes))
            # Addresses of ours, in arguments and in the environment: only a Service has a name without dots.
            texts = [*(container.get("args") or []), *(variable.get("value") or "" for variable in container.get("env") or [])]
            for host, port in (found for text in texts for found in ADDRESS.findall(text)):
                if host != "localhost":
                    yield from service(host, int(port), f"{by}: container {container['name']}")
        selector = (one.get("spec") or {}).get("selector")
        if selector and not matches(selector, metadata.get("labels")):
            yield f"{by}: its selector does not select its pods"
        if one["kind"] == "StatefulSet":
            yield from service(one["spec"]["serviceName"], None, by)

    for name, one in there.get("Service", {}).items():
        selected = [spec for _, metadata, spec in templates if matches({"matchLabels": one["spec"]["selector"]}, metadata.get("labels"))]
        if not selected:
            yield f"Service {name}: selects no pods"
        for spec in selected:
            having = [port for container in pods.containers(spec) for port in container.get("ports") or []]
            ports = [key for port in having for key in (port["containerPort"], port.get("name"))]
            for port in one["spec"]["ports"]:
                if port.get("targetPort", port["port"]) not in ports:
                    yield f"Service {name}: its pods have no port {port.get('targetPort', port['port'])}"

    for name, one in there.get("PodDisruptionBudget", {}).items():
        if not any(matches(one["spec"]["selector"], metadata.get("labels")) for _, metadata, _ in templates):
            yield f"PodDisruptionBudget {name}: selects no pods"
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for name, one in there.get(kind, {}).items():
            target = one["spec"]["scaleTargetRef"]
            if not has(target.get("kind", "Deployment"), target["name"]):
                yield f"{kind} {name}: scales {target['name']}, which is not there"

    for name, one in there.get("Ingress", {}).items():
        for path in (path for rule in one["spec"]["rules"] for path in rule["http"]["paths"]):
            backend = path["backend"]["service"]
            yield from service(backend["name"], backend["port"].get("name") or backend["port"].get("number"), f"Ingress {name}")
        for tls in one["spec"].get("tls") or []:
            yield from (f"Ingress {name}: {what}" for what in source("Secret", tls["secretName"], []))
    for kind in ("HTTPRoute", "GRPCRoute"):
        for name, one in there.get(kind, {}).items():
            for backend in (backend for rule in one["spec"]["rules"] for backend in rule.get("backendRefs") or []):
                yield from service(backend["name"], backend["port"], f"{kind} {name}")
            for parent in one["spec"]["parentRefs"]:
                if not has("Gateway", parent["name"]):
                    yield f"{kind} {name}: its Gateway {parent['name']} is not there"
                gateway = there.get("Gateway", {}).get(parent["name"])
                if gateway and parent.get("sectionName", "") not in ["", *(listener["name"] for listener in gateway["spec"]["listeners"])]:
                    yield f"{kind} {name}: the Gateway {parent['name']} has no listener {parent['sectionName']}"
    for name, one in there.get("BackendTrafficPolicy", {}).items():
        for target in one["spec"]["targetRefs"]:
            if not has(target["kind"], target["name"]):
                yield f"BackendTrafficPolicy {name}: its target {target['name']} is not there"
