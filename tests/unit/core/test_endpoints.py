"""EndpointSlices: read as kube-proxy reads them, refused by field."""

from __future__ import annotations

from copy import deepcopy
from ipaddress import ip_address
from typing import Any

import pytest

from synsweep.core.endpoints import (
    MalformedObject,
    ServiceKey,
    ServicePortName,
    SliceKey,
    SlicePort,
    read_slice,
)
from tests.unit.core.world import Raw, slice_body, up


def a_slice(**changes: Any) -> Raw:
    return slice_body("a-1", [up("10.0.0.1")]) | changes


def test_a_slice_keeps_its_names_its_ports_and_its_endpoints() -> None:
    read = read_slice(a_slice())

    assert read is not None
    assert read.key == SliceKey(namespace="shop", name="a-1")
    assert read.service_key == ServiceKey(namespace="shop", name="a")
    assert (read.uid, read.resource_version) == ("uid-a-1", "")
    assert read.ports == (SlicePort(name="http", port=8080),)
    (endpoint,) = read.endpoints
    assert endpoint.ip == ip_address("10.0.0.1")
    assert (endpoint.node_name, endpoint.pod_uid) == ("node1", "uid-10.0.0.1")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param(None, (True, True, False), id="no conditions: ready, serving, staying"),
        pytest.param({"ready": None}, (True, True, False), id="null is absent"),
        pytest.param({"ready": False}, (False, True, False), id="serving is true when absent"),
        pytest.param(
            {"ready": False, "serving": False, "terminating": True},
            (False, False, True),
            id="all three as they are",
        ),
    ],
)
def test_absent_conditions_mean_what_kube_proxy_takes_them_for(
    conditions: Raw | None, expected: tuple[bool, bool, bool]
) -> None:
    read = read_slice(a_slice(endpoints=[{"addresses": ["10.0.0.1"], "conditions": conditions}]))

    assert read is not None
    (endpoint,) = read.endpoints
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == expected
    assert (endpoint.node_name, endpoint.pod_uid) == ("", "")


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        pytest.param({"port": 8080}, ("", 8080), id="name absent: the unnamed port; protocol: TCP"),
        pytest.param({"name": "x", "port": None}, None, id="a port without a number is skipped"),
        pytest.param({"name": "x", "port": 0}, None, id="port 0 is skipped"),
        pytest.param({"port": 53, "protocol": "UDP"}, None, id="UDP is skipped"),
        pytest.param({"port": 53, "protocol": "SCTP"}, None, id="SCTP is skipped"),
    ],
)
def test_only_tcp_ports_with_a_number_count(port: Raw, expected: tuple[str, int] | None) -> None:
    read = read_slice(a_slice(ports=[port]))

    assert read is not None
    assert [(port.name, port.port) for port in read.ports] == ([expected] if expected else [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(a_slice(addressType="FQDN"), id="names instead of addresses"),
        pytest.param(slice_body("a-1", [], service=""), id="no Service"),
        pytest.param(
            slice_body("a-1", [], labels={"service.kubernetes.io/headless": ""}), id="headless"
        ),
        pytest.param(
            slice_body("a-1", [], labels={"service.kubernetes.io/service-proxy-name": "other"}),
            id="another proxy's",
        ),
    ],
)
def test_what_kube_proxy_ignores_is_ignored(body: Raw) -> None:
    assert read_slice(body) is None


def test_empty_lists_may_be_null_and_an_endpoint_without_address_is_skipped() -> None:
    empty = read_slice(a_slice(ports=None, endpoints=None))
    nameless = read_slice(a_slice(endpoints=[{"addresses": []}, {"addresses": None}]))

    assert empty is not None
    assert nameless is not None
    assert (empty.ports, empty.endpoints, nameless.endpoints) == ((), (), ())


def test_only_the_first_address_counts_and_only_pods_have_a_uid() -> None:
    endpoint = {
        "addresses": ["10.0.0.1", "10.0.0.2"],
        "targetRef": {"kind": "Node", "uid": "not-a-pod"},
    }
    read = read_slice(a_slice(endpoints=[endpoint]))

    assert read is not None
    assert [str(one.ip) for one in read.endpoints] == ["10.0.0.1"]
    assert read.endpoints[0].pod_uid == ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("010.000.0.08", "10.0.0.8", id="leading zeros are decimal"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="IPv4 written as IPv6"),
        pytest.param("2001:db8:0::1", "2001:db8::1", id="IPv6 in another spelling"),
    ],
)
def test_an_address_is_read_in_the_form_that_the_kernel_shows(written: str, meant: str) -> None:
    read = read_slice(a_slice(endpoints=[{"addresses": [written]}]))

    assert read is not None
    assert read.endpoints[0].ip == ip_address(meant)


@pytest.mark.parametrize(
    ("path", "value", "field", "allowed"),
    [
        pytest.param(
            ["metadata", "name"], "", "metadata.name", "a name", id="an object without a name"
        ),
        pytest.param(["metadata", "name"], 7, "metadata.name", "a string", id="a number as name"),
        pytest.param(["metadata"], [], "metadata", "an object", id="a list as metadata"),
        pytest.param(
            ["metadata", "labels", "x"], 1, "metadata.labels[x]", "a string", id="a number as label"
        ),
        pytest.param(["addressType"], "IPX", "addressType", "IPv4, IPv6, FQDN", id="address type"),
        pytest.param(["ports"], {}, "ports", "a list", id="an object as ports"),
        pytest.param(["ports"], "80", "ports", "a list", id="a string as ports"),
        pytest.param(
            ["ports", 0, "port"], 65536, "ports[0].port", "an integer from 0 to 65535", id="port"
        ),
        pytest.param(
            ["ports", 0, "port"], True, "ports[0].port", "an integer from 0 to 65535", id="a flag"
        ),
        pytest.param(
            ["ports", 0, "port"], "80", "ports[0].port", "an integer from 0 to 65535", id="a string"
        ),
        pytest.param(
            ["endpoints", 0, "addresses", 0],
            "10.0.0.300",
            "endpoints[0].addresses[0]",
            "an IPv4 or IPv6 address",
            id="no address",
        ),
        pytest.param(
            ["endpoints", 0, "conditions", "ready"],
            "yes",
            "endpoints[0].conditions.ready",
            "true or false",
            id="no boolean",
        ),
    ],
)
def test_a_malformed_slice_is_refused_by_object_and_field(
    path: list[Any], value: object, field: str, allowed: str
) -> None:
    body = deepcopy(a_slice())
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(MalformedObject) as refused:
        read_slice(body)

    assert (refused.value.field, refused.value.value) == (field, value)
    assert refused.value.allowed == allowed
    assert str(refused.value).startswith("EndpointSlice ")
    assert f"{field} is {value!r}; allowed: {allowed}" in str(refused.value)


def test_the_refusal_names_the_object_and_does_not_repeat_a_whole_body() -> None:
    with pytest.raises(MalformedObject) as refused:
        read_slice(a_slice(ports="x" * 10_000))

    assert str(refused.value).startswith("EndpointSlice shop/a-1: ports is 'xxx")
    assert len(str(refused.value)) < 200


def test_names_are_written_as_kubectl_and_kube_proxy_write_them() -> None:
    named = ServicePortName(namespace="shop", name="a", port_name="http")
    unnamed = ServicePortName(namespace="shop", name="a", port_name="")

    assert (str(named), str(unnamed), str(named.service)) == ("shop/a:http", "shop/a", "shop/a")
