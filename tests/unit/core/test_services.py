"""Services: the frontends that kube-proxy serves, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from synsweep.core.bodies import MalformedObject
from synsweep.core.cleanup import NodePort
from synsweep.core.services import read_service
from tests.unit.core.world import Raw, at, service_body, service_key


def frontends_of(body: Raw) -> dict[str, set[str]]:
    return {
        name: {str(frontend) for frontend in frontends}
        for name, frontends in read_service(body).frontends.items()
    }


def with_ingress(*ingress: Raw) -> Raw:
    body = service_body(type="LoadBalancer")
    body["status"] = {"loadBalancer": {"ingress": list(ingress)}}
    return body


def test_every_port_is_served_on_every_address_and_on_its_node_port() -> None:
    body = service_body(
        ips=["10.96.0.1", "fd00::1"],
        ports={"http": 80, "metrics": 9090},
        node_ports={"http": 30080},
        externalIPs=["192.0.2.7"],
    )
    body["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}

    assert frontends_of(body) == {
        "http": {
            "10.96.0.1:80",
            "[fd00::1]:80",
            "192.0.2.7:80",
            "198.51.100.1:80",
            "nodePort 30080",
        },
        "metrics": {"10.96.0.1:9090", "[fd00::1]:9090", "192.0.2.7:9090", "198.51.100.1:9090"},
    }
    assert NodePort(30080) in read_service(body).frontends["http"]
    assert at("[fd00::1]:80") in read_service(body).frontends["http"]


@pytest.mark.parametrize(
    ("ingress", "served"),
    [
        pytest.param({"ip": "198.51.100.1"}, True, id="no mode: kube-proxy answers for it"),
        pytest.param({"ip": "198.51.100.1", "ipMode": "VIP"}, True, id="VIP"),
        pytest.param({"ip": "198.51.100.1", "ipMode": "Proxy"}, False, id="Proxy: it does not"),
        pytest.param({"hostname": "lb.example.com"}, False, id="a name"),
    ],
)
def test_only_load_balancer_addresses_that_kube_proxy_answers_for_count(
    *, ingress: Raw, served: bool
) -> None:
    assert ("198.51.100.1:80" in frontends_of(with_ingress(ingress))["http"]) == served


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(service_body(ips=[]), id="headless"),
        pytest.param(service_body(ips=[], clusterIP="", clusterIPs=None), id="no address yet"),
        pytest.param(
            service_body(type="ExternalName", externalName="x.example"), id="ExternalName"
        ),
        pytest.param(
            service_body(labels={"service.kubernetes.io/service-proxy-name": "other"}),
            id="another proxy's",
        ),
        pytest.param(service_body(labels={"service.kubernetes.io/headless": ""}), id="by label"),
        pytest.param({"metadata": {"name": "a", "namespace": "shop"}}, id="no spec at all"),
    ],
)
def test_what_kube_proxy_does_not_serve_has_no_frontends(body: Raw) -> None:
    assert read_service(body).frontends == {}


@pytest.mark.parametrize(
    ("labels", "foreign"),
    [
        pytest.param({}, False, id="ours"),
        pytest.param({"service.kubernetes.io/service-proxy-name": ""}, True, id="proxy name"),
        pytest.param({"service.kubernetes.io/headless": ""}, True, id="headless by label"),
    ],
)
def test_a_label_hides_a_service_from_kube_proxy(*, labels: dict[str, str], foreign: bool) -> None:
    assert read_service(service_body(labels=labels)).foreign == foreign


def test_only_tcp_ports_count_and_absent_means_tcp() -> None:
    body = service_body()
    body["spec"]["ports"] = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"port": 53},
    ]

    assert frontends_of(body) == {"": {"10.96.0.1:53"}}


@pytest.mark.parametrize(
    ("spec", "local"),
    [
        pytest.param({}, False, id="default"),
        pytest.param({"externalTrafficPolicy": "Local"}, True, id="external"),
        pytest.param({"internalTrafficPolicy": "Local"}, True, id="internal"),
        pytest.param({"externalTrafficPolicy": "Cluster"}, False, id="cluster"),
    ],
)
def test_any_local_traffic_policy_counts(*, spec: Raw, local: bool) -> None:
    assert read_service(service_body(**spec)).local == local


def test_a_single_cluster_ip_without_the_list_is_enough() -> None:
    assert frontends_of(service_body(clusterIPs=None)) == {"http": {"10.96.0.1:80"}}


def test_a_service_keeps_its_names_and_labels() -> None:
    read = read_service(service_body(labels={"team": "x"}))

    assert read.key == service_key("a")
    assert (read.uid, read.resource_version, read.labels) == ("uid-a", "7", {"team": "x"})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({"clusterIPs": ["10.96.0"]}, "spec.clusterIPs[0]", id="cluster IP"),
        pytest.param({"clusterIPs": [7]}, "spec.clusterIPs[0]", id="a number as cluster IP"),
        pytest.param({"clusterIP": 7}, "spec.clusterIP", id="a number as the first cluster IP"),
        pytest.param({"externalIPs": ["x"]}, "spec.externalIPs[0]", id="external IP"),
        pytest.param({"ports": [{"name": "x"}]}, "spec.ports[0].port", id="a port without number"),
        pytest.param({"ports": [{"port": -1}]}, "spec.ports[0].port", id="a negative port"),
        pytest.param(
            {"ports": [{"port": 80, "nodePort": 70000}]}, "spec.ports[0].nodePort", id="nodePort"
        ),
        pytest.param({"ports": ["80"]}, "spec.ports[0]", id="a string as port"),
    ],
)
def test_a_malformed_service_is_refused_by_field(spec: dict[str, Any], field: str) -> None:
    body = service_body()
    body["spec"] |= spec

    with pytest.raises(MalformedObject, match=r"^Service shop/a: ") as refused:
        read_service(body)

    assert refused.value.field == field


def test_a_malformed_load_balancer_is_refused_by_field() -> None:
    with pytest.raises(MalformedObject) as refused:
        read_service(with_ingress({"ip": "nowhere"}))

    assert refused.value.field == "status.loadBalancer.ingress[0].ip"
