"""What helm/check wants of every pod: the Pod Security Standard `restricted`, field by field as
https://kubernetes.io/docs/concepts/security/pod-security-standards has it, and what we want beyond it.

A finding is a sentence with the pod's name in it; none means all is well.
"""

# What may break a rule, as {(object's name, rule): reason}. Nothing does.
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


def templates(objects):
    """Of every object that makes pods: the object, and the pods' metadata and spec."""
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


def _of(one, *path):
    """What is at a path of keys, or None."""
    for key in path:
        one = (one or {}).get(key)
    return one


def _restricted_pod(metadata, spec):
    """The rules on the pod as a whole that are broken, with what breaks them."""
    security = spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield "host namespaces", f"{key} is true"
    for volume in spec.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            yield "volume types", f"volume {volume['name']} is a {kind}"
    for sysctl in security.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield "sysctls", f"sysctl {sysctl['name']} is not a safe one"
    for key, value in (metadata.get("annotations") or {}).items():
        confined = value == "runtime/default" or value.startswith("localhost/")
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not confined:
            yield "AppArmor", f"{key} is {value}"


def _restricted_context(security):
    """The rules on a securityContext, of a pod or a container, that are broken."""
    if _of(security, "windowsOptions", "hostProcess"):
        yield "host process", "windowsOptions.hostProcess is true"
    profile = _of(security, "appArmorProfile", "type")
    if profile not in (None, "RuntimeDefault", "Localhost"):
        yield "AppArmor", f"appArmorProfile is {profile}"
    options = security.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield "SELinux", f"seLinuxOptions are {options}"
    if security.get("runAsUser") == 0:
        yield "non-root user", "runAsUser is 0"
    profile = _of(security, "seccompProfile", "type")
    if profile not in (None, "RuntimeDefault", "Localhost"):
        yield "seccomp", f"seccompProfile is {profile}"


def _restricted_container(container, pod):
    """The rules on a container, in a pod with that securityContext, that are broken."""
    own = container.get("securityContext") or {}
    yield from _restricted_context(own)
    if own.get("privileged"):
        yield "privileged", "is privileged"
    if own.get("procMount", "Default") != "Default":
        yield "/proc", f"procMount is {own['procMount']}"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation", "allowPrivilegeEscalation is not false"
    # A container's word stands over the pod's.
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "running as non-root", "runAsNonRoot is not true"
    if not (own.get("seccompProfile") or pod.get("seccompProfile")):
        yield "seccomp", "has no seccompProfile"
    if "ALL" not in (_of(own, "capabilities", "drop") or []):
        yield "capabilities", "does not drop ALL"
    for name in set(_of(own, "capabilities", "add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities", f"adds {name}"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield "host ports", f"has hostPort {port['hostPort']}"
    handlers = {name: container.get(name) for name in PROBES} | {name: _of(container, "lifecycle", name) for name in HOOKS}
    for name, handler in handlers.items():
        for action in ("httpGet", "tcpSocket"):
            if _of(handler, action, "host"):
                yield "host probes and hooks", f"{name} names the host {handler[action]['host']}"


def _beyond(spec):
    """What we want of pods beyond `restricted`."""
    if spec.get("automountServiceAccountToken") is not False:
        yield "token", "automountServiceAccountToken is not false"
    if spec.get("serviceAccountName", "default") == "default":
        yield "service account", "has no ServiceAccount of its own"
    for volume in spec.get("volumes") or []:
        for source in _of(volume, "projected", "sources") or []:
            if "serviceAccountToken" in source:
                yield "token", f"volume {volume['name']} has a token"
    for container in containers(spec):
        name = container["name"]
        for resource in ("cpu", "memory"):
            if not _of(container, "resources", "requests", resource):
                yield "requests", f"container {name} requests no {resource}"
        if not _of(container, "securityContext", "readOnlyRootFilesystem"):
            yield "read-only root", f"container {name} may write to its root"


def pods(objects):
    """What is wrong with the pods, and with the accounts that they run under."""
    for one, metadata, spec in templates(objects):
        name = f"{one['kind']} {one['metadata']['name']}"
        pod = spec.get("securityContext") or {}
        found = [*_restricted_pod(metadata, spec), *_restricted_context(pod)]
        for container in containers(spec):
            found += [(rule, f"container {container['name']} {what}") for rule, what in _restricted_container(container, pod)]
        found += _beyond(spec)
        yield from (f"{name}: {what} ({rule})" for rule, what in found if (one["metadata"]["name"], rule) not in EXCEPTIONS)
    for one in objects:
        if one["kind"] == "ServiceAccount" and one.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {one['metadata']['name']}: automountServiceAccountToken is not false"


def _images(values):
    """All images in the values, as maps with a repository."""
    for value in values.values():
        if isinstance(value, dict):
            if "repository" in value:
                yield value
            yield from _images(value)


def images(objects, values):
    """What is wrong with the images: each is to be one that values name, from the registry that they name, with the tag."""
    expected = set()
    for image in _images(values):
        registry = image.get("registry") or values["global"]["imageRegistry"]
        expected.add((f"{registry}/" if registry else "") + f"{image['repository']}:{image['tag']}")
    for one, _, spec in templates(objects):
        name = f"{one['kind']} {one['metadata']['name']}"
        for container in containers(spec):
            if container["image"] not in expected:
                yield f"{name}: container {container['name']} has the image {container['image']}, which values don't name"
        if (spec.get("imagePullSecrets") or []) != values["imagePullSecrets"]:
            yield f"{name}: its imagePullSecrets are not those of the values"


def scaling(objects):
    """What is wrong with how pods are scaled: one thing at most decides on their number."""
    deciding = {}
    for one in objects:
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = one["spec"]["scaleTargetRef"]
            deciding.setdefault((target.get("kind", "Deployment"), target["name"]), []).append(one["kind"])
    for (kind, name), by in deciding.items():
        if len(by) > 1:
            yield f"{kind} {name}: scaled by {' and by '.join(by)}"
    for one in objects:
        if (one["kind"], one["metadata"]["name"]) in deciding and "replicas" in one["spec"]:
            yield f"{one['kind']} {one['metadata']['name']}: has replicas, which an upgrade would set while something scales it"
