#!/bin/sh
# Installs MPICH 5 with the MPI 5.0 ABI (PyPI package mpich) into DIRECTORY: the other library that object files of our header
# are linked with. Idempotent; the digest of the wheel is checked.
#
# usage: mpich-abi.sh DIRECTORY      (then DIRECTORY/lib/libmpi_abi.so, DIRECTORY/bin/mpiexec)
#
# Exit status: 0 it is there, 1 it could not be had (no network, no python3-venv), 2 wrong use.
set -eu

version=5.0.2
digest=8fed465ebff269ea2ebac179a25de02671ddf8df476e0f115be089015015cfd4

[ $# -eq 1 ] || { sed -n '5,5s/^# //p' "$0" >&2; exit 2; }
[ ! -e "$1/mpich-$version" ] || exit 0
mkdir -p "$1"
log=$1/install.log
echo "mpich==$version --hash=sha256:$digest" >"$1/requirements.txt"
if python3 -m venv --clear "$1/venv" >"$log" 2>&1 &&
    "$1/venv/bin/pip" --disable-pip-version-check install --require-hashes -r "$1/requirements.txt" >>"$log" 2>&1; then
    ln -sfn venv/bin "$1/bin"
    ln -sfn venv/lib "$1/lib"
    touch "$1/mpich-$version"
else
    echo "mpich-abi: cannot install the PyPI package mpich $version (network? python3-venv?), see $log" >&2
    exit 1
fi
