"""``python -m export``: a checkpoint into a model repository."""

import argparse
import gc
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from export import budget, finished, report
from export.configs import REPOSITORY, write_committed
from export.errors import CheckpointError, ExportError
from export.libraries import LIBRARIES, compute_capability, load
from export.quantization import BUDGETS, PLAN, PROMPTS, Quantization
from export.sources import open_source
from export.target import PRECISIONS, Target
from pipelines import PIPELINES

log = logging.getLogger("export")


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command, or of these words; leaves the process if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a checkpoint to ONNX graphs, check them against torch, and write "
        "them with their Triton configs, tokenizers and manifest into a model repository. "
        "What is already there from the same checkpoint is kept.",
    )
    parser.add_argument("pipeline", choices=sorted(PIPELINES), help="the family of the checkpoint")
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a folder in the diffusers layout, one .safetensors file as model sites publish SDXL "
        "fine-tunes, or a repository on the Hugging Face Hub, such as stabilityai/sdxl-turbo",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FOLDER",
        help="for one file: a diffusers folder with other configs and tokenizers than SDXL's own",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="a LoRA to fuse into the weights, at scale 1 unless given; may be repeated",
    )
    parser.add_argument(
        "--repository", type=Path, default=REPOSITORY, help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--name", type=_name, help="what Triton is to call the pipeline (default: its family)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="what graphs compute in; fp16 keeps float32 where float16 overflows "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=("onnx", *LIBRARIES),
        default="onnx",
        help="onnx: graphs alone; tensorrt, tensorrt-rtx: engines beside them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--compute-capability",
        type=_capability,
        metavar="X.Y",
        help="the GPU to build tensorrt-rtx engines for (default: this machine's, or else 8.9)",
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
        help="quantize the UNet so that its weights take at most so many bytes",
    )
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help=f"quantize the UNet as this file says, such as the {PLAN} that lies beside a "
        "quantized graph; it may be edited",
    )
    parser.add_argument(
        "--protect",
        action="append",
        default=[],
        metavar="LAYER",
        help="a layer to leave as it is, such as conv_in or '*.proj_out'; may be repeated",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        default=PROMPTS,
        metavar="FILE",
        help="prompts to calibrate with, one a line, like those that will be asked for "
        "(default: 32 of our own)",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help=f"print how far each graph is from torch, which {report.FILE} beside the manifest has",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what the graphs of each component need of memory and disk, and write nothing",
    )
    arguments = parser.parse_args(words)
    if arguments.compute_capability and arguments.target == "onnx":
        parser.error("--compute-capability: graphs run on any GPU; leave it out or name a --target")
    if len([way for way in _ways(arguments) if way]) > 1:
        parser.error("--quantize, --memory-budget, --plan: name one of them, each says it all")
    if arguments.protect and not (arguments.quantize or arguments.memory_budget):
        parser.error("--protect: goes with --quantize or --memory-budget; a plan can be edited")
    return arguments


def _ways(arguments: argparse.Namespace) -> tuple[object, ...]:
    return arguments.quantize, arguments.memory_budget, arguments.plan


def _quantization(arguments: argparse.Namespace) -> Quantization | None:
    if not any(_ways(arguments)):
        return None
    budget, protected = arguments.quantize or arguments.memory_budget or "", arguments.protect
    return Quantization(arguments.prompts, budget, arguments.plan, tuple(protected))


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
    """Export what the arguments name unless it is there already, and print what was made."""
    pipeline = PIPELINES[arguments.pipeline]
    name = arguments.name or pipeline.family
    capability = None
    if arguments.target != "onnx":
        load(arguments.target)
        capability = compute_capability(arguments.target, arguments.compute_capability)
    checkpoint = open_source(arguments.checkpoint, pipeline, arguments.config, arguments.lora)
    quantization = _quantization(arguments)
    if quantization:
        from export.mixdq.wish import check_wish

        check_wish(checkpoint, quantization)
    target = Target(checkpoint, arguments.repository, name, arguments.precision, quantization)
    if arguments.dry_run:
        found = budget.costs(target, checkpoint.pipeline.components)
        print(budget.table(found))
        budget.check(target, found)
        return
    log.info("reading %s", " with ".join(map(str, (checkpoint.origin, *checkpoint.loras))))
    _export_graphs(target)
    rows = report.read(target.prepare)
    print(report.table(rows) if arguments.verbose else report.summary(rows))
    if capability is not None:
        from export.engines import build_engines, table

        print(table(build_engines(target, arguments.target, capability)))


def _export_graphs(target: Target) -> None:
    """Export what is not there from the same checkpoint."""
    start, checkpoint = time.monotonic(), target.checkpoint
    if finished.is_finished(target):
        write_committed(checkpoint.pipeline, target.name, target.repository)
        log.info("%s: reused; it was made from the same checkpoint", target.prepare)
        return
    components = checkpoint.pipeline.components
    due = [part for part in components if finished.read(target, part) is None]
    if due:
        budget.check(target, budget.costs(target, due))
    # Imports that take seconds, which an export that is already there need not wait for.
    from export.rehearsal import ONCE, VARIED, rehearse
    from export.repository import export

    # Else each garbage collection goes through all imported libraries, which takes 0.3 s.
    gc.freeze()
    feeds = rehearse(checkpoint, VARIED if target.precision == "fp16" else ONCE)
    gc.freeze()
    # Nothing before this touches the repository.
    write_committed(checkpoint.pipeline, target.name, target.repository)
    for name in checkpoint.missing:
        log.info("%s: missing from the checkpoint; zeros take its place", name)
    export(target, feeds)
    log.info("%s: exported in %.0f s", target.repository, time.monotonic() - start)


def main() -> int:
    """Exit status: 0 done, 1 a graph is wrong, 2 the checkpoint is."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm():
            run(parsed())
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
