"""Weight files: which ones a component has, and whether they are whole."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from export.errors import CheckpointError

_HEADER_LENGTH_BYTES = 8
_STEMS = ("diffusion_pytorch_model", "model")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; download the checkpoint again") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; it should hold an object")
    return value


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that diffusers or transformers would load from ``folder``.

    One file, or the shards that an index names. Raises CheckpointError if there are none.
    """
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if (folder / f"{stem}.safetensors").is_file():
            return (folder / f"{stem}.safetensors",)
        if index.is_file():
            return _shards(index)
    raise CheckpointError(
        f"{folder} holds no weights; {' or '.join(f'{stem}.safetensors' for stem in _STEMS)} "
        "(or its index and shards) should be there"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map naming its shards; download it again")
    shards = tuple(index.parent / name for name in sorted(set(places.values())))
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing though {index.name} names it; download it")
    return shards


def check_weights(folder: Path) -> None:
    """Raise CheckpointError, naming the file, if weights are missing, cut short or corrupt."""
    for path in weight_files(folder):
        _check_length(path)
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise CheckpointError(f"{path} is corrupt ({error}); download it again") from error


def _check_length(path: Path) -> None:
    """Compare a file's size with what its own header promises."""
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
        header = file.read(start - _HEADER_LENGTH_BYTES)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        return start + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{path} is corrupt: its first {start:,} bytes are no safetensors header; "
            "download it again"
        ) from error
