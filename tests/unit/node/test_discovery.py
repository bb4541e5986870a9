"""What this node is, asked of a real kube-proxy endpoint and told from Node bodies."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.node.discovery import (
    KubeProxyMode,
    WrongNode,
    boot_id,
    check_identity,
    kernel_version,
    kube_proxy_mode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = frozenset({ip_address("172.30.1.10"), ip_address("fd00::1")})


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """Answer one connection with these bytes; None: never answer at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                if answer is not None:
                    connection.sendall(answer)

        if answer is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        pytest.param(ok(b"iptables"), KubeProxyMode.IPTABLES, id="iptables"),
        pytest.param(ok(b"nftables"), KubeProxyMode.NFTABLES, id="nftables"),
        pytest.param(ok(b"ipvs\n"), KubeProxyMode.IPVS, id="ipvs"),
        pytest.param(ok(b"kernelspace"), KubeProxyMode.UNKNOWN, id="a mode that we do not know"),
        pytest.param(ok(b""), KubeProxyMode.UNKNOWN, id="nothing"),
        pytest.param(b"garbage\r\n\r\n", KubeProxyMode.UNKNOWN, id="no HTTP"),
        pytest.param(b"", KubeProxyMode.UNKNOWN, id="the connection is closed"),
        pytest.param(None, KubeProxyMode.UNKNOWN, id="no answer in time"),
    ],
)
def test_the_mode_is_what_kube_proxy_says(answer: bytes | None, mode: KubeProxyMode) -> None:
    with answering(answer) as address:
        assert kube_proxy_mode(address, timeout=0.3) is mode


def test_no_kube_proxy_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert kube_proxy_mode(address) is KubeProxyMode.UNKNOWN


def test_only_a_datapath_that_is_known_not_to_be_dnat_is_unsupported() -> None:
    unsupported = {mode for mode in KubeProxyMode if not mode.supported}
    assert unsupported == {KubeProxyMode.IPVS, KubeProxyMode.EBPF}


def node(*addresses: str, boot: str = "another") -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    listed.append({"type": "Hostname", "address": "node1"})
    return {
        "metadata": {"name": "node1"},
        "status": {"addresses": listed, "nodeInfo": {"bootID": boot}},
    }


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(node("172.30.1.10"), id="its address is here"),
        pytest.param(node("10.9.9.9", "fd00:0::1"), id="one of its addresses is here"),
        pytest.param(node(), id="it has no address yet"),
        pytest.param(node("not-an-address"), id="what is no address is passed over"),
        pytest.param({"metadata": {"name": "node1"}}, id="it has no status yet"),
    ],
)
def test_this_is_the_node(body: dict[str, Any]) -> None:
    assert check_identity(body, local_addresses=HERE, boot_id="mine") is None


def test_the_same_boot_with_other_addresses_is_only_said() -> None:
    said = check_identity(node("10.9.9.9", boot="mine"), local_addresses=HERE, boot_id="mine")
    assert said == "none of the addresses of Node node1 (10.9.9.9) is on this machine"


@pytest.mark.parametrize("boot", ["mine", ""])
def test_another_machine_is_refused(boot: str) -> None:
    with pytest.raises(WrongNode, match="--node-name names another node"):
        check_identity(node("10.9.9.9", boot=""), local_addresses=HERE, boot_id=boot)


def test_this_machine_tells_its_kernel_and_boot() -> None:
    assert kernel_version()[0].isdigit()
    assert len(boot_id()) == 36
