"""Addresses, pod ranges, the journal after a crash, which programs are used, what is missing."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from tests.rig import addresses, binaries, claims, node_config, places, sysctls
from tests.rig.errors import RigError
from tests.rig.journal import NAME, Journal, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a machine on which nothing was ever built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    binaries.forget()
    yield tmp_path
    binaries.forget()


def program(folder: Path, name: str, says: str) -> Path:
    """Write a program that prints its version and nothing else."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="ascii")
    path.chmod(0o755)
    return path


def test_every_leg_of_a_plan_is_inside_the_network_that_the_machine_routes() -> None:
    plan = addresses.Plan(octet=30)
    legs = [plan.control_plane(), plan.node(1), plan.node(200), plan.outside(), plan.host()]
    networks = [ip_network(f"{leg.gateway[0]}/24", strict=False) for leg in legs]
    assert len(set(networks)) == len(legs)
    assert all(net.subnet_of(ip_network(plan.network)) for net in networks)  # type: ignore[arg-type]
    assert [leg.address[1] for leg in legs][1] == "fd73:30:1::10"


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        pytest.param([], [{}, {}], id="no limit"),
        pytest.param(
            ["10.244.2.77"],
            [{"rangeStart": "10.244.2.77", "rangeEnd": "10.244.2.77"}, {}],
            id="one address, the other family free",
        ),
        pytest.param(
            ["10.244.2.8", "10.244.2.7", "fd73:244:0:2::7"],
            [
                {"rangeStart": "10.244.2.7", "rangeEnd": "10.244.2.8"},
                {"rangeStart": "fd73:244:0:2::7", "rangeEnd": "fd73:244:0:2::7"},
            ],
            id="two neighbours in any order, and one of the other family",
        ),
    ],
)
def test_pods_get_only_the_addresses_that_are_named(
    only: list[str], expected: list[dict[str, str]]
) -> None:
    config = node_config.pod_network(2, ipv6=True, only=only)
    ranges = [item for (item,) in config["plugins"][0]["ipam"]["ranges"]]
    assert ranges == [
        {"subnet": "10.244.2.0/24", **expected[0]},
        {"subnet": "fd73:244:0:2::/64", **expected[1]},
    ]


@pytest.mark.parametrize(
    ("only", "says"),
    [
        pytest.param(["10.244.2.7", "10.244.2.9"], "must be neighbours", id="with a gap"),
        pytest.param(["10.244.1.7"], "not in 10.244.2.0/24", id="of another node"),
    ],
)
def test_addresses_that_host_local_cannot_limit_to_are_refused(only: list[str], says: str) -> None:
    with pytest.raises(RigError, match=says):
        node_config.pod_network(2, ipv6=True, only=only)


def test_a_line_torn_by_a_crash_is_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note("netns", name="ss-x-rtr")
    journal.note("process", name="etcd", pid=7, started=8)
    with (tmp_path / NAME).open("a", encoding="ascii") as file:
        file.write('{"kind": "net')
    assert [entry["kind"] for entry in read(tmp_path)] == ["netns", "process"]
    assert journal.read("process") == [{"kind": "process", "name": "etcd", "pid": 7, "started": 8}]


def test_sysctls_are_as_before_when_the_last_cluster_goes(empty_cache: Path) -> None:
    proc = empty_cache / "sys"
    (proc / "vm").mkdir(parents=True)
    (proc / "kernel").mkdir()
    for name in sysctls.SET_BY_KUBELET:
        (proc / name).write_text("0\n", encoding="ascii")
    places.state().mkdir(parents=True)
    sysctls.remember(proc)
    (proc / "kernel/panic").write_text("10\n", encoding="ascii")  # the kubelet
    sysctls.remember(proc)  # a second cluster starts
    sysctls.restore(proc)
    assert [(proc / name).read_text().strip() for name in sysctls.SET_BY_KUBELET] == ["0"] * 3
    (proc / "kernel/panic").write_text("7\n", encoding="ascii")
    sysctls.restore(proc)
    assert (proc / "kernel/panic").read_text() == "7\n", "what is not ours is left alone"


@pytest.mark.parametrize("name", ["", "Main", "1st", "a_b", "../x", "elevenchars"])
def test_a_name_that_no_interface_can_carry_is_refused(name: str) -> None:
    with pytest.raises(RigError, match="1 to 10"):
        claims.refuse_if_used(name)


@pytest.mark.parametrize(
    ("name", "says", "used"),
    [
        pytest.param("kubelet", "Kubernetes v1.30.4", True, id="the oldest minor"),
        pytest.param("kubelet", "Kubernetes v1.29.9", False, id="too old"),
        pytest.param("kubelet", "Kubernetes v1.34.0", False, id="newer than the API server"),
        pytest.param("kubectl", "Client Version: v1.34.0", True, id="kubectl may be one ahead"),
        pytest.param("kube-proxy", "hello", False, id="not what it seems"),
        pytest.param("etcd", "etcd Version: 3.5.1", True, id="any etcd"),
    ],
)
def test_a_ready_program_is_used_if_its_version_fits(
    *, name: str, says: str, used: bool, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = program(empty_cache / "assets", name, says)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(found.parent))
    monkeypatch.setenv("PATH", "/nowhere")
    assert binaries.find(name) == (found if used else None)


def test_what_is_missing_is_said_one_line_each_before_anything_is_done(empty_cache: Path) -> None:
    command = (sys.executable, "-m", "tests.rig", "build")
    done = subprocess.run(
        command,
        cwd=places.ROOT,
        env={"PATH": "/nowhere", "XDG_CACHE_HOME": str(empty_cache), "HOME": str(empty_cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    first, *lines = done.stderr.splitlines()
    assert first == "rig: this machine lacks what the rig needs:"
    assert any(line.startswith("  nsenter, unshare") for line in lines)
    assert any(line.startswith("  Go >= 1.24 in PATH, to build") for line in lines)
    assert not any("installing" in line or "building" in line for line in lines)
