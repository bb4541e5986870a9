"""The Kubernetes programs: taken where they are present, else built once into the cache.

Looked for, each one separately, in the folder KUBEBUILDER_ASSETS, in PATH, and in the cache. One
found in the first two is used if it is of Kubernetes 1.30 or newer, and that is said. What is
nowhere is built with Go from the source that go.mod and go.sum pin.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

from tests.rig import places
from tests.rig.commands import run
from tests.rig.errors import RigError
from tests.rig.places import say

OLDEST = (1, 30)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
API_SERVER = ("kube-apiserver", "kubectl")
KUBERNETES = (*API_SERVER, *CONTROL_PLANE[2:], "kubelet", "kube-proxy")
VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
BUILD_WITHIN = 3600.0  # seconds: about 10 minutes on two cores, more on a slow machine


@cache
def pinned_version() -> str:
    """Return the version that go.mod names, like v1.33.13."""
    text = (places.HERE / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^require k8s\.io/kubernetes (v\S+)$", text, re.MULTILINE)
    if not found:
        raise RigError("tests/rig/go.mod does not name k8s.io/kubernetes")
    return found[1]


def folder() -> Path:
    """Return where the binaries of the pinned version are kept."""
    return places.cache() / "bin" / pinned_version()


@cache
def path(name: str) -> Path:
    """Return the path of a program.

    Raises:
        RigError: it is neither present nor built.
    """
    if found := find(name):
        return found
    raise RigError(f"{name} is missing: run `python -m tests.rig build`")


@cache
def find(name: str) -> Path | None:
    """Return a program that is there already; None if it must be installed or built."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    candidates = [Path(assets) / name] if assets else []
    if in_path := shutil.which(name):
        candidates.append(Path(in_path))
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and _is_usable(name, candidate):
            return candidate
    built = folder() / name
    return built if built.exists() else None


@cache
def _is_usable(name: str, program: Path) -> bool:
    if name not in KUBERNETES:
        return True
    argv = ("version", "--client") if name == "kubectl" else ("--version",)
    said = run(str(program), *argv, check=False)
    found = re.search(r"v(\d+)\.(\d+)\.\S+", said.stdout)
    version = (int(found[1]), int(found[2])) if found else None
    if found and version and OLDEST <= version <= _newest(name):
        say(f"using {program} ({found[0]})")
        return True
    say(f"not using {program}: {found[0] if found else 'no version'}, need {_wanted(name)}")
    return False


def _newest(name: str) -> tuple[int, int]:
    """Return the newest minor that fits: a kubelet may not be newer than its API server."""
    major, minor = pinned_version()[1:].split(".")[:2]
    ours = (int(major), int(minor))
    return (ours[0], ours[1] + 1) if name == "kubectl" else ours


def _wanted(name: str) -> str:
    newest = _newest(name)
    return f"v{OLDEST[0]}.{OLDEST[1]} to v{newest[0]}.{newest[1]}"


def forget() -> None:
    """Look again at the next question: something was installed or built."""
    find.cache_clear()
    path.cache_clear()


def missing(names: tuple[str, ...] = KUBERNETES) -> tuple[str, ...]:
    """Return those of the Kubernetes programs that must be built."""
    return tuple(name for name in names if not find(name))


def ensure(names: tuple[str, ...] = KUBERNETES) -> None:
    """Build what is missing, in one go.

    Raises:
        RigError: the build failed.
    """
    if not missing(names):
        return
    with places.locked("build"):
        forget()
        if lacking := missing(names):
            build(lacking)
            forget()


def build(names: tuple[str, ...]) -> None:
    """Build programs into the cache, telling how far it is.

    Raises:
        RigError: the compiler failed; the message has the end of what it said.
    """
    version = pinned_version()
    say(
        f"building {', '.join(names)} {version} with Go into {folder()}; "
        "once, about 10 minutes on two cores"
    )
    major, minor = version[1:].split(".")[:2]
    stamps = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    # Without these kubectl and the others say v0.0.0 and refuse each other.
    stamped = [
        f"-X {pkg}.{key}={value}" for pkg in VERSION_PACKAGES for key, value in stamps.items()
    ]
    fresh = folder().with_suffix(".new")
    fresh.mkdir(parents=True, exist_ok=True)
    argv = ["go", "build", "-v", "-buildvcs=false", "-ldflags", " ".join(["-s -w", *stamped])]
    argv += ["-o", f"{fresh}/", *(f"k8s.io/kubernetes/cmd/{name}" for name in names)]
    _run_build(argv)
    folder().mkdir(parents=True, exist_ok=True)
    for name in names:  # each appears complete or not at all
        (fresh / name).rename(folder() / name)
    fresh.rmdir()


def _run_build(argv: list[str]) -> None:
    started = said_at = time.monotonic()
    compiled = 0
    last: list[str] = []
    with subprocess.Popen(
        argv,
        cwd=places.HERE,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as compiler:
        assert compiler.stdout
        for line in compiler.stdout:
            last = [*last[-20:], line.rstrip()]
            compiled += 1
            now = time.monotonic()
            if now - said_at > 15:
                said_at = now
                say(f"  {now - started:4.0f} s, {compiled} steps done: {line.strip()[:60]}")
            if now - started > BUILD_WITHIN:
                compiler.kill()
    if compiler.returncode:
        raise RigError("the build failed:\n  " + "\n  ".join(last))
    say(f"built in {time.monotonic() - started:.0f} s")
