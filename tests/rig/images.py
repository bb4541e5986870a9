"""Container images without a registry, each an archive in the cache that containerd imports.

- pause: what holds a pod's namespaces; a static busybox that sleeps.
- rig-python: Debian with Python, conntrack and iproute2, for clients and servers in tests; also
  what the operator's image is built on.
- synsweep: the operator, built from the repository's Dockerfile.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import tarfile
from pathlib import Path

from tests.rig import places
from tests.rig.commands import run
from tests.rig.errors import RigError
from tests.rig.node_config import PAUSE
from tests.rig.places import say

PYTHON = "localhost/rig-python:1"
SUITE = "bookworm"
CONTENTS = "ca-certificates,python3,python3-venv,python3-pip,conntrack,iproute2"
# Not needed to run anything; each node unpacks the rest.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What the operator's image is made of, for the cache: all that the Dockerfile copies.
SOURCES = ("Dockerfile", "pyproject.toml", "README.md", "LICENSE", "requirements", "operator")
KEPT = 4  # archives of the operator
TRUST = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


def folder() -> Path:
    """Return where the archives are kept."""
    return places.cache() / "images"


def pause() -> Path:
    """Return the archive of the pause image, made if it is not there."""
    archive = folder() / "pause.tar"
    with places.locked("images"):
        if not archive.exists():
            _make_pause(archive)
    return archive


def _make_pause(archive: Path) -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        raise RigError("busybox is missing: run `python -m tests.rig build`")
    fresh = _fresh(archive)
    layer = fresh.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(os.path.realpath(busybox), arcname="busybox", filter=_by_root)
    pack(fresh, PAUSE, layer, ["/busybox", "sleep", "2147483647"])
    layer.unlink()
    fresh.rename(archive)


def python() -> Path:
    """Return the archive of the rig-python image, made if it is not there (half a minute)."""
    wanted = hashlib.sha256(f"{SUITE} {CONTENTS} {LEFT_OUT}".encode()).hexdigest()[:12]
    archive = folder() / f"rig-python-{wanted}.tar"
    with places.locked("images"):
        if not archive.exists():
            say(f"making image {PYTHON} with mmdebstrap ({SUITE}: {CONTENTS})")
            fresh = _fresh(archive)
            layer = fresh.with_suffix(".layer")
            less = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
            run(
                *(
                    "mmdebstrap",
                    "--quiet",
                    "--format=tar",
                    "--variant=minbase",
                    f"--include={CONTENTS}",
                    *less,
                ),
                *(SUITE, str(layer)),
                timeout=900,
            )
            pack(fresh, PYTHON, layer, ["/usr/bin/python3"])
            layer.unlink()
            fresh.rename(archive)
    return archive


def operator() -> Path:
    """Return the archive of the operator's image, built if its sources have changed.

    Raises:
        RigError: the build failed; the message has the end of what it said.
    """
    base = python()
    digest = _digest_of_sources(base)
    archive = folder() / f"synsweep-{digest}.tar"
    with places.locked("images"):
        if not archive.exists():
            _build_operator(base, archive)
            by_age = sorted(folder().glob("synsweep-*.tar"), key=lambda path: path.stat().st_mtime)
            for old in by_age[:-KEPT]:  # a newer one may be in use beside ours
                old.unlink(missing_ok=True)
    return archive


def operator_reference() -> str:
    """Return the name under which the manifests find the operator's image."""
    text = (places.ROOT / "operator/synsweep/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if not found:
        raise RigError("operator/synsweep/__init__.py has no __version__")
    return f"docker.io/library/synsweep:{found[1]}"


def _build_operator(base: Path, archive: Path) -> None:
    reference = operator_reference()
    say(f"building image {reference} from the Dockerfile with buildah")
    store = places.cache() / "buildah"
    buildah = ["buildah", "--root", str(store / "storage"), "--runroot", str(store / "run")]
    buildah += ["--storage-driver", "overlay"]
    run(*buildah, "pull", "-q", f"docker-archive:{base}", timeout=300)
    # pip in the build trusts what pip on this machine trusts, and asks where it asks.
    trust = [word for path in TRUST if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]
    arguments = (f"BASE={PYTHON}", f"VERSION={reference.rpartition(':')[2]}")
    run(
        *(*buildah, "bud", "--layers", "--isolation", "chroot", "--pull-never", *trust),
        *(word for argument in arguments for word in ("--build-arg", argument)),
        *("-t", reference, "-f", str(places.ROOT / "Dockerfile"), str(places.ROOT)),
        timeout=900,
    )
    fresh = _fresh(archive)
    run(*buildah, "push", "-q", reference, f"docker-archive:{fresh}:{reference}", timeout=300)
    fresh.rename(archive)
    run(*buildah, "rmi", "--prune", "--force", check=False)  # layers of earlier builds


def _digest_of_sources(base: Path) -> str:
    digest = hashlib.sha256(base.name.encode())
    for source in SOURCES:
        path = places.ROOT / source
        if not path.exists():
            raise RigError(f"{source} is missing: the operator's image is made of it")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(places.ROOT)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def pack(archive: Path, reference: str, layer: Path, entrypoint: list[str]) -> None:
    """Write a docker archive of one layer, as `docker save` would."""
    with layer.open("rb") as file:
        diff = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
            "history": [{"created_by": "synsweep rig"}],
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": [f"{diff}/layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, name, config)
        tar.add(layer, arcname=f"{diff}/layer.tar", filter=_by_root)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _fresh(archive: Path) -> Path:
    """Return where to write what becomes `archive` when it is complete."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    return archive.with_suffix(".new")
