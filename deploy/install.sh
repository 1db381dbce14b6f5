#!/usr/bin/env bash
# Usage: deploy/install.sh ROLE ENVIRONMENT [PIP-OPTION…]
# Makes a virtual environment with the distributions of a ROLE, export or serve, and what they need
# in the versions of constraints.txt, for Python 3.11.
set -euo pipefail

declare -A distributions=([serve]="client serving" [export]="client serving export")
environment=$(realpath "$2")
cd "$(dirname "$0")/.."

# NVIDIA's image has pip but not ensurepip, so the image's pip fills the environment.
python3 -m venv --without-pip "$environment"
# shellcheck disable=SC2086
PIP_CONSTRAINT=constraints.txt python3 -m pip --python "$environment" install \
    --only-binary :all: $(printf './%s ' ${distributions[$1]}) "${@:3}"
