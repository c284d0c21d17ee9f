"""The common code of `flood` and `compare`. It creates pods that vote through the entry, follows them until they end, and fetches their files.

Each pod has two containers with the same volume: a worker, which votes and ends, and `files`, which runs until the pod is deleted. Files can't be
fetched from a container that has ended. The log of a container can't replace the files, because Kubernetes removes its beginning when it grows.
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

from processes import Failure, print_progress, run, wait_until  # noqa: E402

NAMESPACE = "locust"
KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))

# Seconds in which all pods must start, including scheduling and pulling of images.
START_TIMEOUT = 300
# Seconds between two queries of a pod.
POLL_INTERVAL = 0.5
# If a container waits for one of these reasons, it will not start.
FATAL_REASONS = {"ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}


def kubectl(*arguments, **options):
    """Runs kubectl in our namespace and returns its output."""
    return run([*KUBECTL, f"--namespace={NAMESPACE}", *arguments], **options)


# ---- Options ----

def address(text):
    """Parses IP[:PORT] into an address and a port or None."""
    try:
        parts = urlsplit(f"//{text}")
        if parts.netloc.endswith(":"):
            raise ValueError("no port")
        return str(ipaddress.ip_address(parts.hostname or "")), parts.port
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not an address like 192.0.2.1:30080 or [2001:db8::1]:80") from None


def host(text):
    """Checks that the text is HOST[:PORT], for HTTP without TLS."""
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is not a host like votes.example.org or votes.example.org:8080; only plain HTTP is supported")
    return text


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(64, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(description, examples):
    options = Parser(description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--address", type=address, metavar="IP[:PORT]", help="the entry's address, for hosts that are not in DNS")
    options.add_argument("--votes-host", type=host, default="votes.ovation.test", metavar="HOST", help="host of the REST producer (default: %(default)s)")
    options.add_argument("--grpc-host", type=host, default="grpc.ovation.test", metavar="HOST", help="host of the gRPC producer (default: %(default)s)")
    options.add_argument("--image", help="the image, by the name under which the cluster pulls it")
    options.add_argument("--keep", action="store_true", help="keep the pods")
    options.add_argument("--write", type=Path, metavar="DIR", help="write the manifests to a new folder for `kubectl apply -k`, and exit")
    return options


class Entry:
    """The addresses to which votes are sent."""

    def __init__(self, options):
        self.aliases, port = [], None
        if options.address:
            ip, port = options.address
            if ":" in options.votes_host + options.grpc_host:
                raise Failure("with --address, give the hosts without a port: that of the address applies")
            self.aliases = [{"ip": ip, "hostnames": [options.votes_host, options.grpc_host]}]
        suffix = f":{port}" if port else ""
        self.votes, self.grpc = options.votes_host + suffix, options.grpc_host + suffix


# ---- Manifests ----

def image_named(name, text):
    """Returns the entry of a kustomization that replaces the named image by REPOSITORY[:TAG][@DIGEST]."""
    repository, _, digest = text.partition("@")
    folder, slash, last = repository.rpartition("/")
    last, _, tag = last.partition(":")
    return {"name": name, "newName": folder + slash + last} | ({"digest": digest} if digest else {"newTag": tag} if tag else {})


def change(kind, name, to):
    """Returns a patch of an object. `to` is a dictionary that is merged into the object, or a list of JSON patch operations."""
    patch = {"apiVersion": "batch/v1" if kind == "Job" else "v1", "kind": kind, "metadata": {"name": name}, **to} if isinstance(to, dict) else to
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(patch)}


def write(folder, files, patches, images):
    """Writes a kustomization of our manifests to a folder."""
    for file in files:
        shutil.copy(FOLDER / file, folder)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": files, "patches": patches, "images": images,
    }
    Path(folder, "kustomization.yaml").write_text(json.dumps(kustomization, indent=2) + "\n")


def write_alone(options, *parts):
    """Writes the manifests to a new folder: the option --write."""
    try:
        options.write.mkdir(parents=True)
    except FileExistsError:
        raise Failure(f"{options.write} exists already") from None
    write(options.write, *parts)
    print_progress(f"the manifests are in {options.write}: kubectl apply -k {options.write}")


# ---- Runs ----

class Run:
    """The jobs of our manifests and their pods, which are removed at the end. `worker` is the name of the container that works."""

    def __init__(self, jobs, worker, keep, *parts):
        self.jobs, self.worker, self.keep = jobs, worker, keep
        with tempfile.TemporaryDirectory(prefix="ovation-locust-") as folder:
            write(folder, *parts)
            self.manifests = run([*KUBECTL, "kustomize", folder])

    def __enter__(self):
        existing = kubectl("get", "jobs", "--ignore-not-found", "--output=name", *self.jobs).split()
        if existing:
            raise Failure(f"{', '.join(existing)} exists in the cluster already; remove it with: kubectl delete namespace {NAMESPACE}")
        self.is_namespace_ours = not run([*KUBECTL, "get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"])
        # Exit through `__exit__`, which removes what was created.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            kubectl("apply", "--filename=-", input=self.manifests, fails="the cluster refuses the manifests")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        if self.keep:
            print_progress(f"the pods are kept; remove them with: kubectl delete namespace {NAMESPACE}")
        else:
            self.remove()

    def remove(self):
        ours = "---\n".join(text for text in self.manifests.split("---\n") if not re.search(r"(?m)^kind: Namespace$", text))
        kubectl("delete", "--filename=-", "--ignore-not-found", "--cascade=foreground", input=ours)
        if self.is_namespace_ours and not kubectl("get", "jobs", "--output=name"):
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")

    def pods(self):
        """Returns the pods by name, in the order of the jobs, and by index within a job."""
        found = {}
        for job in self.jobs:
            items = json.loads(kubectl("get", "pods", f"--selector=job-name={job}", "--output=json"))["items"]
            found |= {one["metadata"]["name"]: one for one in sorted(items, key=lambda one: one["metadata"]["name"])}
        return found

    def start(self, count):
        """Waits until `count` pods have started, and returns their names."""

        def states(pod):
            return [one["state"] for one in pod["status"].get("containerStatuses", [])]

        def have_started():
            self.seen = self.pods()
            for name, pod in self.seen.items():
                for state in states(pod):
                    if state.get("waiting", {}).get("reason") in FATAL_REASONS:
                        raise Failure(f"pod {name} can't start: {state['waiting']['reason']}: {state['waiting'].get('message', '')}")
            started = [pod for pod in self.seen.values() if states(pod) and all(not {"running", "terminated"}.isdisjoint(state) for state in states(pod))]
            return len(started) == len(self.seen) == count

        if not wait_until(have_started, START_TIMEOUT, interval=POLL_INTERVAL):
            reasons = [
                f"{name}: {one['message']}" for name, pod in self.seen.items()
                for one in pod["status"].get("conditions", []) if one["status"] != "True" and one.get("message")
            ]
            output = "\n".join(reasons) or f"see kubectl --namespace={NAMESPACE} get events"
            raise Failure(f"not all of {count} pods started within {START_TIMEOUT} s; {len(self.seen)} were created:\n{output}")
        return list(self.seen)

    def follow(self, pod):
        """Prints the log of a pod's worker until the worker has ended. Ctrl-C interrupts the worker; a second Ctrl-C ends this command at once."""
        since, is_interrupted = [], False
        while not self.outcome(pod):
            try:
                subprocess.run([*KUBECTL, f"--namespace={NAMESPACE}", "logs", "--follow", f"--container={self.worker}", *since, pod], stdin=subprocess.DEVNULL)
                # Either the worker has ended or the connection was lost.
                wait_until(lambda: self.outcome(pod), 5, interval=POLL_INTERVAL)
            except KeyboardInterrupt:
                if is_interrupted:
                    raise
                is_interrupted = True
                print_progress("ending early; press Ctrl-C again to exit at once")
                with contextlib.suppress(Failure):
                    kubectl("exec", pod, f"--container={self.worker}", "--", "sh", "-c", "kill -INT 1")
            since = [f"--since-time={datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"]

    def outcome(self, pod):
        """Returns the termination state of a pod's worker, like {"exitCode": 1, "reason": "Error"}, or None while it runs."""
        status = json.loads(kubectl("get", "pod", pod, "--output=json"))["status"]
        return next((one["state"].get("terminated") for one in status.get("containerStatuses", []) if one["name"] == self.worker), None)

    def files(self, pod):
        """Returns the files of a pod: name -> size in bytes."""
        output = kubectl("exec", pod, "--container=files", "--", "find", "/files", "-type", "f", "-printf", "%s %P\\n")
        return {name: int(size) for size, name in (line.split(" ", 1) for line in output.splitlines())}

    def fetch(self, pod, name, size, into):
        """Fetches a file of a pod, with up to three tries, because a stream through the API server may end early without an error."""
        command = [*KUBECTL, f"--namespace={NAMESPACE}", "exec", pod, "--container=files", "--", "cat", f"/files/{name}"]
        into.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            with into.open("wb") as file:
                code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file).returncode
            if code == 0 and into.stat().st_size == size:
                return
        raise Failure(f"{name} of pod {pod} can't be fetched completely: {into.stat().st_size} of {size} bytes arrived")


def main(command):
    """Runs a command and exits with its exit code, or with 1 and a message after a Failure."""
    try:
        sys.exit(command())
    except Failure as failure:
        print(f"{Path(sys.argv[0]).name}: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
