import shutil
import subprocess
from dataclasses import replace

import onnx_ir as ir
import psutil
import pytest

from stepwise.description.graph_files import GRAPH
from stepwise.export.errors import ResourceError
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.preflight import resources
from stepwise.export.preflight.resources import Cost
from stepwise.export.repository.layout import PRECISIONS, Target
from stepwise.families import FAMILIES
from tests.support.paths import ROOT, STEPWISE

MINIATURE = ROOT / "miniatures" / "sd3"
SD3 = FAMILIES["sd3"]
HUGE = 1 << 60


def target(repository, precision="fp32"):
    return Target(open_checkpoint(MINIATURE, SD3), repository, "sd3", precision)


def weights(path):
    return sum(v.const_value.nbytes for v in ir.load(path).graph.initializers.values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_costs_match_the_export(families, halves, precision):
    where = target({"fp32": families, "fp16": halves}[precision], precision)
    for cost, component in zip(resources.costs(where, SD3.components), SD3.components, strict=True):
        module = load(where.checkpoint, component)
        # The grid of position embeddings is a buffer, but files store it like a weight.
        buffers = sum(b.numel() for b in module.buffers() if b.is_floating_point())
        assert cost.parameters == sum(p.numel() for p in module.parameters()) + buffers
        assert cost.stored == 2 * cost.parameters
        assert cost.scratch == (cost.stored if precision == "fp16" else 0)
        got = weights(where.version(component) / GRAPH)
        print(f"{component.name}: {got} bytes, {cost.written}")
        # The file of an autoencoder also holds an encoder.
        assert got <= 1.02 * cost.written
        assert component is SD3.decoder or got >= 0.95 * cost.written


def test_a_dry_run_prints_the_costs_of_components_and_writes_nothing(tmp_path):
    command = [STEPWISE, "export", "sd3", "--checkpoint", str(MINIATURE), "--dry-run"]
    command += ["--repository", str(tmp_path / "repository")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stdout)
    header, *rows, total = done.stdout.splitlines()
    assert header.split() == ["component", "parameters", "stored", "memory", "disk", "scratch"]
    assert [row.split()[0] for row in rows] == [component.name for component in SD3.components]
    assert total.startswith("at most 2.")
    assert not (tmp_path / "repository").exists()


def test_an_export_that_does_not_fit_into_memory_is_refused(tmp_path):
    cost = Cost("t5", parameters=1, stored=HUGE, written=1, scratch=0)
    with pytest.raises(ResourceError) as error:
        resources.check(target(tmp_path), [replace(cost, stored=1), cost])
    message = str(error.value)
    available = psutil.virtual_memory().total / 1e9
    print(f"{message} ({available:.2f} GB in all)")
    assert message.startswith("t5 needs 1152921506.75 GB of memory where ")
    assert "--precision fp16" in message


def test_an_export_that_does_not_fit_on_the_disk_is_refused(tmp_path):
    costs = [Cost(name, 1, stored=1, written=1, scratch=HUGE) for name in ("clip_l", "t5")]
    with pytest.raises(ResourceError) as error:
        resources.check(target(tmp_path / "not" / "there", "fp16"), costs)
    message = str(error.value)
    print(f"{message} ({shutil.disk_usage(tmp_path).total / 1e9:.2f} GB in all)")
    assert "needs 1152921504.61 GB of disk" in message
    assert "--repository" in message
    assert "--precision" not in message
