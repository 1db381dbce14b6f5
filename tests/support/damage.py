"""Kinds of damage to a downloaded checkpoint; each damages a copy of the miniature."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.support.special_files import KINDS as SPECIAL
from tests.unit.export.conftest import MINIATURE

FILES = sorted(str(p.relative_to(MINIATURE)) for p in MINIATURE.rglob("*") if p.is_file())
FOLDERS = sorted(path.name for path in MINIATURE.iterdir() if path.is_dir())
TEXTS = [name for name in FILES if name.endswith(".json")]
WEIGHTS = [name for name in FILES if name.endswith(".safetensors")]
FAMILIES = [
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline",
    "StableDiffusion3Img2ImgPipeline", None, 3, ["StableDiffusion3Pipeline"],
]  # fmt: skip
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    3,
    7,
    1_000_000,
    0.5,
    1e30,
    float("nan"),
    "",
    "8",
    "no",
    [],
    [1],
    {},
]
DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8]

Damage = Callable[[Path], None]


def _lose(folder: Path, name: str) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _truncate(folder: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])


def _overwrite(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


def _flip(folder: Path, name: str, places: list[float]) -> None:
    data = bytearray((folder / name).read_bytes())
    for place in places:
        data[int(place * len(data))] ^= 0x55
    (folder / name).write_bytes(data)


def _replace(folder: Path, name: str, other: str) -> None:
    shutil.copyfile(MINIATURE / other, folder / name)


def _replace_folder(folder: Path, name: str, other: str) -> None:
    shutil.rmtree(folder / name)
    shutil.copytree(MINIATURE / other, folder / name)


def _rename(folder: Path, name: str) -> None:
    (folder / name).rename(folder / f"{name}.part")


def _mistake(folder: Path, name: str) -> None:
    """Replace a file by a folder, or a folder by a file."""
    was_folder = (folder / name).is_dir()
    _lose(folder, name)
    (folder / name).write_text("{}") if was_folder else (folder / name).mkdir()


def _dangle(folder: Path, name: str) -> None:
    _lose(folder, name)
    (folder / name).symlink_to(folder / "nowhere")


def _make_special(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink()
    SPECIAL[kind](folder / name)


def _edit(folder: Path, name: str, key: float, value: object) -> None:
    """Remove a key (if ``value`` is Ellipsis) or set it to another value."""
    fields = json.loads((folder / name).read_text())
    chosen = list(fields)[int(key * len(fields))]
    if value is ...:
        del fields[chosen]
    else:
        fields[chosen] = value
    (folder / name).write_text(json.dumps(fields))


def _family(folder: Path, value: object) -> None:
    fields = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**fields, "_class_name": value}))


def _weights(folder: Path, name: str, key: float, what: object) -> None:
    tensors = load_file(folder / name)
    chosen = sorted(tensors)[int(key * len(tensors))]
    if what == "lost":
        del tensors[chosen]
    elif what == "extra":
        tensors["stray"] = torch.ones(3)
    elif what == "reshaped":
        tensors[chosen] = tensors[chosen].flatten()[:-1].clone()
    elif what == "not finite":
        tensors[chosen] = torch.full_like(tensors[chosen], torch.nan)
    else:
        tensors = {name: tensor.to(what) for name, tensor in tensors.items()}
    save_file(tensors, folder / name, metadata={"format": "pt"})


def _single_file(folder: Path, name: str) -> None:
    """Replace the whole checkpoint by a weights file."""
    shutil.rmtree(folder)
    shutil.copyfile(MINIATURE / name, folder)


_files, _texts, _weight_files = map(st.sampled_from, (FILES, TEXTS, WEIGHTS))
_folders, _anything = st.sampled_from(FOLDERS), st.sampled_from(FILES + FOLDERS)
_share = st.floats(0, 1, exclude_max=True)
_change = st.sampled_from(["lost", "extra", "reshaped", "not finite", *DTYPES])

# Strategies for the arguments of each kind, after the folder.
KINDS: dict[Callable[..., None], tuple[st.SearchStrategy, ...]] = {
    _lose: (_anything,),
    _truncate: (_files, _share),
    _overwrite: (_files, st.one_of(st.just(b""), st.binary(min_size=1, max_size=300))),
    _flip: (_files, st.lists(_share, min_size=1, max_size=5)),
    _replace: (_files, _files),
    _replace_folder: (_folders, _folders),
    _rename: (_anything,),
    _mistake: (_anything,),
    _dangle: (_anything,),
    _make_special: (_files, st.sampled_from(sorted(SPECIAL))),
    _edit: (_texts, _share, st.sampled_from([..., *VALUES])),
    _family: (st.sampled_from(FAMILIES),),
    _weights: (_weight_files, _share, _change),
    _single_file: (_weight_files,),
}
# Edits have the most ways to fail.
_OFTEN = [*KINDS, _edit, _edit, _edit, _weights]


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, tuple[object, ...], Damage]:
    """The name of a kind, its arguments, and the function that damages a folder."""
    kind = draw(st.sampled_from(_OFTEN))
    arguments = tuple(draw(strategy) for strategy in KINDS[kind])
    return kind.__name__.strip("_"), arguments, lambda folder: kind(folder, *arguments)
