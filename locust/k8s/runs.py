"""What `flood` and `compare` share: pods beside the release that vote through its entry, are followed to their end, and leave files.

Each pod has two containers: one that works and ends, and `files`, with the same volume, that goes on until the pod is deleted. A
container that has ended can't be asked for its files, and a log loses its beginning when it grows.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path.insert(0, str(ROOT / "dev"))

from processes import Failure, run, say, wait_until  # noqa: E402

NAMESPACE = "locust"
KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))

# Seconds in which pods have to be scheduled, their images pulled and their containers started.
STARTING = 300
# Seconds between two looks at pods.
LOOK_EVERY = 0.5
# How a container waits that will not start by waiting longer.
HOPELESS = {"ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}


def kubectl(*arguments, **options):
    """What kubectl says, of our namespace."""
    return run([*KUBECTL, f"--namespace={NAMESPACE}", *arguments], **options)


# ---- Options ----

def address(text):
    """IP[:PORT], as both."""
    try:
        parts = urlsplit(f"//{text}")
        if parts.netloc.endswith(":"):
            raise ValueError("no port")
        return str(ipaddress.ip_address(parts.hostname or "")), parts.port
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not like 192.0.2.1:30080 or [2001:db8::1]:80") from None


def host(text):
    """HOST[:PORT] of plain HTTP."""
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is not like votes.example.org or votes.example.org:8080; other than plain HTTP is not spoken")
    return text


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(64, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(description, examples):
    made = Parser(description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--address", type=address, metavar="IP[:PORT]", help="the entry's, for hosts that are not in DNS")
    made.add_argument("--votes-host", type=host, default="votes.ovation.test", metavar="HOST", help="host of the REST door (default: %(default)s)")
    made.add_argument("--grpc-host", type=host, default="grpc.ovation.test", metavar="HOST", help="host of the gRPC door (default: %(default)s)")
    made.add_argument("--image", help="the image, from where the cluster pulls it")
    made.add_argument("--keep", action="store_true", help="leave the pods, to be looked at")
    made.add_argument("--write", type=Path, metavar="DIR", help="write the manifests to a new folder for `kubectl apply -k`, and do nothing else")
    return made


class Entry:
    """Where votes go in."""

    def __init__(self, options):
        self.aliases, port = [], None
        if options.address:
            ip, port = options.address
            if ":" in options.votes_host + options.grpc_host:
                raise Failure("with --address its port is the hosts': give them without one")
            self.aliases = [{"ip": ip, "hostnames": [options.votes_host, options.grpc_host]}]
        behind = f":{port}" if port else ""
        self.votes, self.grpc = options.votes_host + behind, options.grpc_host + behind


# ---- Manifests ----

def image_named(name, text):
    """What a kustomization says to use the image REPOSITORY[:TAG][@DIGEST] instead of the named one."""
    repository, _, digest = text.partition("@")
    folder, slash, last = repository.rpartition("/")
    last, _, tag = last.partition(":")
    return {"name": name, "newName": folder + slash + last} | ({"digest": digest} if digest else {"newTag": tag} if tag else {})


def change(kind, name, to):
    """A patch: what is to be merged into an object, or a list of JSON patch operations."""
    patch = {"apiVersion": "batch/v1" if kind == "Job" else "v1", "kind": kind, "metadata": {"name": name}, **to} if isinstance(to, dict) else to
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(patch)}


def write(folder, files, patches, images):
    """Lays out a kustomization of our manifests."""
    for file in files:
        shutil.copy(FOLDER / file, folder)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": files, "patches": patches, "images": images,
    }
    Path(folder, "kustomization.yaml").write_text(json.dumps(kustomization, indent=2) + "\n")


def write_alone(options, *parts):
    """What --write asks for."""
    try:
        options.write.mkdir(parents=True)
    except FileExistsError:
        raise Failure(f"{options.write} is there already") from None
    write(options.write, *parts)
    say(f"the manifests are in {options.write}: kubectl apply -k {options.write}")


# ---- Runs ----

class Run:
    """Pods of jobs from our manifests, removed at the end. `worker` is the container that works."""

    def __init__(self, jobs, worker, keep, *parts):
        self.jobs, self.worker, self.keep = jobs, worker, keep
        with tempfile.TemporaryDirectory(prefix="ovation-locust-") as folder:
            write(folder, *parts)
            self.manifests = run([*KUBECTL, "kustomize", folder])

    def __enter__(self):
        there = kubectl("get", "jobs", "--ignore-not-found", "--output=name", *self.jobs).split()
        if there:
            raise Failure(f"{', '.join(there)} is in the cluster already; end it with: kubectl delete namespace {NAMESPACE}")
        self.is_namespace_ours = not run([*KUBECTL, "get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"])
        # So that what was made is removed, too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            kubectl("apply", "--filename=-", input=self.manifests, fails="the cluster does not take the manifests")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        if self.keep:
            say(f"kept; remove it with: kubectl delete namespace {NAMESPACE}")
        else:
            self.remove()

    def remove(self):
        ours = "---\n".join(text for text in self.manifests.split("---\n") if not re.search(r"(?m)^kind: Namespace$", text))
        kubectl("delete", "--filename=-", "--ignore-not-found", "--cascade=foreground", input=ours)
        if self.is_namespace_ours and not kubectl("get", "jobs", "--output=name"):
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")

    def pods(self):
        """The pods by their names, in the order of the jobs and their numbers."""
        found = {}
        for job in self.jobs:
            items = json.loads(kubectl("get", "pods", f"--selector=job-name={job}", "--output=json"))["items"]
            found |= {one["metadata"]["name"]: one for one in sorted(items, key=lambda one: one["metadata"]["name"])}
        return found

    def start(self, count):
        """Waits until so many pods have started; their names."""

        def states(pod):
            return [one["state"] for one in pod["status"].get("containerStatuses", [])]

        def have_started():
            self.seen = self.pods()
            for name, pod in self.seen.items():
                for state in states(pod):
                    if state.get("waiting", {}).get("reason") in HOPELESS:
                        raise Failure(f"pod {name} can't start: {state['waiting']['reason']}: {state['waiting'].get('message', '')}")
            started = [pod for pod in self.seen.values() if states(pod) and all(not {"running", "terminated"}.isdisjoint(state) for state in states(pod))]
            return len(started) == len(self.seen) == count

        if not wait_until(have_started, STARTING, every=LOOK_EVERY):
            reasons = [
                f"{name}: {one['message']}" for name, pod in self.seen.items()
                for one in pod["status"].get("conditions", []) if one["status"] != "True" and one.get("message")
            ]
            said = "\n".join(reasons) or f"see kubectl --namespace={NAMESPACE} get events"
            raise Failure(f"of {count} pods {len(self.seen)} were made, and not all have started in {STARTING} s:\n{said}")
        return list(self.seen)

    def follow(self, pod):
        """Prints what a pod's work says until it has ended. Ctrl-C ends it early, and once more leaves it at once."""
        since, told = [], False
        while not self.outcome(pod):
            try:
                subprocess.run([*KUBECTL, f"--namespace={NAMESPACE}", "logs", "--follow", f"--container={self.worker}", *since, pod], stdin=subprocess.DEVNULL)
                # The work has ended, or the connection has.
                wait_until(lambda: self.outcome(pod), 5, every=LOOK_EVERY)
            except KeyboardInterrupt:
                if told:
                    raise
                told = True
                say("ending early; once more to leave at once")
                with contextlib.suppress(Failure):
                    kubectl("exec", pod, f"--container={self.worker}", "--", "sh", "-c", "kill -INT 1")
            since = [f"--since-time={datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"]

    def outcome(self, pod):
        """How a pod's work has ended, like {"exitCode": 1, "reason": "Error"}; None if it has not."""
        status = json.loads(kubectl("get", "pod", pod, "--output=json"))["status"]
        return next((one["state"].get("terminated") for one in status.get("containerStatuses", []) if one["name"] == self.worker), None)

    def files(self, pod):
        """The files that a pod has left, by name, with their sizes."""
        said = kubectl("exec", pod, "--container=files", "--", "find", "/files", "-type", "f", "-printf", "%s %P\\n")
        return {name: int(size) for size, name in (line.split(" ", 1) for line in said.splitlines())}

    def fetch(self, pod, name, size, into):
        """A file that a pod has left. What comes through the API server may end too early without an error."""
        command = [*KUBECTL, f"--namespace={NAMESPACE}", "exec", pod, "--container=files", "--", "cat", f"/files/{name}"]
        into.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            with into.open("wb") as file:
                code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file).returncode
            if code == 0 and into.stat().st_size == size:
                return
        raise Failure(f"{name} of pod {pod} can't be fetched whole: {into.stat().st_size} of {size} bytes came")


def main(command):
    """Runs a command: its exit code, or 1 with a sentence."""
    try:
        sys.exit(command())
    except Failure as failure:
        print(f"{Path(sys.argv[0]).name}: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
