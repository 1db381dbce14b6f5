import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from stepwise.description.spec import CANCEL, DECODED
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
    assert len(paths) >= sum(4 + len(pipeline.components) for pipeline in TRAINED.values())
    for path in paths:
        assert parse(path).name == path.parent.name


@pytest.mark.parametrize("pipeline", TRAINED.values(), ids=TRAINED)
def test_an_ensemble_wires_every_tensor_of_its_models(pipeline, families):
    """Each step uses all inputs and outputs of its model and reads only tensors already written."""
    ensemble = parse(families / pipeline.name / "config.pbtxt")
    dims = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = parse(families / step.model_name / "config.pbtxt")
        # The model receives these directly, as separate requests.
        messages = (CANCEL.name, DECODED.name)
        inputs = [tensor for tensor in model.input if tensor.name not in messages]
        assert set(step.input_map) == {tensor.name for tensor in inputs}
        assert set(step.output_map) == {tensor.name for tensor in model.output}
        lead = [-1] if model.max_batch_size else []
        for tensor in inputs:
            kind, got = dims[step.input_map[tensor.name]]
            assert kind == tensor.data_type
            assert fits(got, lead + list(tensor.dims)), (step.model_name, tensor.name)
        for tensor in model.output:
            produced = (tensor.data_type, lead + list(tensor.dims))
            dims[step.output_map[tensor.name]] = produced
    for tensor in ensemble.output:
        assert dims[tensor.name] == (tensor.data_type, list(tensor.dims))


def fits(one, other):
    return len(one) == len(other) and all(
        a == b or -1 in (a, b) for a, b in zip(one, other, strict=True)
    )


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
