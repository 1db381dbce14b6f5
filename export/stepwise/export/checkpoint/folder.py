"""Opens a checkpoint in the diffusers layout and validates it before weights are loaded."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from stepwise.description.family import Family
from stepwise.description.manifest import Sides
from stepwise.description.spec import Component
from stepwise.export.checkpoint.lora_file import Lora
from stepwise.export.checkpoint.safetensors_files import (
    check_files,
    check_sizes,
    check_weights,
    read_files,
    read_json,
)
from stepwise.export.errors import CheckpointError
from stepwise.families import FAMILIES
from stepwise.families.stable_diffusion import CLIP_SKIP
from stepwise.sampling import schedules

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
_MOST_BLOCKS = 8
# The native side that a family's buckets are written for.
_USUAL_SIDE = 1024
_NO_LIMIT = 1 << 20


@dataclass(frozen=True)
class SingleFile:
    """The layout of single-file checkpoints.

    ``prefixes`` maps a component's subfolder in the diffusers layout to the prefix of its weights'
    names; ``configs`` is a diffusers folder without weights that supplies everything else.
    """

    prefixes: Mapping[str, str]
    configs: Path


@dataclass(frozen=True)
class Checkpoint:
    """A validated checkpoint: a diffusers folder, or a single file with a folder of configs.

    ``missing`` names the optional components that it lacks. If ``file`` holds the weights, in the
    layout ``layout``, the folder supplies only configs and tokenizers; ``config`` is that folder if
    the user chose it. ``loras`` are fused into the weights as they are loaded.
    """

    folder: Path
    family: Family
    missing: tuple[str, ...]
    file: Path | None = None
    layout: SingleFile | None = None
    loras: tuple[Lora, ...] = ()
    config: Path | None = None

    @property
    def origin(self) -> Path:
        """The folder or file that holds the weights."""
        return self.file or self.folder

    def place(self, component: Component) -> str:
        """The location of a component's weights, for messages."""
        if self.file:
            return f"{self.file} ({component.subfolder})"
        return str(self.folder / component.subfolder)

    def setting(self, component: Component, key: str) -> Any:
        """One entry of a component's ``config.json``; CheckpointError if there is none."""
        path = self.folder / component.subfolder / "config.json"
        config = read_json(path)
        if key not in config:
            raise CheckpointError(
                f"{path} has no {key!r} among {', '.join(config)}; download it again"
            )
        return config[key]

    def integer(self, component: Component, key: str) -> int:
        """A setting that is a positive whole number; CheckpointError for any other value."""
        value = self.setting(component, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{self.folder / component.subfolder / 'config.json'}: got {key}={value!r}; it "
                "should be a positive whole number"
            )
        return value

    @property
    def schedule(self) -> dict[str, Any]:
        """The scheduler's config, over the settings that the family's diffusers class passes."""
        return {**self.family.schedule, **read_json(self.folder / SCHEDULER)}

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along a side."""
        blocks = self.setting(self.family.decoder, "block_out_channels")
        if not isinstance(blocks, list) or not 1 <= len(blocks) <= _MOST_BLOCKS:
            path = self.folder / self.family.decoder.subfolder / "config.json"
            raise CheckpointError(
                f"{path}: got block_out_channels={blocks!r}; it should be a list of 1 to "
                f"{_MOST_BLOCKS} numbers"
            )
        return int(2 ** (len(blocks) - 1))

    @property
    def size(self) -> tuple[int, int]:
        """The height and width in pixels that the checkpoint was trained at.

        Raises CheckpointError if they are not legal sides.
        """
        sides, (_, key) = self.sides, self.family.native
        height, width = sides.native, self.integer(self.family.denoiser, key) * self.vae_scale
        self._check_side(key, width, sides)
        return height, width

    @property
    def sides(self) -> Sides:
        """Legal picture sides in pixels: the family's range around the native side.

        They are multiples that the denoiser's patches allow.
        """
        key, _ = self.family.native
        native = self.integer(self.family.denoiser, key) * self.vae_scale
        multiple, patches = self._grid
        low, high = (factor * native for factor in self.family.limits.side_factors)
        sides = Sides(
            native=native,
            minimum=math.ceil(low / multiple) * multiple,
            maximum=min(int(high // multiple), patches) * multiple,
            multiple=multiple,
        )
        self._check_side(key, native, sides)
        return sides

    def _check_side(self, key: str, side: int, sides: Sides) -> None:
        if side % sides.multiple or not sides.minimum <= side <= sides.maximum:
            raise CheckpointError(
                f"{self.folder / self.family.denoiser.subfolder / 'config.json'}: got "
                f"{key}={side // self.vae_scale}, which is {side} pixels; allowed are "
                f"multiples of {sides.multiple} from {sides.minimum} to {sides.maximum}; download "
                "it again"
            )

    @property
    def _grid(self) -> tuple[int, int]:
        """The step of sides in pixels, and the greatest number of steps in a side."""
        if self.family.side_multiple:
            return math.lcm(self.family.side_multiple, self.vae_scale), _NO_LIMIT
        patch = self.integer(self.family.denoiser, "patch_size")
        key = self.family.largest_grid
        patches = self.integer(self.family.denoiser, key) if key else _NO_LIMIT
        return patch * self.vae_scale, patches

    @property
    def buckets(self) -> tuple[tuple[int, int], ...]:
        """The family's buckets as heights and widths of this checkpoint.

        They are scaled to its native side and rounded to legal sides; duplicates are removed.
        """
        sides = self.sides

        def scaled(side: int) -> int:
            whole = round(side * sides.native / _USUAL_SIDE / sides.multiple) * sides.multiple
            return min(max(whole, sides.minimum), sides.maximum)

        found = [(scaled(height), scaled(width)) for height, width in self.family.buckets]
        return tuple(dict.fromkeys(found))

    @property
    def largest_clip_skip(self) -> int:
        """The greatest ``clip_skip``: the layers of the shallowest encoder less one."""
        layers = [
            self.integer(encoder, "num_hidden_layers")
            for encoder in self.family.encoders
            if CLIP_SKIP in encoder.settings
        ]
        return min(layers, default=1) - 1

    @property
    def zero_negative(self) -> bool:
        """Whether an absent negative prompt becomes embeddings of zeros."""
        index = read_json(self.folder / INDEX)
        return bool(index.get("force_zeros_for_empty_prompt", self.family.zero_negative))


def open_folder(folder: Path, family: Family, file: Path | None = None) -> Checkpoint:
    """Open ``folder`` as a checkpoint of ``family``; raises CheckpointError if it is not one.

    Validates all files, component folders, configs and the lengths of weight files, without reading
    weights. If ``file`` holds the weights, the folder needs none.
    """
    is_folder = folder.is_dir()
    if not is_folder or folder / INDEX not in read_files(folder):
        problem = f"has no {INDEX}" if is_folder else "is not a folder"
        raise CheckpointError(
            f"{folder} {problem}; give the folder of a checkpoint in the diffusers layout"
        )
    index = read_json(folder / INDEX)
    _check_class(folder, index, family)
    for subfolder in ("scheduler", *_subfolders(family)):
        check_files(folder / subfolder)
    missing = tuple(c.name for c in family.components if c.optional and _absent(folder, index, c))
    for component in family.components:
        if component.name not in missing:
            _check_component(folder, component)
            place = folder / component.subfolder
            if file is None:
                check_sizes(place / "config.json", check_weights(place))
    checkpoint = Checkpoint(folder, family, missing, file)
    _check_schedule(checkpoint)
    return checkpoint


def _check_schedule(checkpoint: Checkpoint) -> None:
    try:
        schedules.check(checkpoint.schedule)
    except schedules.SamplerError as error:
        raise CheckpointError(f"{checkpoint.folder / SCHEDULER}: {error}") from error


def _check_class(folder: Path, index: dict[str, Any], family: Family) -> None:
    got = index.get("_class_name")
    if got != family.diffusers_class:
        known = ", ".join(f"{p.name} ({p.diffusers_class})" for p in FAMILIES.values())
        raise CheckpointError(
            f"{folder} holds a {got}, but {family.name} is exported from a "
            f"{family.diffusers_class}; these pipelines can be exported: {known}"
        )


def _absent(folder: Path, index: dict[str, Any], component: Component) -> bool:
    """Whether the index or the folder lacks a component."""
    listed = index.get(component.subfolder, [None, None]) != [None, None]
    return not (listed and (folder / component.subfolder).is_dir())


def _check_component(folder: Path, component: Component) -> None:
    for subfolder in filter(None, (component.subfolder, component.tokenizer)):
        if not (folder / subfolder).is_dir():
            raise CheckpointError(
                f"{folder} lacks {component.name}: {folder / subfolder} should be there; "
                "download the checkpoint again"
            )
    read_json(folder / component.subfolder / "config.json")


def _subfolders(family: Family) -> Iterator[str]:
    """The folders of all components and tokenizers; two components may share one."""
    parts = ((c.subfolder, c.tokenizer) for c in family.components)
    return filter(None, dict.fromkeys(chain.from_iterable(parts)))


def weights_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 of all files of a checkpoint and of its LoRAs."""
    return files_digest(_sources(checkpoint))


