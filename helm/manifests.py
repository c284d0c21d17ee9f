"""The manifests under k8s/, for people without Helm: what the chart renders, in files by component. `k8s/base` is what values.yaml
gives, and an overlay is what one of the files of values changes in it, so that nothing is said twice: patches, and what is new."""

import copy
import re
import sys

import yaml

import matrix

SETS = {
    "k8s/base": (),
    "k8s/overlays/local": (matrix.CHART / "values-local.yaml",),
    "k8s/overlays/gke": (matrix.CHART / "values-gke.yaml",),
}
# Helm makes the Secret once, with random values, which a file can't.
CHOSEN = {"secret.existing": "ovation"}
# As README.md has people make it.
SECRET = {
    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ovation"},
    "data": dict.fromkeys(("voter-secret", "read-token", "redis-password", "mongodb-password", "grafana-password"), ""),
}
NAMESPACE = {
    "apiVersion": "v1", "kind": "Namespace",
    "metadata": {"name": matrix.NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
# The commands of locust/k8s, with options that change something everywhere.
AT = ("--address", "192.0.2.1:30080")
FLOODS = {
    "locust/k8s/flood": ("locust/k8s/flood",),
    "locust/k8s/flood, with more": ("locust/k8s/flood", *AT, "--workers", "5", "--page", "--set", "LOCUST_REST_WEIGHT=3"),
    "locust/k8s/compare": ("locust/k8s/compare",),
    "locust/k8s/compare, with more": ("locust/k8s/compare", *AT, "--", "--rates", "500,max"),
}
FLOODS_NAMESPACE = "locust"
VERSION = matrix.load(matrix.CHART / "Chart.yaml")["appVersion"]
# As values name images: both are of the release that the chart installs.
FLOODING = {
    "global": {"imageRegistry": ""}, "imagePullSecrets": [],
    **{name: {"repository": name, "tag": VERSION} for name in ("ovation", "ovation-locust")},
}
MADE = "# Made by k8s/render from helm/ovation: change that.\n"
# A ConfigMap larger than this has a file of its own.
LARGE = 32 * 1024

# How Kubernetes tells the members of a list apart when it merges a patch; other lists are replaced as a whole. These are the lists
# that the chart's values change, and none of a kind that a CRD brings: their lists are never merged.
PODS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath",
    "ports": "containerPort", "topologySpreadConstraints": "topologyKey",
}
KEYS = {"Deployment": PODS, "StatefulSet": PODS, "CronJob": PODS, "Service": {"ports": "port"}}


class Dumper(yaml.SafeDumper):
    """YAML as people write it: texts of several lines as they are, and lists set in."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def dump(one):
    return yaml.dump(one, Dumper=Dumper, sort_keys=False, width=130)


def values(files):
    """The values that a set is made from."""
    row = matrix.Row("", CHOSEN, files)
    matrix.render(row)
    return row.values


def name_of(one):
    return f"{one['kind']} {one['metadata']['name']}"


def test_on_demand(pod):
    """`helm test`'s pod as a CronJob that never runs: `kubectl create job --from=cronjob/ovation-test` runs it."""
    metadata = copy.deepcopy(pod["metadata"])
    metadata.pop("annotations")
    return {
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
        "spec": {
            "schedule": "0 0 1 1 *", "suspend": True,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod["spec"]}}},
        },
    }


def rendered(files):
    """The objects of a set by their names, each beside its text."""
    done = matrix.template(CHOSEN, files)
    if done.returncode:
        sys.exit(f"k8s/render: {done.stderr}")
    found = {name_of(NAMESPACE): (NAMESPACE, dump(NAMESPACE))}
    # Helm's own marks: where a text is from, and that Helm manages it.
    text = re.sub(r"(?m)^(# Source: .*|\s+app\.kubernetes\.io/managed-by: Helm)\n", "", done.stdout)
    for one, text in matrix.documents(text):
        if one["kind"] == "Pod":
            one = test_on_demand(one)
            text = "# Casts a vote over each door and sees it counted, when it is told to: see ../README.md.\n" + dump(one)
        found[name_of(one)] = one, text
    return found


