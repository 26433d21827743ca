#!/usr/bin/env bash
# Everything that needs a GPU, in one command and without a network: builds in place with the ambient python, runs the
# whole suite with every CUDA test demanded, compute-sanitizer over every kernel, and the benchmark, which writes
# benchmarks/results/<gpu>/. All steps run; the exit status is 0 when all of them passed.
# Usage: tests/gpu_gate.sh [LOG]
set -uo pipefail
cd "$(dirname "$0")/.."
LOG=${1:-gpu_gate.log}
PYTHON=${PYTHON:-python3}
export S2MLP_REQUIRE_GPU=1 S2MLP_CUDA=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
FAILED=()

step() {
    local name=$1
    shift
    echo "=== $name ($(date -u +%T))"
    "$@" || FAILED+=("$name")
}

sanitize() {
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --error-exitcode 1 --tool "$@"
}

suite() {
    local parallel=()
    "$PYTHON" -c 'import xdist' 2>/dev/null && parallel=(-n 8 --dist loadfile)
    # What these need from a network, and show, is the same without a GPU.
    "$PYTHON" -m pytest "${parallel[@]}" --ignore tests/binary/test_wheel.py --ignore tests/test_lint.py
}

gate() {
    git log -1 --format='commit %H' || echo 'commit unknown: not a git checkout'
    nvidia-smi
    step build "$PYTHON" setup.py build_ext --inplace
    step info "$PYTHON" -m s2mlp_cuda info
    step suite suite
    step memcheck sanitize memcheck "$PYTHON" tests/gpu_sanitizer_cases.py
    step racecheck sanitize racecheck "$PYTHON" tests/gpu_sanitizer_cases.py branches  # the kernels with shared memory
    step initcheck sanitize initcheck "$PYTHON" tests/gpu_sanitizer_cases.py
    local gpu
    gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-')
    step benchmark "$PYTHON" -m s2mlp_cuda bench --full --out "benchmarks/results/$gpu"
    echo "=== done ($(date -u +%T))"
    if [ ${#FAILED[@]} -gt 0 ]; then
        echo "FAILED: ${FAILED[*]}"
        return 1
    fi
    echo "all steps passed"
}

gate 2>&1 | tee "$LOG"
