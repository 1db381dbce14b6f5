"""Paths of the project and its command."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The installed command ``stepwise``.
STEPWISE = str(Path(sys.executable).with_name("stepwise"))
