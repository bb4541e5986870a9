"""What kopf calls: unpack, fold, return None (a value would be written into the object's status).

Raw `on.event` only: kopf writes nothing to any object, and there is no finalizer anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kopf

from synsweep.controller.view import Kind

if TYPE_CHECKING:
    from synsweep.cluster.client import Api
    from synsweep.controller.view import View


def register(view: View, api: Api) -> kopf.OperatorRegistry:
    """Make the handlers of one run of kopf."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        found = api.credentials()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            insecure=found.insecure,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
            token=found.token,
            proxy_url=found.proxy_url,
        )

    @kopf.on.event("discovery.k8s.io", "v1", "endpointslices", registry=registry)
    async def on_endpointslice(event: kopf.RawEvent, **_: Any) -> None:
        view.take(Kind.SLICE, event["type"], event["object"])

    @kopf.on.event("v1", "services", registry=registry)
    async def on_service(event: kopf.RawEvent, **_: Any) -> None:
        view.take(Kind.SERVICE, event["type"], event["object"])

    @kopf.on.event("v1", "namespaces", registry=registry)
    async def on_namespace(event: kopf.RawEvent, **_: Any) -> None:
        view.take(Kind.NAMESPACE, event["type"], event["object"])

    @kopf.on.event("synsweep.io", "v1alpha1", "conntrackpolicies", registry=registry)
    async def on_policy(event: kopf.RawEvent, **_: Any) -> None:
        view.take(Kind.POLICY, event["type"], event["object"])

    return registry
