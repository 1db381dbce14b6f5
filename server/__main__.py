"""``python -m server``, deprecated: use ``stepwise serve`` and ``stepwise check`` instead."""

import sys

from stepwise.server.cli import check, serve

if __name__ == "__main__":
    checks, words = (
        sys.argv[1:2] == ["check"],
        [w for w in sys.argv[1:] if w not in ("check", "serve")],
    )
    command = "check" if checks else "serve"
    print(f"python -m server is deprecated: use stepwise {command} instead", file=sys.stderr)
    sys.exit(check(words) if checks else serve(words))
