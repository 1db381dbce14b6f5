#!/usr/bin/env bash
# Usage: deploy/install_tensorrt.sh ENVIRONMENT
# Installs the Python bindings for the image's TensorRT version, because an engine runs only on the
# version that built it.
set -euo pipefail

version=$(dpkg-query --show --showformat='${source:Upstream-Version}' 'libnvinfer[0-9]*') || {
    echo "install_tensorrt: no libnvinfer package here; run this in a Triton image" >&2
    exit 1
}
# Without dependencies, which would duplicate the image's libraries.
python3 -m pip --python "$1" install --no-deps \
    "tensorrt-cu13==$version" "tensorrt-cu13-bindings==$version"
