"""``python -m client``, for this release: ``stepwise`` has taken its place."""

import sys

from stepwise.client.cli import generate
from stepwise.client.cli.main import main

if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] in (["page"], ["presets"], ["repeat"]):
        print(f"python -m client is going: type stepwise {words[0]} instead", file=sys.stderr)
        sys.exit(main(words))
    print(
        "python -m client is going: type stepwise generate or stepwise video instead",
        file=sys.stderr,
    )
    sys.exit(generate.either(words))
