#!/usr/bin/env bash
# On a machine with a GPU: builds in place with the ambient python, runs the whole suite with every CUDA test
# demanded, and leaves one log. Needs no network. Usage: tests/gpu_gate.sh [LOG]
set -euo pipefail
cd "$(dirname "$0")/.."
LOG=${1:-gpu_gate.log}
PYTHON=${PYTHON:-python3}
export S2MLP_REQUIRE_GPU=1 S2MLP_CUDA=1

gate() {
    date -u
    git log -1 --format='commit %H' || echo 'commit unknown: not a git checkout'
    nvidia-smi
    "$PYTHON" setup.py build_ext --inplace
    "$PYTHON" -m s2mlp_cuda info
    "$PYTHON" -m pytest
}

gate 2>&1 | tee "$LOG"
