"""``python -m export``, for this release: ``stepwise export`` has taken its place."""

import sys

from stepwise.export.cli import main

if __name__ == "__main__":
    print("python -m export is going: type stepwise export instead", file=sys.stderr)
    sys.exit(main(sys.argv[1:]))