def component(one):
    return one["metadata"]["labels"].get("app.kubernetes.io/component", one["kind"].lower())


def file_of(one, text):
    return f"{one['metadata']['name'] if one['kind'] == 'ConfigMap' and len(text) > LARGE else component(one)}.yaml"


def grouped(found):
    """Texts of objects, by the files that they belong in."""
    files = {}
    for one, text in found:
        files.setdefault(file_of(one, text), []).append(text)
    return {file: MADE + "---\n".join(texts) for file, texts in sorted(files.items())}


def change(under, wanted, kind, key=None):
    """What a strategic merge patch says to make one of the other, or None if nothing."""
    if isinstance(under, dict) and isinstance(wanted, dict):
        changes = {name: None for name in under if name not in wanted}
        for name, value in wanted.items():
            if name not in under:
                changes[name] = value
            elif (changed := change(under[name], value, kind, name)) is not None:
                changes[name] = changed
        return changes or None
    if under == wanted:
        return None
    by = KEYS.get(kind, {}).get(key)
    if not by or not all(isinstance(one, dict) for one in under + wanted):
        return wanted
    if [one[by] for one in under] != [one[by] for one in wanted[:len(under)]]:
        return [*wanted, {"$patch": "replace"}]
    changed = [(one[by], change(one, other, kind)) for one, other in zip(under, wanted)]
    new = wanted[len(under):]
    # A member that a patch names comes before those that it doesn't, and variables are set in order: so all up to the last.
    last = len(under) if new else 1 + max(number for number, (_, each) in enumerate(changed) if each is not None)
    return [*({by: name, **(each or {})} for name, each in changed[:last]), *new]


def about(one):
    return {key: one[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": one["metadata"]["name"]}}


def patches(base, wanted):
    """What makes the base's objects that stay the wanted ones: each with its patch."""
    for name, (one, _) in base.items():
        if name in wanted and (changed := change(one, wanted[name][0], one["kind"])):
            yield one, dump({**about(one), **changed, "metadata": about(one)["metadata"] | changed.get("metadata", {})})


def deletions(base, wanted):
    """What takes away the base's objects that go. Each is a patch of its own: kubectl 1.32 fails on several in a file."""
    yield from ({"patch": dump({**about(one), "$patch": "delete"})} for name, (one, _) in base.items() if name not in wanted)


def kustomization(**parts):
    return MADE + dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **parts})


def tree():
    """All files that are made, by their paths under the repository."""
    files, base = {}, {}
    for place, chosen in SETS.items():
        found = rendered(chosen)
        if place == "k8s/base":
            base = found
            texts = grouped(found.values())
            files |= {f"{place}/{name}": text for name, text in texts.items()}
            files[f"{place}/kustomization.yaml"] = kustomization(namespace=matrix.NAMESPACE, resources=list(texts))
            continue
        new = grouped(one for name, one in found.items() if name not in base)
        changed = grouped(patches(base, found))
        files |= {f"{place}/{name}": text for name, text in new.items()}
        files |= {f"{place}/patches/{name}": text for name, text in changed.items()}
        files[f"{place}/kustomization.yaml"] = kustomization(
            namespace=matrix.NAMESPACE, resources=["../../base", *new],
            patches=[*deletions(base, found), *({"path": f"patches/{name}"} for name in changed)],
        )
    return files


def expected(files):
    """The objects that a set is to build."""
    for one, _ in rendered(files).values():
        one = copy.deepcopy(one)
        if one["kind"] != "Namespace":
            one["metadata"]["namespace"] = matrix.NAMESPACE
        yield one


def differences(ones, others):
    """In what the objects that were built differ from those that are expected."""
    ones, others = ({name_of(one): one for one in many} for many in (ones, others))
    yield from (f"{name} is built, and Helm installs none" for name in ones.keys() - others.keys())
    yield from (f"{name} is not built, and Helm installs one" for name in others.keys() - ones.keys())
    for name in ones.keys() & others.keys():
        if ones[name] != others[name]:
            yield f"{name} is not what Helm installs: {dump(change(others[name], ones[name], ''))}"
