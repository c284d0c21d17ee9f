"""Generates the JSON schemas by which kubeconform checks the chart's manifests: for Kubernetes' own kinds in several versions, and for
the kinds of CRDs. They are strict: they allow no unknown fields.

  schemas.py TOOLS INTO      TOOLS is the folder with controller-gen, which dev/install builds

The schemas do not include the CEL rules of CRDs, nor the checks that only the API server can do.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent

# The package kubernetes-validate has the schemas for these versions of Kubernetes. It is downloaded and read, not installed.
KUBERNETES, VERSIONS = "kubernetes-validate==1.37.0", ("1.35", "1.36", "1.37")

# Modules with CRDs, and the folder of the CRDs in each. Go's checksum database verifies them. They are not in our go.mod, because their
# requirements would change the versions of the tools there.
CRDS = {
    "sigs.k8s.io/gateway-api@v1.6.1": "config/crd/standard",
    "github.com/kedacore/keda/v2@v2.20.2": "config/crd/bases",
    "github.com/envoyproxy/gateway@v1.9.1": "charts/gateway-helm/charts/crds/crds/generated",
}
# Prometheus Operator's CRDs are generated from its Go types, as the operator does it, since the module of the types has no CRDs.
TYPES = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"


def inlined(schema, definitions, within=()):
    """Returns the schema with each reference replaced by its definition, since kubeconform can't resolve references. A recursive
    reference, such as in the definition of a JSON schema, becomes the schema that allows anything."""
    if isinstance(schema, list):
        return [inlined(one, definitions, within) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].rsplit("/", 1)[1]
        return {} if name in within else inlined(definitions[name], definitions, (*within, name))
    return {
        key: inlined(value, definitions, within) for key, value in schema.items()
        if not key.startswith("x-kubernetes") and not (key == "description" and isinstance(value, str)) and (key, value) != ("required", [])
    }


def kubernetes(wheel, into):
    with zipfile.ZipFile(wheel) as package:
        for version in VERSIONS:
            folder = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/"
            definitions = json.loads(package.read(folder + "_definitions.json"))["$defs"]
            into.joinpath(version).mkdir(parents=True)
            for name in package.namelist():
                file = name.removeprefix(folder)
                if file == name or file.startswith(("_", "all")):
                    continue
                schema = json.loads(package.read(name))
                if "kind" in schema.get("properties", {}):
                    into.joinpath(version, file).write_text(json.dumps(inlined(schema, definitions)))


def closed(schema):
    """Returns a CRD's schema as plain JSON schema that allows no unknown properties."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes") and key not in ("description", "nullable")}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        result["properties"] = {name: closed(one) for name, one in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") else result


def crds(files, into):
    into.mkdir(parents=True)
    for crd in (one for file in files for one in yaml.load_all(file.read_text(), yaml.CSafeLoader)):
        if not crd or crd["kind"] != "CustomResourceDefinition":
            continue
        group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"] |= {
                "apiVersion": {"type": "string", "enum": [f"{group}/{version['name']}"]},
                "kind": {"type": "string", "enum": [kind]},
                "metadata": {"type": "object"},
            }
            # The file name by which kubeconform looks for it.
            into.joinpath(f"{kind.lower()}-{group.split('.')[0]}-{version['name']}.json").write_text(json.dumps(closed(schema)))


def main(tools, into):
    into = Path(into)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, KUBERNETES], check=True)
        kubernetes(next(Path(folder).glob("*.whl")), into)

        files = []
        for module, under in CRDS.items():
            output = subprocess.run(["go", "mod", "download", "-json", module], check=True, stdout=subprocess.PIPE, cwd=folder).stdout
            files += Path(json.loads(output)["Dir"], under).glob("*.yaml")
        generate = [Path(tools).resolve() / "controller-gen", "crd:ignoreUnexportedFields=true,maxDescLen=0", f"paths={TYPES}"]
        subprocess.run([*generate, f"output:crd:dir={folder}/generated"], check=True, cwd=HERE, env=os.environ | {"GOFLAGS": "-mod=readonly"})
        crds([*files, *Path(folder, "generated").glob("*.yaml")], into / "crds")


main(*sys.argv[1:])
