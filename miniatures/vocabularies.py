"""The miniatures' tokenizers: the real classes, with each caption word as one token."""

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

from miniatures.captions import SCENES

MAX_TOKENS = 20
_WORDS = sorted({word for scene in SCENES for word in scene.caption.split()})


def _merges() -> list[tuple[str, str]]:
    """Byte-pair merges that join each word of the grammar, learned from the captions."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>")
    learner.train_from_iterator(_WORDS, trainer)
    ranked = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    known, merges = {token for token, _ in ranked}, []
    for token, _ in ranked:
        bare = token.removesuffix("</w>")
        if len(bare) > 1:
            merges.append(_halves(bare, token.endswith("</w>"), known))
    return merges


def _halves(word: str, final: bool, known: set[str]) -> tuple[str, str]:
    """Two known tokens that form ``word``, with the longest first half."""
    suffix = "</w>" if final else ""
    for cut in range(len(word) - 1, 0, -1):
        if word[:cut] in known and word[cut:] + suffix in known:
            return word[:cut], word[cut:] + suffix
    raise ValueError(f"no two known tokens form {word!r}")


def clip_tokenizer(pad_token: str) -> CLIPTokenizer:
    """A CLIP tokenizer of all bytes and the grammar's words, at most 20 tokens.

    ``pad_token`` is ``<|endoftext|>`` for CLIP-L and ``!`` for CLIP-G, as in SD3 and SDXL.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges()
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += ["".join(merge) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=MAX_TOKENS
    )


def t5_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer of printable ASCII and the grammar's words, at most 20 tokens."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    words = [("▁" + word, -4.0) for word in _WORDS]
    characters = [(chr(code), -8.0) for code in range(ord("!"), ord("~") + 1)]
    vocabulary = special + words + characters
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=MAX_TOKENS)
