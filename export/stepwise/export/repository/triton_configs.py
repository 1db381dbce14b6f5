"""Renders a family's Triton model configs.

Those of the ensemble and the Python models depend on no checkpoint and are committed. After a
change to a family, ``python -m stepwise.export.repository.triton_configs`` renders them again.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from stepwise.description.family import Family
from stepwise.description.spec import (
    CANCEL,
    DECODED,
    EVENT,
    IMAGES,
    SETTINGS,
    Tensor,
)
from stepwise.families import FAMILIES
from stepwise.sampling.samplers import SAMPLERS

log = logging.getLogger(__name__)

FILE = "config.pbtxt"
REPOSITORY = Path("model_repository")


@dataclass(frozen=True)
class PythonModel:
    """One of a pipeline's Python models: ``<name>_<role>``, served by ``stepwise.triton``."""

    role: str
    purpose: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    decoupled: bool


# The settings behind ``encode``: Triton refuses a model that is fed by two decoupled ones, so the
# settings pass through each model of the chain, under another name.
_ENCODED_SETTINGS = f"encoded_{SETTINGS.name}"


def python_models(family: Family) -> tuple[PythonModel, ...]:
    """The Python models, in the order of a request's life."""
    return (
        PythonModel(
            role="prepare",
            purpose="Checks requests and turns their prompts into token ids.",
            inputs=family.request,
            outputs=(*family.encoder_inputs, SETTINGS),
            decoupled=False,
        ),
        PythonModel(
            role="encode",
            purpose="Encodes prompts, and the images that a video continues.",
            inputs=(*family.encoder_inputs, SETTINGS, *(IMAGES if family.image_encoder else ())),
            outputs=(*family.denoiser_feeds, SETTINGS),
            decoupled=True,
        ),
        PythonModel(
            role="denoise",
            purpose="Denoises all requests together, one batch a step.",
            # A cancellation comes alone, and so does the notice that a video is decoded.
            inputs=(
                *(replace(t, optional=True) for t in (SETTINGS, *family.denoiser_feeds)),
                CANCEL,
                *([DECODED] if family.makes_videos else []),
            ),
            outputs=(family.latents, EVENT),
            decoupled=True,
        ),
        PythonModel(
            role="decode",
            purpose="Decodes latents to pictures and passes progress on.",
            inputs=(family.latents, EVENT),
            outputs=family.response,
            decoupled=True,
        ),
    )


def python_config(family: Family, name: str, model: PythonModel) -> pb.ModelConfig:
    """The config of a Python model: one instance, on the CPU."""
    parameters = {"pipeline": family.name, "name": name}
    if model.role == "prepare":
        parameters["request"] = request_parameter(family, tuple(SAMPLERS))
    config = pb.ModelConfig(
        name=f"{name}_{model.role}",
        backend="python",
        input=tensors(model.inputs, pb.ModelInput),
        output=tensors(model.outputs, pb.ModelOutput),
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
        parameters=strings(parameters),
    )
    if model.decoupled:
        config.model_transaction_policy.decoupled = True
    return config


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


def ensemble_config(family: Family, name: str) -> pb.ModelConfig:
    """The config of the ensemble: a chain of prepare, encode, denoise and decode.

    No two steps run in parallel: Triton 24.10 may end when a client disconnects while they do.
    """
    steps = [_step(name, model) for model in python_models(family)]
    return pb.ModelConfig(
        name=name,
        platform="ensemble",
        input=tensors(family.request, pb.ModelInput),
        output=tensors(family.response, pb.ModelOutput),
        ensemble_scheduling=pb.ModelEnsembling(step=steps),
    )


def _step(name: str, model: PythonModel) -> pb.ModelEnsembling.Step:
    inputs = {t.name: t.name for t in model.inputs if t not in (CANCEL, DECODED)}
    outputs = {tensor.name: tensor.name for tensor in model.outputs}
    if model.role == "encode":
        outputs[SETTINGS.name] = _ENCODED_SETTINGS
    if model.role == "denoise":
        inputs[SETTINGS.name] = _ENCODED_SETTINGS
    return pb.ModelEnsembling.Step(
        model_name=f"{name}_{model.role}", model_version=-1, input_map=inputs, output_map=outputs
    )


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
    files = {
        f"{name}/{FILE}": render(ensemble_config(family, name)),
        # Triton needs a version folder even if it is empty, and git keeps no empty folders.
        f"{name}/1/.gitkeep": "",
    }
    for model in python_models(family):
        folder = f"{name}_{model.role}"
        files[f"{folder}/{FILE}"] = render(python_config(family, name, model))
        files[f"{folder}/1/model.py"] = (
            f'"""{model.purpose}"""\n\n'
            f"from stepwise.triton.{model.role} import {model.role.title()} as TritonPythonModel"
            "  # noqa: F401\n"
        )
    return files


def write_committed(family: Family, name: str, repository: Path) -> None:
    """Write the ensemble and the Python models of ``name`` into ``repository``."""
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
