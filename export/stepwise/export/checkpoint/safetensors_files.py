"""Checks the files of a checkpoint, and finds and validates the weights of a component."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stepwise.description import files
from stepwise.export.errors import CheckpointError

# The files that a library may read, by patterns of their names, and their greatest sizes in bytes.
# The first matching pattern counts. The largest known tokenizers have 40 MB.
_LIMITS = {
    "*.safetensors": 100_000_000_000,
    "tokenizer*.json": 100_000_000,
    "vocab.json": 100_000_000,
    "*.txt": 100_000_000,
    "*.model": 100_000_000,
    "*.index*.json": 20_000_000,
    "*.json": 2_000_000,
    "*.jinja": 1_000_000,
}
# Further chat templates of a tokenizer.
_TEMPLATES = "additional_chat_templates"
_HEADER_LENGTH_BYTES = 8
# The limit of the safetensors library.
_MOST_HEADER_BYTES = 100_000_000
_STEMS = ("diffusion_pytorch_model", "model")
_VARIANTS = (None, "fp16")
_DTYPES = {"F64", "F32", "F16", "BF16"}
# CLIP's position index, which old versions of transformers stored, and a trainer's step count:
# neither is a weight.
_NO_WEIGHTS = ("position_ids", "num_updates")
# No number in a config exceeds the longest side of a weight by more than this factor.
_SLACK = 16
# The settings that make a nested model large; its config has other numbers, which do not.
_INNER_SIZES = ("depth", "embed_dim", "hidden_size", "intermediate_size", "num_hidden_layers")

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Weights:
    """The safetensors files of a component, and diffusers' name for their variant."""

    files: tuple[Path, ...]
    variant: str | None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError if the file is missing or holds something else."""
    with _refused():
        value = files.read_json(path, _limit(path))
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; it should hold an object")
    return value


def check_files(folder: Path) -> None:
    """Check every file of a folder that a library may read, before any does.

    Raises CheckpointError if one is not a regular file, is unreadable, empty or larger than files
    of its kind, or is JSON that is invalid or nested deeply.
    """
    with _refused():
        for path in (*read_files(folder), *read_files(folder / _TEMPLATES)):
            if path.suffix == ".json":
                files.read_json(path, _limit(path))
            else:
                files.check(path, _limit(path))


def read_files(folder: Path) -> list[Path]:
    """The sorted files of a folder that a library may read; none if there is no folder."""
    try:
        found = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be listed ({error.strerror}); download the checkpoint again"
        ) from error
    return [path for path in found if _limit(path)]


def _limit(path: Path) -> int:
    """The greatest size of a file in bytes; 0 for one that no library reads."""
    return next((most for name, most in _LIMITS.items() if fnmatchcase(path.name, name)), 0)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except files.UnusableFile as error:
        raise CheckpointError(f"{error}; download it again") from error


def weights(folder: Path) -> Weights:
    """The weights that diffusers or transformers would load from ``folder``, full precision first.

    One file, or the shards that an index names. Raises CheckpointError if there are none.
    """
    for variant in _VARIANTS:
        mark = f".{variant}" if variant else ""
        for stem in _STEMS:
            whole = folder / f"{stem}{mark}.safetensors"
            index = folder / f"{stem}.safetensors.index{mark}.json"
            if whole.is_file():
                return Weights((whole,), variant)
            if index.is_file():
                return Weights(_shards(index), variant)
    raise CheckpointError(
        f"{folder} holds no weights; {' or '.join(f'{stem}.safetensors' for stem in _STEMS)} "
        "(or its .fp16 variant, or its index and shards) should be there"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    places = read_json(index).get("weight_map")
    if not (isinstance(places, dict) and places and all(map(_is_shard, places.values()))):
        raise CheckpointError(
            f"{index} has no weight_map naming .safetensors files next to it; download it again"
        )
    shards = tuple(index.parent / name for name in sorted(set(places.values())))
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing though {index.name} names it; download it")
    return shards


def _is_shard(value: object) -> bool:
    """Whether a name is that of a weights file in the same folder, which ``check_files`` checks."""
    return isinstance(value, str) and re.fullmatch(r"[^/\0]+\.safetensors", value) is not None


def check_weights(folder: Path) -> Shapes:
    """The shapes of a component's weights by name.

    Raises CheckpointError, naming the file, if one is missing, cut short, corrupt or quantized.
    """
    shapes: Shapes = {}
    for path in weights(folder).files:
        shapes |= check_file(path)
    return shapes


def check_file(path: Path) -> Shapes:
    """The shapes of the weights in one file by name; CheckpointError as in ``check_weights``."""
    _check_length(path)
    shapes: Shapes = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                _check_dtype(path, name, tensor.get_dtype())
                shapes[name] = tuple(tensor.get_shape())
    except SafetensorError as error:
        raise CheckpointError(f"{path} is corrupt ({error}); download it again") from error
    return shapes


def stored_as(files: Iterable[Path]) -> str:
    """The type of all float weights in files, as safetensors calls it; "mixed" if they differ."""
    kinds = set()
    for path in files:
        with safe_open(path, framework="np") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    floats = sorted(kinds & _DTYPES)
    return floats[0] if len(floats) == 1 else "mixed"


def _check_dtype(path: Path, name: str, dtype: str) -> None:
    """Refuse quantized weights, which both libraries would read as plain numbers."""
    if dtype not in _DTYPES and not name.endswith(_NO_WEIGHTS):
        raise CheckpointError(
            f"{path}: {name} is stored as {dtype}; allowed are {', '.join(sorted(_DTYPES))}"
        )


def check_sizes(path: Path, shapes: Shapes) -> None:
    """Refuse a config with numbers far above the sizes of its weights.

    Both libraries would first build that model, for minutes or until memory runs out.
    """
    greatest = _SLACK * max((side for shape in shapes.values() for side in shape), default=0)
    for key, value in _numbers(read_json(path)):
        most = len(shapes) if "layers" in key else greatest
        if value > most:
            raise CheckpointError(
                f"{path}: got {key}={value}, far more than its weights hold; download it again"
            )


def _numbers(config: dict[str, Any]) -> Iterator[tuple[str, int | float]]:
    """The numbers that can make a model large: a config's own, and the sizes of nested models."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from ((k, v) for k, v in _numbers(value) if k in _INNER_SIZES)
        elif isinstance(value, int | float) and not key.endswith("_token_id"):
            yield key, value


def _check_length(path: Path) -> None:
    """Check the kind of a file, and compare its size with the length that its header states."""
    with _refused():
        files.check(path, _limit(path))
    got, expected = path.stat().st_size, _expected_length(path)
    if got != expected:
        raise CheckpointError(
            f"{path} is truncated or corrupt: it has {got:,} bytes where its header promises "
            f"{expected:,}; download it again"
        )


def _expected_length(path: Path) -> int:
    """Bytes of a whole safetensors file: length field, header, and data up to the last tensor.

    Format: https://huggingface.co/docs/safetensors/index#format
    """
    with path.open("rb") as file:
        start = _HEADER_LENGTH_BYTES + int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        if start > path.stat().st_size:
            return start
        if start > _MOST_HEADER_BYTES:
            raise CheckpointError(
                f"{path} is corrupt: it has a header of {start:,} bytes where at most "
                f"{_MOST_HEADER_BYTES:,} are allowed; download it again"
            )
        header = file.read(start - _HEADER_LENGTH_BYTES)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        return start + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is corrupt: its first {start:,} bytes are no safetensors header; "
            "download it again"
        ) from error
