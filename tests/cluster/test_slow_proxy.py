"""F3: kube-proxy of the clients' node follows 20 s late; SYNs that it still misleads go too.

SLOW (20): for how many seconds it is frozen after the removal.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster import workloads
from tests.cluster.figures import record, repetitions
from tests.cluster.observers import eventually, half_open
from tests.cluster.shop import FLOWS, SURVIVOR_NODE, VICTIM_NODE, connect, lost, stale

if TYPE_CHECKING:
    from tests.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SHOP_CLIENTS = (1,)
SLOW = repetitions("SLOW", 20)
DEADLINE = 30 - 5  # seconds after the removal: 5 s before the IP may be used again


def test_syns_to_a_backend_that_a_late_kube_proxy_still_chooses_are_cleaned(shop: Shop) -> None:
    node = shop.cluster.node(1)
    pods = [
        workloads.Backend(name=name, app="web", node=shop.cluster.node(index).name, grace=0)
        for name, index in (("victim", VICTIM_NODE), ("survivor", SURVIVOR_NODE))
    ]
    shop.open_service(workloads.service("web", shop.name, app="web"), *pods)
    gone = shop.ips_of("victim")[:1]
    frontend = shop.frontends("web")[0]
    with lost(shop.cluster, *gone), connect(shop.client(1), frontend) as early:
        eventually(lambda: half_open(node, gone[0]), 20, "kube-proxy to choose the victim")
        node.freeze_service("kube-proxy")
        try:
            shop.force_delete("victim")
            shop.wait_left("web", gone)
            removed_at = time.monotonic()
            # What was there at the removal is swept at once; the old rules then mislead new SYNs.
            time.sleep(SLOW - 2)
            with connect(shop.client(1), frontend) as late:
                eventually(lambda: half_open(node, gone[0]), 10, "late SYNs to the victim")
                time.sleep(max(0.0, removed_at + SLOW - time.monotonic()))
                stuck = len(half_open(node, gone[0]))
                node.thaw_service("kube-proxy")
                thawed_at = time.monotonic()
                eventually(
                    lambda: not stale([node], gone),
                    max(1.0, removed_at + DEADLINE - thawed_at),
                    "no half-open entries 5 s before the IP may be used again",
                )
                cleaned_at = time.monotonic()

                def served() -> bool:
                    flows = {
                        (number, line["flow"])
                        for number, told in enumerate((early, late))
                        for line in list(told.lines)
                        if line.get("event") == "response" and line["t"] > thawed_at
                    }
                    return len(flows) == 2 * FLOWS

                eventually(served, 10, "the survivor to answer every flow")
                assert not stale([node], gone)
        finally:
            node.thaw_service("kube-proxy")
    record("slow kube-proxy", frozen=SLOW, stuck=stuck, cleaned_after=cleaned_at - thawed_at)
    assert stuck > 0
