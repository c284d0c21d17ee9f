"""Creates image archives for programs, and extracts programs from image archives."""

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
    """Returns the shared libraries of a program, as path in an image -> path on this machine."""
    found = {}
    for line in run(["ldd", program]).splitlines():
        if path := re.search(r"(/\S+) \(0x", line):
            found[path[1]] = Path(path[1])
    return found


def write_archive(path, name, files, links=(), entrypoint=(), user="65532:65532"):
    """Writes an image archive with one layer, unless the archive is newer than its sources. `files` are the sources by their paths in the
    image; `links` are paths of symbolic links to the first file."""
    sources = [*files.values(), Path(__file__)]
    if path.exists() and all(path.stat().st_mtime > source.stat().st_mtime for source in sources):
        return

    def entry(name, size=0, mode=0o644, kind=tarfile.REGTYPE):
        info = tarfile.TarInfo(name.lstrip("/"))
        info.size, info.mode, info.type = size, mode, kind
        return info

    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.addfile(entry("tmp", mode=0o1777, kind=tarfile.DIRTYPE))
        users = b"root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n"
        tar.addfile(entry("etc/passwd", len(users)), io.BytesIO(users))
        for inside, source in files.items():
            with source.open("rb") as content:
                tar.addfile(entry(inside, source.stat().st_size, 0o755), content)
        for link in links:
            info = entry(link, kind=tarfile.SYMTYPE)
            info.linkname = next(iter(files))
            tar.addfile(info)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint) or [next(iter(files))], "User": user, "WorkingDir": "/", "Env": ["PATH=/usr/local/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        for inside, content in ("config.json", config), ("manifest.json", manifest):
            text = json.dumps(content).encode()
            tar.addfile(entry(inside, len(text)), io.BytesIO(text))
        tar.add(layer, "layer.tar")
    layer.unlink()
    partial.rename(path)


def extract(image, program, into):
    """Extracts a program from an image archive, unless `into` is newer than the archive."""
    if into.exists() and into.stat().st_mtime > image.stat().st_mtime:
        return
    with tarfile.open(image) as outer:
        layers = json.load(outer.extractfile("manifest.json"))[0]["Layers"]
        # A file in a later layer replaces the file of the same name in an earlier layer.
        for layer in reversed(layers):
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner, contextlib.suppress(KeyError):
                partial = into.with_suffix(".partial")
                with inner.extractfile(program.lstrip("/")) as content, partial.open("wb") as copy:
                    shutil.copyfileobj(content, copy)
                partial.chmod(0o755)
                partial.rename(into)
                return
    raise Failure(f"there is no {program} in {image}")
