#!/usr/bin/env bash
# If a diffusers model class rejects its config, torch's default dtype stays changed.
#
# Seen with diffusers 0.42.1 and torch 2.13.0. from_pretrained(torch_dtype=torch.float16) sets
# torch's default dtype while it constructs the model. Expected: it restores the default on errors
# too. Seen: if the model class raises for the config, float16 stays the process's default, and
# every later tensor or module without an explicit dtype is float16.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 accelerate==1.15.0 transformers==5.23.0
"$folder/venv/bin/python" - "$folder/vae" <<'PYTHON'
import json
import sys
from pathlib import Path

import diffusers
import torch

folder = Path(sys.argv[1])
sizes = {"block_out_channels": (32,), "norm_num_groups": 8, "latent_channels": 4}
diffusers.AutoencoderKL(**sizes).save_pretrained(folder)
path = folder / "config.json"
config = json.loads(path.read_text())
path.write_text(json.dumps({**config, "down_block_types": ["UnknownBlock"]}))
try:
    diffusers.AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float16)
except ValueError as error:
    print(f"diffusers {diffusers.__version__}: {type(error).__name__}: {error}")
after = torch.get_default_dtype()
print(f"torch's default dtype after it: {after}, expected torch.float32")
print(f"a new linear layer has weights in {torch.nn.Linear(1, 1).weight.dtype}")
sys.exit(after != torch.float16)
PYTHON
