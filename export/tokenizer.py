"""A checkpoint's tokenizers as files for the ``tokenizers`` library, with lengths built in."""

from pathlib import Path

from transformers import AutoTokenizer

from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.weights import read_json
from pipelines.spec import Component

# StableDiffusion3Pipeline's max_sequence_length; T5 itself has no limit.
LONGEST = 256


def token_length(checkpoint: Checkpoint, encoder: Component) -> int:
    """How many ids an encoder is given: its tokenizer's limit, at most 256."""
    path = checkpoint.folder / encoder.tokenizer / "tokenizer_config.json"
    if not path.is_file():
        return LONGEST
    return min(int(read_json(path).get("model_max_length", LONGEST)), LONGEST)


def write_tokenizer(folder: Path, length: int, path: Path) -> None:
    """Write ``path`` from the tokenizer in ``folder``.

    ``tokenizers.Tokenizer.from_file(path).encode(text).ids`` are the ``length`` ids of diffusers'
    ``tokenizer(text, padding="max_length", max_length=length, truncation=True)``. Raises
    CheckpointError if the tokenizer cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise CheckpointError(f"{folder} holds no readable tokenizer: {reason}") from error
    # A call leaves its padding and truncation in the backend, and so in the file.
    tokenizer("", padding="max_length", max_length=length, truncation=True)
    path.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
