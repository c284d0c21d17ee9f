"""Checks every pod: the Pod Security Standard `restricted`, field by field, and our own rules.

Source of the rules: https://kubernetes.io/docs/concepts/security/pod-security-standards. Each function yields problems as messages.
"""

# Objects that may violate a rule, {(name of the object, rule): reason}. There are none.
EXCEPTIONS = {}

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
LISTS = ("initContainers", "containers", "ephemeralContainers")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HOOKS = ("postStart", "preStop")


def pod_templates(objects):
    """Yields each object that creates pods, with the metadata and the spec of the pods."""
    for one in objects:
        spec = one.get("spec") or {}
        if one["kind"] == "Pod":
            yield one, one["metadata"], spec
        elif one["kind"] == "CronJob":
            template = spec["jobTemplate"]["spec"]["template"]
            yield one, template.get("metadata") or {}, template["spec"]
        elif isinstance(spec, dict) and "containers" in (spec.get("template") or {}).get("spec", {}):
            template = spec["template"]
            yield one, template.get("metadata") or {}, template["spec"]


def containers(spec):
    return [container for key in LISTS for container in spec.get(key) or []]


def _value_at(one, *path):
    """Returns the value at a path of keys, or None."""
    for key in path:
        one = (one or {}).get(key)
    return one


def _restricted_pod(metadata, spec):
    """Yields the violated rules on the pod itself, each with its cause."""
    security = spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield "host namespaces", f"{key} is true"
    for volume in spec.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            yield "volume types", f"volume {volume['name']} is a {kind}"
    for sysctl in security.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield "sysctls", f"sysctl {sysctl['name']} is not safe"
    for key, value in (metadata.get("annotations") or {}).items():
        confined = value == "runtime/default" or value.startswith("localhost/")
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not confined:
            yield "AppArmor", f"{key} is {value}"


def _restricted_context(security):
    """Yields the violated rules on the securityContext of a pod or a container, each with its cause."""
    if _value_at(security, "windowsOptions", "hostProcess"):
        yield "host process", "windowsOptions.hostProcess is true"
    profile = _value_at(security, "appArmorProfile", "type")
    if profile not in (None, "RuntimeDefault", "Localhost"):
        yield "AppArmor", f"appArmorProfile is {profile}"
    options = security.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield "SELinux", f"seLinuxOptions are {options}"
    if security.get("runAsUser") == 0:
        yield "non-root user", "runAsUser is 0"
    profile = _value_at(security, "seccompProfile", "type")
    if profile not in (None, "RuntimeDefault", "Localhost"):
        yield "seccomp", f"seccompProfile is {profile}"


def _restricted_container(container, pod):
    """Yields the violated rules on a container, each with its cause. `pod` is the securityContext of its pod."""
    own = container.get("securityContext") or {}
    yield from _restricted_context(own)
    if own.get("privileged"):
        yield "privileged", "is privileged"
    if own.get("procMount", "Default") != "Default":
        yield "/proc", f"procMount is {own['procMount']}"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation", "allowPrivilegeEscalation is not false"
    # The field of the container overrides that of the pod.
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "running as non-root", "runAsNonRoot is not true"
    if not (own.get("seccompProfile") or pod.get("seccompProfile")):
        yield "seccomp", "has no seccompProfile"
    if "ALL" not in (_value_at(own, "capabilities", "drop") or []):
        yield "capabilities", "does not drop ALL"
    for name in set(_value_at(own, "capabilities", "add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities", f"adds {name}"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield "host ports", f"has hostPort {port['hostPort']}"
    handlers = {name: container.get(name) for name in PROBES} | {name: _value_at(container, "lifecycle", name) for name in HOOKS}
    for name, handler in handlers.items():
        for action in ("httpGet", "tcpSocket"):
            if _value_at(handler, action, "host"):
                yield "host probes and hooks", f"{name} names the host {handler[action]['host']}"


def _own_rules(spec):
    """Yields the violated rules of ours that are not in `restricted`, each with its cause."""
    if spec.get("automountServiceAccountToken") is not False:
        yield "token", "automountServiceAccountToken is not false"
    if spec.get("serviceAccountName", "default") == "default":
        yield "service account", "has no ServiceAccount of its own"
    for volume in spec.get("volumes") or []:
        for source in _value_at(volume, "projected", "sources") or []:
            if "serviceAccountToken" in source:
                yield "token", f"volume {volume['name']} contains a token"
    for container in containers(spec):
        name = container["name"]
        for resource in ("cpu", "memory"):
            if not _value_at(container, "resources", "requests", resource):
                yield "requests", f"container {name} requests no {resource}"
        if not _value_at(container, "securityContext", "readOnlyRootFilesystem"):
            yield "read-only root", f"container {name} has a writable root file system"


def pod_problems(objects):
    """Yields the problems of pods and of their ServiceAccounts."""
    for one, metadata, spec in pod_templates(objects):
        name = f"{one['kind']} {one['metadata']['name']}"
        pod = spec.get("securityContext") or {}
        found = [*_restricted_pod(metadata, spec), *_restricted_context(pod)]
        for container in containers(spec):
            found += [(rule, f"container {container['name']} {cause}") for rule, cause in _restricted_container(container, pod)]
        found += _own_rules(spec)
        yield from (f"{name}: {cause} ({rule})" for rule, cause in found if (one["metadata"]["name"], rule) not in EXCEPTIONS)
    for one in objects:
        if one["kind"] == "ServiceAccount" and one.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {one['metadata']['name']}: automountServiceAccountToken is not false"


def _images_in(values):
    """Yields all images in the values, which are maps with a repository."""
    for value in values.values():
        if isinstance(value, dict):
            if "repository" in value:
                yield value
            yield from _images_in(value)


def image_problems(objects, values):
    """Yields the images whose registry, repository or tag differs from the values."""
    expected = set()
    for image in _images_in(values):
        registry = image.get("registry") or values["global"]["imageRegistry"]
        expected.add((f"{registry}/" if registry else "") + f"{image['repository']}:{image['tag']}")
    for one, _, spec in pod_templates(objects):
        name = f"{one['kind']} {one['metadata']['name']}"
        for container in containers(spec):
            if container["image"] not in expected:
                yield f"{name}: container {container['name']} has the image {container['image']}, which is not in the values"
        if (spec.get("imagePullSecrets") or []) != values["imagePullSecrets"]:
            yield f"{name}: its imagePullSecrets differ from the values"


def scaling_problems(objects):
    """Yields workloads whose number of pods is set in more than one place."""
    scalers = {}
    for one in objects:
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = one["spec"]["scaleTargetRef"]
            scalers.setdefault((target.get("kind", "Deployment"), target["name"]), []).append(one["kind"])
    for (kind, name), by in scalers.items():
        if len(by) > 1:
            yield f"{kind} {name}: scaled by {' and by '.join(by)}"
    for one in objects:
        if (one["kind"], one["metadata"]["name"]) in scalers and "replicas" in one["spec"]:
            yield f"{one['kind']} {one['metadata']['name']}: has replicas, so an upgrade would override its autoscaler"
