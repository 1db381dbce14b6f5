import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from stepwise.description.spec import CANCEL
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository.triton_configs import committed
from stepwise.families import FAMILIES
from tests.conftest import TRAINED
from tests.support.paths import ROOT

REPOSITORY = ROOT / "model_repository"
RENDERED = {
    path: text
    for pipeline in FAMILIES.values()
    for path, text in committed(pipeline, pipeline.name).items()
}


def parse(path):
    return text_format.Parse(path.read_text(), ModelConfig())


@pytest.mark.parametrize("path", RENDERED)
def test_committed_configs_match_the_pipelines(path):
    text = (REPOSITORY / path).read_text()
    assert text == RENDERED[path], (
        f"{path} is stale: run python -m stepwise.export.repository.triton_configs"
    )


def test_every_config_parses_and_is_named_like_its_folder(families):
    paths = sorted(families.glob("*/config.pbtxt"))
    assert len(paths) >= sum(1 + len(pipeline.components) for pipeline in TRAINED.values())
    for path in paths:
        assert parse(path).name == path.parent.name


@pytest.mark.parametrize("pipeline", TRAINED.values(), ids=TRAINED)
def test_a_pipeline_takes_its_settings_and_a_cancellation(pipeline, families):
    config = parse(families / pipeline.name / "config.pbtxt")
    assert config.model_transaction_policy.decoupled
    taken = [tensor.name for tensor in config.input]
    assert taken == [*(tensor.name for tensor in pipeline.request), CANCEL.name]
    assert all(tensor.optional for tensor in config.input)
    assert [tensor.name for tensor in config.output] == [t.name for t in pipeline.response]


@pytest.mark.parametrize("pipeline", TRAINED.values(), ids=TRAINED)
def test_graph_configs_fix_the_same_dims_as_the_graph(pipeline, families, checkpoints):
    # Only the checkpoint says which caches its autoencoder has.
    served = open_checkpoint(checkpoints[pipeline.name], pipeline).family
    for component in served.components:
        config = parse(families / f"{pipeline.name}_{component.name}" / "config.pbtxt")
        assert config.max_batch_size == component.max_batch
        first = 1 if component.max_batch else 0
        tensors = [*component.inputs, *component.outputs]
        for tensor, got in zip(tensors, [*config.input, *config.output], strict=True):
            wanted = tensor.dims[first:]
            assert got.name == tensor.name
            assert [dim == -1 for dim in got.dims] == [isinstance(dim, str) for dim in wanted]
