#!/usr/bin/env bash
# Usage: deploy/install.sh ROLE ENVIRONMENT
# Makes a virtual environment with what deploy/ROLE.txt lists, for Python 3.11 or later.
set -euo pipefail

role=$1
environment=$(realpath "$2")
cd "$(dirname "$0")/.."

# NVIDIA's image has pip but not ensurepip, so the image's pip fills the environment.
python3 -m venv --without-pip "$environment"
PIP_CONSTRAINT=constraints.txt python3 -m pip --python "$environment" install \
    --only-binary :all: --requirement "deploy/$role.txt"
