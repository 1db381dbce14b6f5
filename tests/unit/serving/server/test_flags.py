from pathlib import Path

from stepwise.server.flags import Ports, Settings, arguments

SETTINGS = Settings(
    repository=Path("/models"),
    pipelines=("sd3",),
    models=("sd3", "sd3_prepare"),
    backends=Path("/backends"),
    shm_prefix="stepwise-1-",
    key="secret",
    ports=Ports(grpc=1, http=2, metrics=3),
)


def test_loads_the_named_models_and_no_others():
    given = arguments(SETTINGS)
    assert "--model-control-mode=explicit" in given
    loaded = [flag for flag in given if flag.startswith("--load-model=")]
    assert loaded == ["--load-model=sd3", "--load-model=sd3_prepare"]


def test_every_interface_listens_on_loopback_at_its_port():
    given = arguments(SETTINGS)
    for interface, port in (("grpc", 1), ("http", 2), ("metrics", 3)):
        assert f"--{interface}-address=127.0.0.1" in given
        assert f"--{interface}-port={port}" in given


def test_shared_memory_carries_the_prefix():
    assert "--backend-config=python,shm-region-prefix-name=stepwise-1-" in arguments(SETTINGS)


def test_both_interfaces_restrict_model_control_to_the_key():
    restriction = "model-repository,shared-memory,trace,logging:stepwise-key=secret"
    given = arguments(SETTINGS)
    assert f"--grpc-restricted-protocol={restriction}" in given
    assert f"--http-restricted-api={restriction}" in given
