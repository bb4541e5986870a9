"""What this node is: kube-proxy's mode, its kernel, and whether it is the Node that was named."""

from __future__ import annotations

import http.client
import logging
import math
import os
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synsweep.conntrack.table import ConntrackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from synsweep.core.flow import IPAddress

logger = logging.getLogger(__name__)

KUBE_PROXY = "127.0.0.1:10249"  # where kube-proxy serves /proxyMode by default
PROXY_MODE_TIMEOUT = 1.0  # seconds
REFRESHED_EVERY = 30.0  # seconds
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KubeProxyMode(StrEnum):
    """How Services reach their backends on this node; the words of ConntrackNode.status."""

    IPTABLES = "IPTables"
    NFTABLES = "NFTables"
    IPVS = "IPVS"
    EBPF = "EBPF"
    UNKNOWN = "Unknown"  # kube-proxy restarts, or listens elsewhere

    @property
    def supported(self) -> bool:
        """Whether Services are DNAT in conntrack here; what is unknown may well be."""
        return self not in (KubeProxyMode.IPVS, KubeProxyMode.EBPF)


class WrongNode(Exception):
    """The Node that was named is not this machine, or is not there at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What ConntrackNode.status says about this node itself."""

    kernel: str
    kube_proxy_mode: KubeProxyMode
    sysctls: Mapping[str, int]  # by the kernel's names
    addresses: tuple[str, ...]  # reachable from other nodes


class Datapath:
    """What this node is, read again now and then. `facts` may be read from any thread.

    Args:
        mode: asks for kube-proxy's mode.
        sysctls: reads the kernel's settings.
        addresses: reads the addresses of this machine.

    Raises:
        ConntrackError: the addresses cannot be read.
    """

    def __init__(
        self,
        *,
        mode: Callable[[], KubeProxyMode],
        sysctls: Callable[[], Mapping[str, int]],
        addresses: Callable[[], frozenset[IPAddress]],
    ) -> None:
        self.local_addresses = addresses
        self.boot_id = boot_id()
        self._mode = mode
        self._sysctls = sysctls
        self._read_at = -math.inf
        self.facts = self._read()

    @property
    def supported(self) -> bool:
        """Whether Services are DNAT in conntrack here."""
        return self.facts.kube_proxy_mode.supported

    def refresh(self, *, now: float) -> bool:
        """Read it all again if that was a while ago; returns whether kube-proxy's mode changed."""
        if now < self._read_at + REFRESHED_EVERY:
            return False
        self._read_at = now
        before = self.facts
        try:
            self.facts = self._read()
        except ConntrackError as error:
            logger.warning("what this node is could not be read again: %s", error)
        changed = before.kube_proxy_mode is not self.facts.kube_proxy_mode
        if changed:
            logger.info("kube-proxy's mode is %s now", self.facts.kube_proxy_mode.value)
        return changed

    def _read(self) -> NodeFacts:
        return NodeFacts(
            kernel=kernel_version(),
            kube_proxy_mode=self._mode(),
            sysctls=self._sysctls(),
            addresses=tuple(
                str(address)
                for address in sorted(
                    filter(_is_reachable, self.local_addresses()),
                    key=lambda address: (address.version, int(address)),
                )
            ),
        )


_MODES = {
    b"iptables": KubeProxyMode.IPTABLES,
    b"nftables": KubeProxyMode.NFTABLES,
    b"ipvs": KubeProxyMode.IPVS,
}


def kube_proxy_mode(
    address: str = KUBE_PROXY, *, timeout: float = PROXY_MODE_TIMEOUT
) -> KubeProxyMode:
    """Ask kube-proxy for its mode; UNKNOWN when it does not answer within `timeout` seconds.

    No proxy of the environment is ever asked: the question is for this node alone.
    """
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", "/proxyMode")
        answer = connection.getresponse()
        word = answer.read(16).strip().lower()
    except (OSError, http.client.HTTPException):
        return KubeProxyMode.UNKNOWN
    finally:
        connection.close()
    return _MODES.get(word, KubeProxyMode.UNKNOWN)


def kernel_version() -> str:
    """The running kernel's release, as `uname -r` says it."""
    return os.uname().release


def boot_id() -> str:
    """This boot of this machine, the same inside every container; "" where it cannot be read."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def check_identity(
    node: Mapping[str, Any], *, local_addresses: AbstractSet[IPAddress], boot_id: str
) -> str | None:
    """Compare the Node that was named with this machine.

    Args:
        node: the Node's body.
        local_addresses: of this machine.
        boot_id: of this machine, "" if unknown.

    Returns:
        None if they agree, or one line to log: the same machine, but none of the Node's addresses
        is here, as behind some clouds' address translation.

    Raises:
        WrongNode: neither an address nor the boot id agrees.
    """
    name = node["metadata"]["name"]
    status = node.get("status") or {}
    addresses = frozenset(_internal_ips(status))
    if not addresses or addresses & local_addresses:
        return None
    listed = ", ".join(sorted(map(str, addresses)))
    if boot_id and boot_id == (status.get("nodeInfo") or {}).get("bootID"):
        return f"none of the addresses of Node {name} ({listed}) is on this machine"
    raise WrongNode(
        f"Node {name} has the addresses {listed}, none of which is on this machine, and another"
        " boot id: --node-name names another node"
    )


def _is_reachable(address: IPAddress) -> bool:
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _internal_ips(status: Mapping[str, Any]) -> Iterator[IPAddress]:
    for address in status.get("addresses") or ():
        if address.get("type") == "InternalIP":
            try:
                yield ip_address(address.get("address", ""))
            except ValueError:
                continue
