#!/bin/bash
# make demo: natively under MPICH for the right answer, then in partitions where KVM is. DEMO=--keep leaves the cluster up.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${CARGO_TARGET_DIR:-$PWD/target}
keep=
case "${1:-}" in
'') ;;
--keep) keep=--keep ;;
*) echo "demo: unknown option $1; there is only --keep" >&2; exit 2 ;;
esac

size=512 steps=12000
if ! { [ -r /dev/kvm ] && [ -w /dev/kvm ]; } || [ "${PARTITA_MACHINE:-}" = emulated ]; then
    echo "demo: there is no usable /dev/kvm here, so the partitions run in an emulated machine: real KVM and real moves,"
    echo "demo: but times say little; the problem is made smaller."
    size=512 steps=200
fi
arguments="--size $size --steps $steps --seed 7 --every 100 --work 10,10,0,0"
echo "demo: the native result (MPICH): heat $arguments"
mpirun.mpich -np 4 "$out/apps/mpich/heat" $arguments >"$out/demo-native.txt" 2>/dev/null
tail -n 1 "$out/demo-native.txt"
PARTITA_MACHINE_TIMEOUT=${PARTITA_MACHINE_TIMEOUT:-900} exec tests/machine/with-kvm \
    python3 tests/demo/demo.py $keep --out "$out" --native "$out/demo-native.txt" -- $arguments
