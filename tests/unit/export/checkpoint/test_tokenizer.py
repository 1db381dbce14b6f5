"""Tokenizers of a checkpoint are read without running its code."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

READ = """
import sys
from pathlib import Path
from stepwise.export.checkpoint.tokenizer import write_tokenizer
from stepwise.export.errors import CheckpointError
try:
    write_tokenizer(Path(sys.argv[1]), 20, Path(sys.argv[2]))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("local", [True, False])
def test_code_that_a_tokenizer_names_never_runs(tmp_path, local):
    folder, ran = tmp_path / "tokenizer", tmp_path / "ran"
    shutil.copytree(ROOT / "miniatures" / "sd3" / "tokenizer", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    if not local:
        config["tokenizer_class"] = "OwnTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    code = f"open({str(ran)!r}, 'w')\nclass OwnTokenizer: pass\n"
    (folder / "tokenization_own.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", READ, folder, tmp_path / "tokenizer.json"],
        input="y\n" * 3,  # transformers asks on the terminal by default
        capture_output=True,
        text=True,
        timeout=60,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert not ran.exists()
    assert (tmp_path / "tokenizer.json").exists() or str(folder) in done.stdout
