#!/bin/sh
# Build Python and torch for ARM64 in build/arm64 and print the path of an interpreter that runs
# them under qemu-aarch64. Nothing is installed on this machine, and root is not needed.
#
#     QEMU_CPU=cortex-a72 PYTHONPATH=src $(tests/emulated/arm64.sh) -m refashion.selftest
#
# Exit code 2: this machine lacks what it takes, and the error names it. 1: the build failed.
set -eu

script=$(realpath "$0")
cd "$(dirname "$script")/../.."
PATH=$PWD/.venv/bin:$PATH
folder=$PWD/build/arm64
python=$folder/python
# From 2.11 on, torch's ARM64 wheels ask for gigabytes of CUDA.
packages="torch==2.8.0 numpy==2.3.5"

fail() {
    echo "error: $1" >&2
    exit "$2"
}

need() {
    command -v "$1" >/dev/null || fail "emulated ARM64 needs $1 ($2)" 2
}

# apt with a state of its own: as if on an ARM64 machine on which nothing is installed yet.
apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" \
        -o Dir::Cache="$folder/apt" -o APT::Install-Recommends=false "$@" >&2
}

need qemu-aarch64 "Debian: apt install qemu-user"
mkdir -p build
exec 9>"$folder.lock"
flock 9 # one build at a time
# The interpreter is put in place last, so it is there if and only if the build is complete.
if [ "$python" -nt "$script" ]; then
    echo "$python"
    exit
fi
need apt-get "that is, Debian"
need uv "make environment"

# What an interrupted build left is not trusted. torch, the bulk, comes from uv's cache by then.
echo "Building Python and torch for ARM64 in $folder (140 MB to download, a minute)" >&2
root=$folder/root
rm -rf "$folder"
mkdir -p "$root" "$folder/apt/lists/partial" "$folder/apt/archives/partial"
: >"$folder/apt/status"
apt update || fail "apt cannot read its sources for ARM64" 1
apt install --yes --download-only python3 libstdc++6 ||
    fail "apt's sources have no Python for ARM64 (Debian's have)" 1
for package in "$folder"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
# From Debian 13 on, /lib is a link that comes with none of these packages.
[ -e "$root/lib" ] || ln -s usr/lib "$root/lib"

version=$(readlink "$root/usr/bin/python3") # as in python3.11
# shellcheck disable=SC2086 # several words
uv pip install --quiet --python-platform aarch64-manylinux_2_28 --python-version "${version#python}" \
    --only-binary :all: --target "$root/usr/local/lib/$version/dist-packages" $packages ||
    fail "uv cannot install $packages for ARM64" 1

cat >"$python.new" <<'END'
#!/bin/sh
# Python on ARM64; QEMU_CPU names the processor, one of `qemu-aarch64 -cpu help`.
root=$(dirname "$0")/root
export PYTHONNOUSERSITE=1 # what is there is for this machine's processor
exec qemu-aarch64 -L "$root" "$root/usr/bin/python3" "$@"
END
chmod +x "$python.new"
"$python.new" -c "import torch" || fail "the emulated Python cannot import torch" 1
mv "$python.new" "$python"
echo "$python"
