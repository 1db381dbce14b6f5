#!/usr/bin/env bash
# Usage: deploy/install.sh ROLE ENVIRONMENT [PIP-OPTION…]
# Makes a Python 3.11 virtual environment for a ROLE, export or serve, with its distributions and
# their dependencies in the versions of constraints.txt.
set -euo pipefail

declare -A distributions=([serve]="client serving" [export]="client serving export")
environment=$(realpath "$2")
cd "$(dirname "$0")/.."

# NVIDIA's image has pip but not ensurepip, so the image's pip installs into the environment.
python3 -m venv --without-pip "$environment"
# shellcheck disable=SC2086
PIP_CONSTRAINT=constraints.txt python3 -m pip --python "$environment" install \
    --only-binary :all: $(printf './%s ' ${distributions[$1]}) "${@:3}"
