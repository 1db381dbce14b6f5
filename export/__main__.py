"""``python -m export``, deprecated: use ``stepwise export``."""

import sys

from stepwise.export.cli import main

if __name__ == "__main__":
    print("python -m export is deprecated: use stepwise export", file=sys.stderr)
    sys.exit(main(sys.argv[1:]))
