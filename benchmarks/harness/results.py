"""Writes results as JSON, with the command and the machine, and prints them."""

import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


def write(name: str, command: str, figures: dict[str, Any]) -> None:
    """Write ``benchmarks/results/<name>.json`` and print its figures."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"command": command, "machine": _machine(), **figures}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    _print(figures)
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _print(figures: dict[str, Any], indent: str = "") -> None:
    """Print one figure per line, and nested tables indented."""
    for key, value in figures.items():
        name = f"{indent}{key.replace('_', ' ')}"
        if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
            print(name)
            _print(value, f"{indent}  ")
        else:
            print(f"{name:44} {value}")


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": models[0], "cores": os.cpu_count(), "python": platform.python_version()}
