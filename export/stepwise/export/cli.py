"""``stepwise export``: exports a checkpoint into a model repository."""

import argparse
import gc
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.contrib.logging import logging_redirect_tqdm

from stepwise.export.errors import CheckpointError, ExportError
from stepwise.export.loading.source import open_source
from stepwise.export.onnx import parity_report
from stepwise.export.options import BUDGETS, PLAN, PROMPTS, Quantization
from stepwise.export.preflight import resources
from stepwise.export.repository import records
from stepwise.export.repository.layout import PRECISIONS, Target
from stepwise.export.repository.triton_configs import REPOSITORY, write_committed
from stepwise.export.tensorrt.libraries import LIBRARIES, compute_capability, load
from stepwise.families import FAMILIES

if TYPE_CHECKING:
    from stepwise.export.tensorrt.build import Report

log = logging.getLogger("stepwise.export")


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command's arguments; exits the process with a usage message if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="stepwise export",
        description="Export a checkpoint to ONNX graphs, check them against torch, and write "
        "them with their Triton configs, tokenizers and manifest into a model repository. "
        "Graphs that were made from the same checkpoint are reused.",
    )
    parser.add_argument("pipeline", choices=sorted(FAMILIES), help="the checkpoint's model family")
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a folder in the diffusers layout, a single .safetensors file (the usual format of "
        "SDXL fine-tunes), or a Hugging Face Hub repository such as stabilityai/sdxl-turbo",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FOLDER",
        help="for a single file: a diffusers folder with configs and tokenizers to use instead of "
        "SDXL's own",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="a LoRA to fuse into the weights (default scale: 1); may be repeated",
    )
    parser.add_argument(
        "--repository", type=Path, default=REPOSITORY, help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--name", type=_name, help="the pipeline's name in Triton (default: the family's name)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="the type that graphs compute in; fp16 keeps float32 where float16 overflows "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=("onnx", *LIBRARIES),
        default="onnx",
        help="onnx: graphs only; tensorrt, tensorrt-rtx: graphs and engines (default: %(default)s)",
    )
    parser.add_argument(
        "--compute-capability",
        type=_capability,
        metavar="X.Y",
        help="the GPU to build tensorrt-rtx engines for (default: this machine's, else 8.9)",
    )
    parser.add_argument(
        "--quantize",
        choices=BUDGETS,
        help="quantize the UNet with MixDQ: 8-bit activations, and weights of 8, about 5 or about "
        "4 bits",
    )
    parser.add_argument(
        "--memory-budget",
        type=_bytes,
        metavar="BYTES",
        help="quantize the UNet so that its weights take at most this many bytes",
    )
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help=f"quantize the UNet by this plan, such as the {PLAN} next to a quantized graph; it "
        "may be edited",
    )
    parser.add_argument(
        "--protect",
        action="append",
        default=[],
        metavar="LAYER",
        help="a layer not to quantize, such as conv_in or '*.proj_out'; may be repeated",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        default=PROMPTS,
        metavar="FILE",
        help="calibration prompts, one per line, similar to those of future requests "
        "(default: 32 built-in prompts)",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help=f"print each graph's difference from torch, as in {parity_report.FILE}",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the memory and disk that each component's export needs, and write nothing",
    )
    arguments = parser.parse_args(words)
    if arguments.compute_capability and arguments.target == "onnx":
        parser.error("--compute-capability: graphs run on any GPU; omit it or give a --target")
    if len([way for way in _ways(arguments) if way]) > 1:
        parser.error("--quantize, --memory-budget, --plan: got more than one; give only one")
    if arguments.protect and not (arguments.quantize or arguments.memory_budget):
        parser.error("--protect: needs --quantize or --memory-budget; edit a --plan instead")
    return arguments


def _ways(arguments: argparse.Namespace) -> tuple[object, ...]:
    return arguments.quantize, arguments.memory_budget, arguments.plan


def _quantization(arguments: argparse.Namespace) -> Quantization | None:
    if not any(_ways(arguments)):
        return None
    limit, protected = arguments.quantize or arguments.memory_budget or "", arguments.protect
    return Quantization(arguments.prompts, limit, arguments.plan, tuple(protected))


def _bytes(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; it should be a number of bytes")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; letters, digits, - and _ are allowed, the first a letter or digit"
        )
    return text


def _capability(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d", text):
        raise argparse.ArgumentTypeError(f"got {text!r}; it should look like 8.9")
    return text


def run(arguments: argparse.Namespace) -> None:
    """Export the checkpoint, unless a finished export exists, and print its parity and engines."""
    family = FAMILIES[arguments.pipeline]
    name = arguments.name or family.name
    capability = None
    if arguments.target != "onnx":
        load(arguments.target)
        capability = compute_capability(arguments.target, arguments.compute_capability)
    checkpoint = open_source(arguments.checkpoint, family, arguments.config, arguments.lora)
    quantization = _quantization(arguments)
    if quantization:
        from stepwise.export.quantize.validate import validate

        validate(checkpoint, quantization)
    target = Target(checkpoint, arguments.repository, name, arguments.precision, quantization)
    if arguments.dry_run:
        found = resources.costs(target, checkpoint.family.components)
        print(resources.table(found))
        resources.check(target, found)
        return
    log.info("reading %s", " with ".join(map(str, (checkpoint.origin, *checkpoint.loras))))
    _export_graphs(target)
    rows = parity_report.read(target.folder)
    print(parity_report.table(rows) if arguments.verbose else parity_report.summary(rows))
    if capability is not None:
        from stepwise.export.tensorrt.build import build_engines, table

        report = _reporter(target)
        print(table(build_engines(target, arguments.target, capability, report)))


def _reporter(target: Target) -> "Report":
    from stepwise.export.tensorrt.build import unreported

    if target.quantization is None:
        return unreported
    from stepwise.export.quantize import artifacts

    return artifacts.report


def _export_graphs(target: Target) -> None:
    """Export the components that the repository lacks for this checkpoint."""
    start, checkpoint = time.monotonic(), target.checkpoint
    if records.is_finished(target):
        write_committed(checkpoint.family, target.name, target.repository)
        log.info("%s: reused; it was made from the same checkpoint", target.folder)
        return
    components = checkpoint.family.components
    due = [part for part in components if records.read(target, part) is None]
    if due:
        resources.check(target, resources.costs(target, due))
    # These imports take seconds; a finished export does not need them.
    from stepwise.export.preflight.smoke_test import ONCE, VARIED, rehearse
    from stepwise.export.run import export

    # Otherwise each garbage collection scans all imported libraries, which takes 0.3 s.
    gc.freeze()
    feeds = rehearse(checkpoint, VARIED if target.precision == "fp16" else ONCE)
    gc.freeze()
    # Nothing before this touches the repository.
    write_committed(checkpoint.family, target.name, target.repository)
    for name in checkpoint.missing:
        log.info("%s: missing from the checkpoint; zeros take its place", name)
    export(target, feeds)
    log.info("%s: exported in %.0f s", target.repository, time.monotonic() - start)


def main(words: list[str]) -> int:
    """Run the command. Exit status: 0 success, 1 an export error, 2 a CheckpointError."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm():
            run(parsed(words))
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else 1
    return 0
