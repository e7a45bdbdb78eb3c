#!/bin/sh
# Random datatypes: one object file of types.c, linked with this library and with MPICH 5, must print the same.
#
# usage: types.sh SEED NUMBER      (PARTITA_MPICH_ABI: where tests/mpich-abi.sh has put MPICH 5)
#
# Exit status: 0 equal, 1 not (the differing types are printed), 2 wrong use.
set -eu
[ $# -eq 2 ] || { sed -n '4,4s/^# //p' "$0" >&2; exit 2; }
seed=$1 number=$2
cd "$(dirname "$0")"
bin=$(cd ../../bin && pwd)
abi=${PARTITA_MPICH_ABI:-${CARGO_TARGET_DIR:-$PWD/../../../target}/mpich-abi}
if [ ! -e "$abi/lib/libmpi_abi.so" ]; then
    echo "types: $abi/lib/libmpi_abi.so is missing: tests/mpich-abi.sh $abi installs it" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$bin/mpicc" -O1 -Wall -Wextra -Werror -Wno-alloc-size-larger-than -c types.c -o "$work/types.o"
"$bin/mpicc" -native "$work/types.o" -o "$work/ours"
gcc "$work/types.o" -o "$work/theirs" -L"$abi/lib" -lmpi_abi -Wl,-rpath,"$abi/lib"
"$bin/mpirun-native" -np 1 "$work/ours" "$seed" "$number" >"$work/ours.txt"
"$work/theirs" "$seed" "$number" >"$work/theirs.txt" || { echo "types: MPICH failed after: $(tail -n 1 "$work/theirs.txt")" >&2; exit 1; }
if ! cmp -s "$work/ours.txt" "$work/theirs.txt" || [ "$(wc -l <"$work/ours.txt")" != "$number" ]; then
    echo "types: seed $seed: differs from MPICH (< ours, > MPICH):" >&2
    diff "$work/ours.txt" "$work/theirs.txt" | head -n 40 >&2
    exit 1
fi
echo "datatypes: $number random types of seed $seed are those of MPICH 5, byte for byte"
