"""Serves several graphs of one UNet on one server and compares their speed in turns."""

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf import text_format
from tqdm import tqdm
from tritonclient.grpc.model_config_pb2 import ModelConfig

from miniatures.prompts import Prompt
from stepwise.client import Client
from stepwise.description.family import Family
from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import FILE, TOKENIZERS
from stepwise.export.repository import triton_configs
from stepwise.server.process import serving

# Pictures per request; they share every denoiser call.
TOGETHER = (1, 8)
_ROUNDS = 40
Figures = dict[str, dict[str, float]]


def measure(
    repository: Path, pipeline: Family, graphs: Mapping[str, Path], prompts: Sequence[Prompt]
) -> dict[str, Figures]:
    """Median denoising milliseconds of four-step pictures, and the speed-up over the first graph.

    Measures each number of pictures in ``TOGETHER``. ``repository`` has the pipeline under its own
    name; ``graphs`` are its UNet's graphs by label. The ratio is taken within a round.
    """
    names = {label: f"q{number}" for number, label in enumerate(graphs)}
    with TemporaryDirectory() as folder:
        for label, graph in graphs.items():
            _copy(repository, Path(folder), pipeline, names[label], graph)
        with serving(Path(folder)) as server:
            client = Client(server.grpc_url)
            return {
                f"{count} together": _figures(_ask(client, names, prompts, count))
                for count in TOGETHER
            }


def _figures(times: Mapping[str, Sequence[float]]) -> Figures:
    first = next(iter(times.values()))
    return {
        label: {
            "milliseconds": round(statistics.median(spent), 2),
            "times_as_fast": round(
                statistics.median(a / b for a, b in zip(first, spent, strict=True)), 3
            ),
        }
        for label, spent in times.items()
    }


def _ask(
    client: Client, names: Mapping[str, str], prompts: Sequence[Prompt], count: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {label: [] for label in names}
    for number in tqdm(range(_ROUNDS + 1), "served", unit="round"):
        prompt = prompts[number % len(prompts)]
        for label, name in names.items():
            events = client.pictures(
                name, prompt.scene.caption, seed=prompt.seed, steps=4, num_images=count
            )
            # The first round is the warm-up.
            if number:
                times[label].append(max(event.denoising_ms for event in events))
    return times


def _copy(source: Path, folder: Path, pipeline: Family, name: str, graph: Path) -> None:
    """Write the pipeline as ``name``, with ``graph`` as its UNet."""
    triton_configs.write_committed(pipeline, name, folder)
    before, after = source / pipeline.name, folder / name
    shutil.copytree(before / TOKENIZERS, after / TOKENIZERS)
    manifest: dict[str, Any] = json.loads((before / FILE).read_text())
    (after / FILE).write_text(json.dumps({**manifest, "name": name}))
    for component in pipeline.components:
        own = source / f"{pipeline.name}_{component.name}"
        served = graph if component == pipeline.denoiser else own / "1" / GRAPH
        _place(served, own / triton_configs.FILE, folder / f"{name}_{component.name}")


def _place(graph: Path, config: Path, model: Path) -> None:
    """Write a model with ``graph``; its config is that of another model, with another name."""
    (model / "1").mkdir(parents=True)
    shutil.copy(graph, model / "1" / GRAPH)
    renamed = text_format.Parse(config.read_text(), ModelConfig())
    renamed.name = model.name
    (model / triton_configs.FILE).write_text(triton_configs.render(renamed))
