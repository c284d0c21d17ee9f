"""Images as files: made for programs that have none here, and a program taken out of one."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

from processes import Failure, run


def libraries(program):
    """What a program that isn't static is loaded with, as paths in an image and here."""
    found = {}
    for line in run(["ldd", program]).splitlines():
        if path := re.search(r"(/\S+) \(0x", line):
            found[path[1]] = Path(path[1])
    return found


def archive(path, name, files, links=(), entrypoint=(), user="65532:65532"):
    """A file for containerd with an image of one layer: files by their path in it, and links to the first of them."""
    sources = [*files.values(), Path(__file__)]
    if path.exists() and all(path.stat().st_mtime > source.stat().st_mtime for source in sources):
        return

    def entry(name, size=0, mode=0o644, kind=tarfile.REGTYPE):
        made = tarfile.TarInfo(name.lstrip("/"))
        made.size, made.mode, made.type = size, mode, kind
        return made

    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.addfile(entry("tmp", mode=0o1777, kind=tarfile.DIRTYPE))
        users = b"root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n"
        tar.addfile(entry("etc/passwd", len(users)), io.BytesIO(users))
        for inside, source in files.items():
            with source.open("rb") as content:
                tar.addfile(entry(inside, source.stat().st_size, 0o755), content)
        for link in links:
            made = entry(link, kind=tarfile.SYMTYPE)
            made.linkname = next(iter(files))
            tar.addfile(made)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint) or [next(iter(files))], "User": user, "WorkingDir": "/", "Env": ["PATH=/usr/local/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    half = path.with_suffix(".half")
    with tarfile.open(half, "w") as tar:
        for inside, content in ("config.json", config), ("manifest.json", manifest):
            text = json.dumps(content).encode()
            tar.addfile(entry(inside, len(text)), io.BytesIO(text))
        tar.add(layer, "layer.tar")
    layer.unlink()
    half.rename(path)


def extract(image, program, into):
    """Takes a program out of a file with an image, unless that was done since the image was made."""
    if into.exists() and into.stat().st_mtime > image.stat().st_mtime:
        return
    with tarfile.open(image) as outer:
        layers = json.load(outer.extractfile("manifest.json"))[0]["Layers"]
        # What stands in a later layer stands over the earlier ones.
        for layer in reversed(layers):
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner, contextlib.suppress(KeyError):
                half = into.with_suffix(".half")
                with inner.extractfile(program.lstrip("/")) as content, half.open("wb") as copy:
                    shutil.copyfileobj(content, copy)
                half.chmod(0o755)
                half.rename(into)
                return
    raise Failure(f"there is no {program} in {image}")
