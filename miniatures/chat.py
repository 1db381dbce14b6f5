"""The EasyAnimate miniature's tokenizer: Qwen's class, with each caption word as one token."""

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from miniatures.videos import VIDEOS

PAD = "<|endoftext|>"
_SPECIAL = (PAD, "<|im_start|>", "<|im_end|>")
# Qwen2-VL's template without its system prompt.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}{{ content['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# EasyAnimatePipeline pads prompts to this length.
MAX_TOKENS = 256


def _words() -> list[str]:
    """The words of all captions: the first word, and the others with their leading space."""
    within = {f" {word}" for video in VIDEOS for word in video.caption.split()[1:]}
    return sorted(within | {"a", "user", "assistant"})


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A byte-level tokenizer of all bytes and the grammar's words, with a chat template."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, initial_alphabet=letters)
    learner.train_from_iterator(_words(), trainer)
    vocabulary = learner.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = _merges(tokens[len(letters) :], set(letters))
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate([*tokens, *_SPECIAL])},
        merges=merges,
        pad_token=PAD,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=TEMPLATE,
        model_max_length=MAX_TOKENS,
    )


def _merges(learned: list[str], known: set[str]) -> list[tuple[str, str]]:
    """Two known tokens that form each learned one, in order, with the longest first half."""
    merges = []
    for token in learned:
        halves = ((token[:cut], token[cut:]) for cut in range(len(token) - 1, 0, -1))
        merges.append(next(pair for pair in halves if known.issuperset(pair)))
        known.add(token)
    return merges


def templated(tokenizer: Qwen2Tokenizer, prompt: str) -> str:
    """The chat text that EasyAnimatePipeline builds from a prompt."""
    message = {"role": "user", "content": [{"type": "text", "text": prompt}]}
    text: str = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return text
