"""Writes a checkpoint's tokenizers as files of the ``tokenizers`` library that pad and truncate."""

import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.checkpoint.safetensors_files import read_json
from stepwise.export.errors import CheckpointError, reason

# StableDiffusion3Pipeline's and EasyAnimatePipeline's max_sequence_length; T5 has no limit.
LONGEST = 256
# Files that hold a vocabulary; without any, transformers makes a tokenizer with an empty one.
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
# Graphs are checked at half the length.
SHORTEST = 2
_RENDERER = Path(__file__).with_name("render_template.py")
# The program ends itself sooner, unless it gets no processor.
_RENDERER_SECONDS = 120
# Prompts that a chat template must leave unchanged.
_PROBES = ("a star", "", "  two\nlines \n\n", "<b>&amp; {{ it }} {% if %}")


def token_length(checkpoint: Checkpoint, encoder: Component) -> int:
    """The number of ids that an encoder takes: its tokenizer's limit up to 256; 256 for a chat.

    Raises CheckpointError if the limit is not a number of at least 2.
    """
    path = checkpoint.folder / encoder.tokenizer / "tokenizer_config.json"
    if encoder.chat or (not path.parent.is_dir() and encoder.name in checkpoint.missing):
        return LONGEST
    length = read_json(path).get("model_max_length", LONGEST)
    # Libraries write 1e30 for a tokenizer without a limit.
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= SHORTEST:
        raise CheckpointError(
            f"{path}: got model_max_length={length!r}; it should be a number, at least {SHORTEST}"
        )
    return int(min(length, LONGEST))


def chat_templates(checkpoint: Checkpoint) -> dict[str, tuple[str, str]]:
    """The text before and after a prompt in a chat, by encoder.

    Raises CheckpointError if a tokenizer has no chat template, or one that changes prompts.
    """
    return {
        encoder.name: _template(checkpoint.folder / encoder.tokenizer)
        for encoder in checkpoint.family.encoders
        if encoder.chat
    }


def _template(folder: Path) -> tuple[str, str]:
    tokenizer = _read(folder)
    try:
        texts = _rendered(json.dumps(_chats(tokenizer), default=str))
    except Exception as error:  # a broken template can raise anything
        raise CheckpointError(
            f"{folder} has no usable chat template ({reason(error)}), which its text encoder "
            "needs; download the checkpoint again"
        ) from error
    before, _, after = texts[0].partition(_PROBES[0])
    for prompt, text in zip(_PROBES, texts, strict=True):
        if text != f"{before}{prompt}{after}":
            raise CheckpointError(
                f"{folder}: its chat template makes {text!r:.200} of the prompt {prompt!r}; it "
                "should only put fixed text before and after the prompt"
            )
    return before, after


def _chats(tokenizer: Any) -> dict[str, Any]:
    """The probes as EasyAnimatePipeline passes prompts to ``tokenizer.apply_chat_template``."""
    contents = [[{"type": "text", "text": prompt}] for prompt in _PROBES]
    return {
        "template": tokenizer.get_chat_template(),
        "chats": [[{"role": "user", "content": content}] for content in contents],
        "tokens": tokenizer.special_tokens_map,
    }


@cache
def _rendered(chats: str) -> list[str]:
    """The texts of chats by ``render_template.py``; ValueError if its template is unusable."""
    command = [sys.executable, "-P", str(_RENDERER)]
    done = subprocess.run(
        command, input=chats, capture_output=True, text=True, timeout=_RENDERER_SECONDS, check=False
    )
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode)
        raise ValueError(
            "it takes too long" if ended == signal.SIGXCPU else f"it ends by {ended.name}"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ValueError(answer["error"])
    return list(answer["texts"])


def write_tokenizer(folder: Path, length: int, path: Path, side: str | None = None) -> None:
    """Write ``path`` from the tokenizer in ``folder``.

    ``tokenizers.Tokenizer.from_file(path).encode(text)`` then returns the ``length`` ids, and the
    attention mask, of diffusers' ``tokenizer(text, padding="max_length", max_length=length,
    truncation=True, padding_side=side)``. Raises CheckpointError if the tokenizer cannot be read.
    """
    tokenizer = _read(folder)
    try:
        # A call stores its padding and truncation in the backend, and so in the file.
        tokenizer("", padding="max_length", max_length=length, truncation=True, padding_side=side)
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # a damaged file can make the library raise anything
        raise _unreadable(folder, error) from error
    path.write_text(text, encoding="utf-8")


def write_tokenizers(checkpoint: Checkpoint, folder: Path) -> dict[str, int]:
    """Write the tokenizer of every encoder that is present; return each encoder's number of ids."""
    folder.mkdir(exist_ok=True)
    lengths = {}
    for encoder in checkpoint.family.encoders:
        lengths[encoder.name] = token_length(checkpoint, encoder)
        if encoder.name not in checkpoint.missing:
            write_tokenizer(
                checkpoint.folder / encoder.tokenizer,
                lengths[encoder.name],
                folder / f"{encoder.name}.json",
                "right" if encoder.chat else None,
            )
    return lengths


def _read(folder: Path) -> Any:
    if not any(all((folder / name).is_file() for name in names) for names in _VOCABULARIES):
        raise CheckpointError(
            f"{folder} holds no tokenizer: {', or '.join(map(' and '.join, _VOCABULARIES))} "
            "should be there; download it again"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file can make the library raise anything
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds no readable tokenizer ({reason(error)}); download it again"
    )
