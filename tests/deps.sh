#!/bin/bash
# Installs the Debian packages that Partita's build, tests and demo need. Idempotent; does nothing when all are there.
set -euo pipefail

packages="gcc g++ gfortran make musl-tools libclang-dev mpich libmpich-dev libopenblas-serial-dev dpkg-dev python3 python3-venv valgrind"
packages="$packages etcd-server iproute2 iperf3 qemu-system-x86 libfabric-dev"
if [ "${PARTITA_MACHINE:-}" = emulated ] || ! { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }; then
    # No KVM here, or it is not to be used: tests and demo run in an emulated machine (tests/machine/with-kvm).
    packages="$packages busybox-static kmod cpio"
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
command -v cargo >/dev/null || { echo "deps: no cargo: install Rust 1.95 or newer (rustup.rs), then run this again" >&2; exit 1; }
[ -n "$missing" ] || exit 0

echo "installing:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get -qq update
DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends $missing >/dev/null
