"""``python -m client``: deprecated, use ``stepwise``."""

import sys

from stepwise.client.cli import generate
from stepwise.client.cli.main import main

if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] in (["page"], ["presets"], ["repeat"]):
        print(f"python -m client is deprecated: use stepwise {words[0]}", file=sys.stderr)
        sys.exit(main(words))
    print(
        "python -m client is deprecated: use stepwise generate or stepwise video",
        file=sys.stderr,
    )
    sys.exit(generate.either(words))
