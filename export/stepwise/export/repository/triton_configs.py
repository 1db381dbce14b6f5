"""Renders a family's Triton model configs.

Those of the pipelines' own models depend on no checkpoint and are committed. After a change to a
family, ``python -m stepwise.export.repository.triton_configs`` renders them again.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from stepwise.description.family import Family
from stepwise.description.spec import CANCEL, Tensor
from stepwise.families import FAMILIES
from stepwise.sampling.samplers import SAMPLERS

log = logging.getLogger(__name__)

FILE = "config.pbtxt"
REPOSITORY = Path("model_repository")
_MODEL = '''"""Serves a pipeline: requests in, pictures or videos out."""

from stepwise.triton.pipeline import Pipeline as TritonPythonModel  # noqa: F401
'''


def pipeline_config(family: Family, name: str) -> pb.ModelConfig:
    """The config of the model that serves a pipeline: one instance, on the CPU."""
    parameters = {
        "pipeline": family.name,
        "name": name,
        "request": request_parameter(family, tuple(SAMPLERS)),
    }
    return pb.ModelConfig(
        name=name,
        backend="python",
        input=tensors((*family.request, CANCEL), pb.ModelInput),
        output=tensors(family.response, pb.ModelOutput),
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
        parameters=strings(parameters),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )


def request_parameter(family: Family, samplers: tuple[str, ...]) -> str:
    """The defaults, ranges and samplers that clients read before a request, as JSON.

    A setting without a default may be left out of a request, and is not listed.
    """
    fields = {
        "defaults": {k: v for k, v in asdict(family.defaults).items() if v is not None},
        "ranges": {k: v for k, v in asdict(family.limits).items() if v is not None},
        "samplers": samplers,
    }
    return json.dumps(fields, sort_keys=True)


def tensors(described: Iterable[Tensor], kind: Any) -> list[Any]:
    """The spec's tensors as ``kind``, ModelInput or ModelOutput; named axes become -1."""
    return [
        kind(
            name=tensor.name,
            data_type=pb.DataType.Value(data_type(tensor)),
            dims=[dim if isinstance(dim, int) else -1 for dim in tensor.dims],
            **({"optional": True} if tensor.optional else {}),
        )
        for tensor in described
    ]


def data_type(tensor: Tensor) -> str:
    """Triton's name for a tensor's type in configs, e.g. ``TYPE_STRING``."""
    return "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"


def strings(values: dict[str, str]) -> dict[str, pb.ModelParameter]:
    """Config parameters."""
    return {key: pb.ModelParameter(string_value=value) for key, value in values.items()}


def render(config: pb.ModelConfig) -> str:
    """A config as the text of ``config.pbtxt``; the same config always gives the same text."""
    return str(text_format.MessageToString(config))


def committed(family: Family, name: str) -> dict[str, str]:
    """The text of every file that depends on no checkpoint, by its path in the repository."""
    return {
        f"{name}/{FILE}": render(pipeline_config(family, name)),
        f"{name}/1/model.py": _MODEL,
    }


def write_committed(family: Family, name: str, repository: Path) -> None:
    """Write the model that serves the pipeline ``name`` into ``repository``."""
    for path, text in committed(family, name).items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(text)


def main() -> None:
    """Render the committed configs of every pipeline again."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for family in FAMILIES.values():
        write_committed(family, family.name, REPOSITORY)
        log.info("%s: rendered into %s", family.name, REPOSITORY)


if __name__ == "__main__":
    main()
