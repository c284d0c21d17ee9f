"""Checks the references between objects: the target must exist, and have the port or the key that the reference names."""

import re

import pods

# Objects that users create, to which the values in matrix.py refer.
USER_OBJECTS = {
    "Secret": {"passwords", "vote-log-url", "tallies-url", "ledger-url", "vote-log-authorities", "tallies-authorities", "ledger-authorities",
               "alerts", "objects-credentials", "certificate", "grpc-certificate"},
    "ConfigMap": set(),
    "Gateway": {"shared"},
}
ADDRESS = re.compile(r"\b(?:https?|kafka|redis|mongodb)://(?:[^/@\s]*@)?([a-z0-9-]+):(\d+)\b")


def matches(selector, labels):
    """Returns whether a label selector selects the labels."""
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


def reference_problems(objects):
    """Yields references whose target does not exist, as messages."""
    existing = {}
    for one in objects:
        existing.setdefault(one["kind"], {})[one["metadata"]["name"]] = one
    templates = list(pods.pod_templates(objects))

    def has(kind, name):
        return name in existing.get(kind, {}) or name in USER_OBJECTS.get(kind, ())

    def keys(kind, name):
        one = existing.get(kind, {}).get(name)
        # The keys of users' objects are not known here.
        return None if one is None else set(one.get("data") or {}) | set(one.get("stringData") or {})

    def check_keys(kind, name, wanted):
        """Yields a problem if the object does not exist or lacks a key."""
        if not has(kind, name):
            yield f"refers to the {kind} {name}, which does not exist"
        elif keys(kind, name) is not None and set(wanted) - keys(kind, name):
            yield f"refers to {', '.join(sorted(set(wanted) - keys(kind, name)))} in the {kind} {name}, which has no such key"

    def check_volume(volume):
        for part in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            for key, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if key in part:
                    one = part[key]
                    yield from check_keys(kind, one.get(name) or one.get("name"), [item["key"] for item in one.get("items") or []])

    def check_container(container, volumes):
        named = {port["name"] for port in container.get("ports") or [] if "name" in port}
        for variable in container.get("env") or []:
            value = variable.get("valueFrom") or {}
            for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if key in value:
                    yield from check_keys(kind, value[key]["name"], [value[key]["key"]])
        for source in container.get("envFrom") or []:
            for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if key in source:
                    yield from check_keys(kind, source[key]["name"], [])
        before = set()
        for variable in container.get("env") or []:
            for name in re.findall(r"\$\(([A-Za-z_]\w*)\)", variable.get("value") or ""):
                if name not in before:
                    yield f"{variable['name']} uses $({name}), which is not defined before it"
            before.add(variable["name"])
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"mounts the volume {mount['name']}, which does not exist"
        for probe in pods.PROBES:
            for action in ("httpGet", "tcpSocket"):
                port = (container.get(probe) or {}).get(action, {}).get("port")
                if isinstance(port, str) and port not in named:
                    yield f"{probe} uses the port {port}, which does not exist"

    def check_service(name, port, owner):
        """Yields a problem if the Service does not exist or does not have the port."""
        one = existing.get("Service", {}).get(name)
        if one is None:
            yield f"{owner} refers to the Service {name}, which does not exist"
        elif port is not None and port not in [key for each in one["spec"]["ports"] for key in (each["port"], each.get("name"))]:
            yield f"{owner} refers to port {port} of the Service {name}, which has no such port"

    for one, metadata, spec in templates:
        owner = f"{one['kind']} {one['metadata']['name']}"
        if not has("ServiceAccount", spec.get("serviceAccountName")):
            yield f"{owner}: its ServiceAccount {spec.get('serviceAccountName')} does not exist"
        volumes = {volume["name"] for volume in spec.get("volumes") or []}
        volumes |= {claim["metadata"]["name"] for claim in (one.get("spec") or {}).get("volumeClaimTemplates") or []}
        for volume in spec.get("volumes") or []:
            yield from (f"{owner}: volume {volume['name']} {problem}" for problem in check_volume(volume))
        for container in pods.containers(spec):
            yield from (f"{owner}: container {container['name']} {problem}" for problem in check_container(container, volumes))
            # Addresses in arguments and environment variables. Only a Service has a name without dots.
            texts = [*(container.get("args") or []), *(variable.get("value") or "" for variable in container.get("env") or [])]
            for host, port in (found for text in texts for found in ADDRESS.findall(text)):
                if host != "localhost":
                    yield from check_service(host, int(port), f"{owner}: container {container['name']}")
        selector = (one.get("spec") or {}).get("selector")
        if selector and not matches(selector, metadata.get("labels")):
            yield f"{owner}: its selector does not select its pods"
        if one["kind"] == "StatefulSet":
            yield from check_service(one["spec"]["serviceName"], None, owner)

    for name, one in existing.get("Service", {}).items():
        selected = [spec for _, metadata, spec in templates if matches({"matchLabels": one["spec"]["selector"]}, metadata.get("labels"))]
        if not selected:
            yield f"Service {name}: selects no pods"
        for spec in selected:
            container_ports = [port for container in pods.containers(spec) for port in container.get("ports") or []]
            ports = [key for port in container_ports for key in (port["containerPort"], port.get("name"))]
            for port in one["spec"]["ports"]:
                if port.get("targetPort", port["port"]) not in ports:
                    yield f"Service {name}: its pods have no port {port.get('targetPort', port['port'])}"

    for name, one in existing.get("PodDisruptionBudget", {}).items():
        if not any(matches(one["spec"]["selector"], metadata.get("labels")) for _, metadata, _ in templates):
            yield f"PodDisruptionBudget {name}: selects no pods"
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for name, one in existing.get(kind, {}).items():
            target = one["spec"]["scaleTargetRef"]
            if not has(target.get("kind", "Deployment"), target["name"]):
                yield f"{kind} {name}: scales {target['name']}, which does not exist"

    for name, one in existing.get("Ingress", {}).items():
        for path in (path for rule in one["spec"]["rules"] for path in rule["http"]["paths"]):
            backend = path["backend"]["service"]
            yield from check_service(backend["name"], backend["port"].get("name") or backend["port"].get("number"), f"Ingress {name}")
        for tls in one["spec"].get("tls") or []:
            yield from (f"Ingress {name}: {problem}" for problem in check_keys("Secret", tls["secretName"], []))
    for kind in ("HTTPRoute", "GRPCRoute"):
        for name, one in existing.get(kind, {}).items():
            for backend in (backend for rule in one["spec"]["rules"] for backend in rule.get("backendRefs") or []):
                yield from check_service(backend["name"], backend["port"], f"{kind} {name}")
            for parent in one["spec"]["parentRefs"]:
                if not has("Gateway", parent["name"]):
                    yield f"{kind} {name}: its Gateway {parent['name']} does not exist"
                gateway = existing.get("Gateway", {}).get(parent["name"])
                if gateway and parent.get("sectionName", "") not in ["", *(listener["name"] for listener in gateway["spec"]["listeners"])]:
                    yield f"{kind} {name}: the Gateway {parent['name']} has no listener {parent['sectionName']}"
    for name, one in existing.get("BackendTrafficPolicy", {}).items():
        for target in one["spec"]["targetRefs"]:
            if not has(target["kind"], target["name"]):
                yield f"BackendTrafficPolicy {name}: its target {target['name']} does not exist"
