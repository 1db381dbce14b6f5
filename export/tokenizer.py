"""A checkpoint's tokenizers as files for the ``tokenizers`` library, with lengths built in."""

from pathlib import Path

from transformers import AutoTokenizer

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, reason
from export.weights import read_json
from pipelines.spec import Component

# StableDiffusion3Pipeline's max_sequence_length; T5 itself has no limit.
LONGEST = 256
# The files that hold a vocabulary; from none of these, transformers makes a tokenizer without one.
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
# Graphs are checked at half the length.
SHORTEST = 2


def token_length(checkpoint: Checkpoint, encoder: Component) -> int:
    """How many ids an encoder is given: its tokenizer's limit, at most 256."""
    path = checkpoint.folder / encoder.tokenizer / "tokenizer_config.json"
    if not path.parent.is_dir() and encoder.name in checkpoint.missing:
        return LONGEST
    length = read_json(path).get("model_max_length", LONGEST)
    # Libraries write 1e30 for a tokenizer without a limit.
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= SHORTEST:
        raise CheckpointError(
            f"{path}: got model_max_length={length!r}; it should be a number, at least {SHORTEST}"
        )
    return int(min(length, LONGEST))


def write_tokenizer(folder: Path, length: int, path: Path) -> None:
    """Write ``path`` from the tokenizer in ``folder``.

    ``tokenizers.Tokenizer.from_file(path).encode(text).ids`` are the ``length`` ids of diffusers'
    ``tokenizer(text, padding="max_length", max_length=length, truncation=True)``. Raises
    CheckpointError if the tokenizer cannot be read.
    """
    if not any(all((folder / name).is_file() for name in names) for names in _VOCABULARIES):
        raise CheckpointError(
            f"{folder} holds no tokenizer: {', or '.join(map(' and '.join, _VOCABULARIES))} "
            "should be there; download it again"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # A call leaves its padding and truncation in the backend, and so in the file.
        tokenizer("", padding="max_length", max_length=length, truncation=True)
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # a damaged file can make the library raise anything
        raise CheckpointError(
            f"{folder} holds no readable tokenizer ({reason(error)}); download it again"
        ) from error
    path.write_text(text, encoding="utf-8")
