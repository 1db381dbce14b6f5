"""Measures a full-size checkpoint and adds a record to benchmarks/results/full_size.json.

``component`` exports a component: memory, distance from torch, engine.
``written`` exports a component without running it, if it does not fit into a runtime.
``quantized`` writes a UNet's graphs in 8 and 4 bits: their bytes, and one step of each.
``served`` runs one step of one picture of an exported checkpoint on a new server.
``encoders`` serves an exported checkpoint and measures its text encoders with repeated prompts.
``operators`` measures the runtimes' treatment of a denoiser's operators.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.full_size import component, encoders, operators, quantized, served
from benchmarks.full_size.apart import Figures
from benchmarks.harness import results
from stepwise.families import FAMILIES

RESULT = "full_size"
# Jobs that need one component.
_JOBS = ("component", "written", "quantized")
# Jobs that serve an exported repository.
_SERVED = ("served", "encoders")
MADE_BY = "make full-size"


def main() -> int:
    """Measure and record. Returns the exit status, 1 if a check failed."""
    options = _parser().parse_args()
    name, figures, passed = _measured(options)
    path = results.RESULTS / f"{RESULT}.json"
    records = json.loads(path.read_text())["records"] if path.is_file() else {}
    command = " ".join(["python -m benchmarks.full_size", *sys.argv[1:]])
    records[name] = {"command": command, **figures}
    results.write(RESULT, MADE_BY, {"records": records})
    return 0 if passed else 1


def _measured(options: argparse.Namespace) -> tuple[str, Figures, bool]:
    family = options.family
    if options.what in _JOBS:
        fields = (family, options.component, options.checkpoint, options.side, options.scratch)
        job = component.Job(*fields)
        if options.what == "quantized":
            figures = quantized.measure(job)
            return f"{family} {options.component} quantized", figures, quantized.passed(figures)
        if options.what == "written":
            figures = component.written(job)
            return f"{family} {options.component} written", figures, component.passed(figures)
        figures = component.measure(job, engine=options.engine)
        return f"{family} {options.component}", figures, component.passed(figures)
    if options.what == "served":
        figures = served.measure(family, options.checkpoint, options.repository)
        return f"{family} served", figures, served.passed(figures)
    if options.what == "encoders":
        return f"{family} encoders", encoders.measure(family, options.repository), True
    return f"{family} operators", operators.measure(family), True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.full_size",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parsers = parser.add_subparsers(dest="what", required=True)
    parts = {name: parsers.add_parser(name) for name in (*_JOBS, *_SERVED, "operators")}
    for name, part in parts.items():
        part.add_argument("family", choices=sorted(FAMILIES))
        if name in (*_JOBS, "served"):
            part.add_argument("--checkpoint", type=Path, required=True, help="a diffusers folder")
    for one in (parts[name] for name in _JOBS):
        one.add_argument("component", help="such as transformer, unet, t5 or vae_decoder")
        one.add_argument("--side", type=int, default=256, help="of pictures, in pixels")
        one.add_argument(
            "--scratch",
            type=Path,
            default=Path("out/full/scratch"),
            help="folder for temporary graphs (default: %(default)s)",
        )
    parts["component"].add_argument("--engine", action="store_true", help="also build an engine")
    help_ = "the repository that the checkpoint was exported into"
    for one in (parts[name] for name in _SERVED):
        one.add_argument("--repository", type=Path, required=True, help=help_)
    return parser


if __name__ == "__main__":
    sys.exit(main())
