from dataclasses import replace
from pathlib import Path

from stepwise.client import connection
from stepwise.server.flags import Ports, Settings, arguments, environment

SETTINGS = Settings(
    repository=Path("/models"),
    pipelines=("sd3",),
    models=("sd3", "sd3_t5"),
    backends=Path("/backends"),
    shm_prefix="stepwise-1-",
    key="secret",
    state=Path("/state"),
    ports=Ports(grpc=1, http=2, metrics=3),
)


def test_loads_the_named_models_and_no_others():
    given = arguments(SETTINGS)
    assert "--model-control-mode=explicit" in given
    loaded = [flag for flag in given if flag.startswith("--load-model=")]
    assert loaded == ["--load-model=sd3", "--load-model=sd3_t5"]


def test_every_interface_listens_on_loopback_at_its_port():
    given = arguments(SETTINGS)
    for interface, port in (("grpc", 1), ("http", 2), ("metrics", 3)):
        assert f"--{interface}-address=127.0.0.1" in given
        assert f"--{interface}-port={port}" in given


def test_clients_may_ping_a_silent_stream_more_often_than_they_do():
    every = dict(connection._OPTIONS)["grpc.keepalive_time_ms"]
    flag = "--grpc-http2-min-recv-ping-interval-without-data="
    (least,) = (given.removeprefix(flag) for given in arguments(SETTINGS) if flag in given)
    assert int(least) <= every / 2


def test_shared_memory_carries_the_prefix():
    assert "--backend-config=python,shm-region-prefix-name=stepwise-1-" in arguments(SETTINGS)


def test_both_interfaces_restrict_model_control_to_the_key():
    restriction = "model-repository,shared-memory,trace,logging:stepwise-key=secret"
    given = arguments(SETTINGS)
    assert f"--grpc-restricted-protocol={restriction}" in given
    closed = restriction.replace(":", ",inference:")
    assert f"--http-restricted-api={closed}" in given
    opened = arguments(replace(SETTINGS, http_inference=True))
    assert f"--http-restricted-api={restriction}" in opened


def test_the_header_of_a_trusted_front_reaches_the_models():
    assert not [flag for flag in arguments(SETTINGS) if "header-forward" in flag]
    fronted = replace(SETTINGS, peer_header="x-forwarded-for")
    pattern = r"header-forward-pattern=(?i)^x\-forwarded\-for$"
    for protocol in ("grpc", "http"):
        assert f"--{protocol}-{pattern}" in arguments(fronted)
    assert environment(fronted)["STEPWISE_PEER_HEADER"] == "x-forwarded-for"
