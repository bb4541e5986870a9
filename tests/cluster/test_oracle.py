"""The oracle that every other test trusts: it must not miss what it is there for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster import workloads
from tests.cluster.observers import entries, eventually
from tests.cluster.shop import SURVIVOR_NODE, connect

if TYPE_CHECKING:
    from tests.cluster.oracle import Oracle
    from tests.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

SHOP_CLIENTS = (1,)


def test_a_deletion_that_no_cleanup_covers_is_called_wrong_in_both_families(
    shop: Shop, oracle: Oracle
) -> None:
    node = shop.cluster.node(1)
    shop.open_service(
        workloads.service("web", shop.name, app="web", dual_stack=True),
        workloads.Backend(name="web", app="web", node=shop.cluster.node(SURVIVOR_NODE).name),
    )
    for family, frontend in zip(("ipv4", "ipv6"), shop.frontends("web"), strict=True):
        with connect(shop.client(1), frontend, options=("--flows", "1")) as told:
            told.wait_for(lambda line: line["event"] == "response", 20)
            (flow,) = entries(node, frontend=frontend)
            port = str(flow.client[1])
            node.run("conntrack", "-D", "-f", family, "-p", "tcp", "--orig-port-src", port)
        wrong = eventually(oracle.wrong, 5, "the oracle to notice")
        assert len(wrong) == 1
        assert f"sport={port} " in wrong[0]
        assert frontend in wrong[0]
        assert "ESTABLISHED" in wrong[0]
        oracle.excused.add(wrong[0].removeprefix(f"{node.name}: "))
