import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import psutil
import pytest

from export import budget
from export.budget import Cost
from export.checkpoint import open_checkpoint
from export.errors import ResourceError
from export.loading import load
from export.target import GRAPH, PRECISIONS, Target
from pipelines import PIPELINES

ROOT = Path(__file__).parents[3]
MINIATURE = ROOT / "miniatures" / "sd3"
SD3 = PIPELINES["sd3"]
HUGE = 1 << 60


def target(repository, precision="fp32"):
    return Target(open_checkpoint(MINIATURE, SD3), repository, "sd3", precision)


def weights(path):
    return sum(v.const_value.nbytes for v in ir.load(path).graph.initializers.values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_costs_are_those_of_the_export(families, halves, precision):
    where = target({"fp32": families, "fp16": halves}[precision], precision)
    for cost, component in zip(budget.costs(where, SD3.components), SD3.components, strict=True):
        module = load(where.checkpoint, component)
        # The grid of position embeddings is a buffer, which is in the file as weights are.
        buffers = sum(b.numel() for b in module.buffers() if b.is_floating_point())
        assert cost.parameters == sum(p.numel() for p in module.parameters()) + buffers
        assert cost.stored == 2 * cost.parameters
        assert cost.scratch == (cost.stored if precision == "fp16" else 0)
        got = weights(where.version(component) / GRAPH)
        print(f"{component.name}: {got} bytes, {cost.written}")
        # The file of an autoencoder holds an encoder, too.
        assert got <= 1.02 * cost.written
        assert component is SD3.decoder or got >= 0.95 * cost.written


def test_a_dry_run_prints_what_each_component_needs_and_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "export", "sd3", "--checkpoint", str(MINIATURE), "--dry-run"]
    command += ["--repository", str(tmp_path / "repository")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stdout)
    header, *rows, total = done.stdout.splitlines()
    assert header.split() == ["component", "parameters", "stored", "memory", "disk", "scratch"]
    assert [row.split()[0] for row in rows] == [component.name for component in SD3.components]
    assert total.startswith("at most 2.")
    assert not (tmp_path / "repository").exists()


def test_an_export_that_memory_does_not_hold_is_refused(tmp_path):
    cost = Cost("t5", parameters=1, stored=HUGE, written=1, scratch=0)
    with pytest.raises(ResourceError) as error:
        budget.check(target(tmp_path), [replace(cost, stored=1), cost])
    message = str(error.value)
    available = psutil.virtual_memory().total / 1e9
    print(f"{message} ({available:.2f} GB in all)")
    assert message.startswith("t5 needs 1152921506.75 GB of memory where ")
    assert "--precision fp16" in message


def test_an_export_that_the_disk_does_not_hold_is_refused(tmp_path):
    costs = [Cost(name, 1, stored=1, written=1, scratch=HUGE) for name in ("clip_l", "t5")]
    with pytest.raises(ResourceError) as error:
        budget.check(target(tmp_path / "not" / "there", "fp16"), costs)
    message = str(error.value)
    print(f"{message} ({shutil.disk_usage(tmp_path).total / 1e9:.2f} GB in all)")
    assert "needs 1152921504.61 GB of disk" in message
    assert "--repository" in message
    assert "--precision" not in message