def files_digest(sources: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 of files and of the names that state their roles."""
    total = hashlib.sha256()
    for name, path in sources:
        total.update(f"{name}\n".encode())
        stat = path.stat()
        total.update(_file_digest(path, stat.st_ino, stat.st_size, stat.st_ctime_ns))
    return total.hexdigest()


@cache
def _file_digest(path: Path, _inode: int, _size: int, _changed: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def component_files(checkpoint: Checkpoint, component: Component) -> list[tuple[str, Path]]:
    """The files that a component is loaded from, without LoRAs, each with its role."""
    files = read_files(checkpoint.folder / component.subfolder)
    if checkpoint.file:
        files = [path for path in files if path.suffix != ".safetensors"]
    named = [(path.name, path) for path in files]
    return [("file", checkpoint.file), *named] if checkpoint.file else named


def _sources(checkpoint: Checkpoint) -> Iterator[tuple[str, Path]]:
    """Each of the checkpoint's files, with its role."""
    files = [checkpoint.folder / INDEX, checkpoint.folder / SCHEDULER]
    for subfolder in _subfolders(checkpoint.family):
        files += read_files(checkpoint.folder / subfolder)
    if checkpoint.file:
        files = [path for path in files if path.suffix != ".safetensors"]
        yield "file", checkpoint.file
    yield from ((f"{path.parent.name}/{path.name}", path) for path in files)
    yield from ((f"lora {lora.scale}", lora.file) for lora in checkpoint.loras)
