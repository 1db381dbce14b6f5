"""Renders chats with a chat template, as a program with little time and memory.

Templates come with checkpoints. Jinja's sandbox keeps them from running code, but not from endless
loops or endless text. The program imports nothing of ours, so that it starts fast:

    echo '{"template": "…", "chats": […], "tokens": {…}}' | python render_template.py

prints {"texts": […]} or {"error": "…"}. CPU_SECONDS after its start, SIGXCPU ends it.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

CPU_SECONDS = 3
_MEMORY_BYTES = 500_000_000
MOST_CHARACTERS = 100_000


def _limit() -> None:
    """Limit what the process takes on top of what imports have taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    # At the second limit the kernel sends SIGKILL, which would not say why.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _rendered(given: dict[str, Any]) -> dict[str, Any]:
    answer: Any = render_jinja_template(
        given["chats"],
        chat_template=given["template"],
        add_generation_prompt=True,
        **given["tokens"],
    )
    texts = answer[0]
    longest = max(map(len, texts))
    if longest > MOST_CHARACTERS:
        return {"error": f"it makes {longest:,} characters of a prompt"}
    return {"texts": texts}


def main() -> None:
    """Read from the standard input, print the texts."""
    given = json.load(sys.stdin)
    _limit()
    try:
        answer = _rendered(given)
    except MemoryError:
        answer = {"error": f"it takes more than {_MEMORY_BYTES:,} bytes of memory"}
    except Exception as error:  # a broken template can raise anything
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
