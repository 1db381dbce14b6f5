"""Code shared by the miniatures' checkpoints: CLIP text encoders and the layout on disk."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import CLIPTextConfig, PreTrainedModel

from miniatures.vocabularies import MAX_TOKENS


def clip_config(hidden: int, layers: int, activation: str, vocabulary: int) -> CLIPTextConfig:
    """Config of a small CLIP text encoder; the vocabulary's last two tokens are BOS and EOS."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        hidden_act=activation,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        initializer_factor=1.0,
    )


def tokenize(tokenizer: Any, captions: list[str]) -> Any:
    """Token ids padded as in the pipelines, int64, shape (len(captions), 20)."""
    return tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def save(output: Path, pipeline: str, parts: Mapping[str, Any], **settings: object) -> None:
    """Write ``parts`` in the layout of the diffusers class ``pipeline``, weights as fp16.

    A part given as a class is already on disk. ``settings`` are added to ``model_index.json``.
    """
    index: dict[str, object] = {"_class_name": pipeline, **settings}
    for name, part in parts.items():
        kind = part if isinstance(part, type) else type(part)
        index[name] = [kind.__module__.partition(".")[0], kind.__name__]
        if part is not kind:
            save_part(part, output / name)
    text = json.dumps(dict(sorted(index.items())), indent=2)
    (output / "model_index.json").write_text(text + "\n")


def save_part(part: Any, folder: Path) -> None:
    """Save as fp16, without the path that a model was loaded from.

    The config makes transformers load float32 by default, as diffusers does.
    """
    if not isinstance(part, nn.Module):
        part.save_pretrained(folder)
        return
    part.half().save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if isinstance(part, PreTrainedModel):
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")
