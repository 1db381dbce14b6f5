"""``python -m server``, for this release: ``stepwise serve`` and ``check`` have taken its place."""

import sys

from stepwise.server.cli import check, serve

if __name__ == "__main__":
    checks, words = (
        sys.argv[1:2] == ["check"],
        [w for w in sys.argv[1:] if w not in ("check", "serve")],
    )
    command = "check" if checks else "serve"
    print(f"python -m server is going: type stepwise {command} instead", file=sys.stderr)
    sys.exit(check(words) if checks else serve(words))
