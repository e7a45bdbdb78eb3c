#!/bin/sh
# Tests of the MPI library without a VM: ranks are ordinary processes. Run by `make -C guest-shim check`.
#
# PARTITA_TEST_RANKS  numbers of ranks (default: 1 2 3 4 7)
# PARTITA_MPICH_ABI   directory of MPICH 5 (bin, lib; default: what `make deps` installs in target/mpich-abi)
set -eu
cd "$(dirname "$0")"
bin=$(cd ../../bin && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ranks=${PARTITA_TEST_RANKS:-1 2 3 4 7}
# Seconds, only against hanging: ranks of MPICH poll, and a busy machine has few processors for them.
patience=300
failures=0

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

run() { # ranks ring program arguments
    n=$1 ring=$2
    shift 2
    timeout "$patience" "$bin/mpirun-native" -np "$n" -ring "$ring" "$@" || fail "np $n ring $ring $*"
}

for program in storm collectives calls objects fatal units; do
    "$bin/mpicc" -native -O1 -Wall -Wextra -Werror -Wno-alloc-size-larger-than $program.c -o "$work/$program"
    # What partitions run is linked, too: by glibc and, for C, by musl.
    "$bin/mpicc" $program.c -o "$work/$program.guest"
    if command -v musl-gcc >/dev/null; then "$bin/mpicc" -cc=musl-gcc $program.c -o "$work/$program.musl"; fi
done
"$bin/mpicxx" -native smoke.cc -o "$work/smoke"
"$bin/mpicxx" smoke.cc -o "$work/smoke.guest"
"$bin/mpifort" -w -native smoke_fixed.f -o "$work/smoke_fixed"
"$bin/mpifort" -native smoke_module.f90 -o "$work/smoke_module"
"$bin/mpifort" smoke_module.f90 -o "$work/smoke_module.guest"

status=0
"$work/calls.guest" 2>"$work/message" || status=$?
if [ $status != 1 ] || ! grep -q 'vmm run' "$work/message"; then fail "a guest program outside a partition"; fi

for n in $ranks; do
    run "$n" 16384 "$work/collectives" >"$work/collectives.$n"
    tail -n 1 "$work/collectives.$n"
    for seed in 1 2 3; do run "$n" 16384 "$work/storm" $seed 40; done
    run "$n" 262144 "$work/storm" 4 40
    run "$n" 16384 "$work/smoke"
    run "$n" 16384 "$work/objects"
    run "$n" 16384 "$work/smoke_fixed"
    run "$n" 16384 "$work/smoke_module"
    if [ "$n" -gt 1 ]; then
        run "$n" 16384 "$work/calls"
        run "$n" 262144 "$work/calls"
    fi
done

# Every algorithm gives the same bits, whatever the table would take. (5 ranks are a surplus over a power of two.)
for choice in broadcast:binomial,gather:binomial,scatter:binomial,allgather:bruck,alltoall:bruck,reduce:rabenseifner,allreduce:rabenseifner \
    broadcast:scatter-ring,gather:linear,scatter:linear,allgather:ring,alltoall:pairwise,reduce:binomial,allreduce:recursive-doubling \
    allgather:at-once,alltoall:at-once; do
    for n in 4 5; do
        [ -e "$work/collectives.$n" ] || run "$n" 16384 "$work/collectives" >"$work/collectives.$n"
        PARTITA_COLLECTIVES=$choice run "$n" 16384 "$work/collectives" >"$work/chosen"
        cmp -s "$work/chosen" "$work/collectives.$n" || fail "np $n: other results with $choice"
    done
done
echo "every algorithm of the collectives gives the same"

units() { # shares wanted
    shares=$1 wanted=$2
    found=$(PARTITA_NATIVE_SHARES=$shares timeout "$patience" "$bin/mpirun-native" -np 3 "$work/units") || fail "units with shares $shares"
    [ "$found" = "units: $wanted" ] || fail "units with shares $shares: $found"
}
units "" "0+10 10+10 20+10"
units 5,20,5 "0+5 5+20 25+5"
# They do not add up, or somebody has none yet: everybody keeps what they have.
units 5,20,6 "0+10 10+10 20+10"
units 5,25 "0+10 10+10 20+10"

# The same from Rust (the crate partita beside rsmpi): shares are taken up, and the result is that of a run without.
apps=${CARGO_TARGET_DIR:-$PWD/../../../target}/apps
make -s -C ../../../tests/apps OUT="$apps" WRAPPERS="$bin" "$apps/native/cells"
cells() { PARTITA_NATIVE_SHARES=$1 timeout "$patience" "$bin/mpirun-native" -np 3 "$apps/native/cells" --size 30 --balance 5; }
cells "" >"$work/still" 2>"$work/still.err" || fail "cells: $(cat "$work/still.err")"
cells 5,20,5 >"$work/shared" 2>"$work/shared.err" || fail "cells with shares: $(cat "$work/shared.err")"
cmp -s "$work/still" "$work/shared" || fail "cells: another result with shares"
for line in "rank 0 has 0 to 5" "rank 1 has 5 to 25" "rank 2 has 25 to 30"; do
    grep -qx "cells: step 5: $line" "$work/shared.err" || fail "cells: no line '$line': $(cat "$work/shared.err")"
done
if grep -q "has" "$work/still.err"; then fail "cells: shared out by nobody"; fi

expect() { # status pattern arguments
    wanted=$1 pattern=$2
    shift 2
    status=0
    timeout "$patience" "$bin/mpirun-native" -np 3 "$work/fatal" "$@" 2>"$work/message" || status=$?
    if [ $status != "$wanted" ] || ! grep -q "$pattern" "$work/message"; then
        fail "fatal $*: status $status, $(cat "$work/message")"
    fi
}
expect 1 'MPI_Recv: message truncated: 400 bytes arrived, room for 40' truncate
expect 42 'rank 1 called MPI_Abort with code 42' abort
expect 1 'MPI_Send: invalid rank' rank

# Every check, and the bits of sums and products where the order of operations is the same, with another MPI.
other() { # name ranks command…
    name=$1 n=$2
    shift 2
    timeout "$patience" "$@" -np "$n" "$work/collectives.$name" >"$work/other" 2>&1 || fail "$name np $n collectives"
    same "$work/other" >"$work/theirs"
    same "$work/collectives.$n" >"$work/ours"
    cmp -s "$work/theirs" "$work/ours" || fail "np $n: results differ from $name: $(diff "$work/theirs" "$work/ours")"
}
# Reduce_scatter of 512 KiB and more has another order in MPICH.
same() { grep -v 'count [0-9]*0000 reduce_scatter' "$1"; }
if command -v mpicc.mpich >/dev/null; then
    for program in collectives calls objects; do mpicc.mpich -w -O1 $program.c -o "$work/$program.mpich"; done
    for n in $ranks; do other mpich "$n" mpirun.mpich; done
    timeout "$patience" mpirun.mpich -np 3 "$work/calls.mpich" || fail "mpich calls"
    timeout "$patience" mpirun.mpich -np 3 "$work/objects.mpich" || fail "mpich objects"
    echo "the bits are those of MPICH"
fi
# Objects compiled with our header, linked with another library of the standard ABI (its orders differ above 2 ranks).
abi=${PARTITA_MPICH_ABI:-${CARGO_TARGET_DIR:-$PWD/../../../target}/mpich-abi}
if [ -e "$abi/lib/libmpi_abi.so" ]; then
    lib=$abi/lib
    for program in collectives calls; do
        gcc -w -O1 -I../../include $program.c -o "$work/$program.abi" -L"$lib" -lmpi_abi -Wl,-rpath,"$lib"
    done
    same() { tail -n 1 "$1"; }
    for n in $ranks; do other abi "$n" "$abi/bin/mpiexec"; done
    timeout "$patience" "$abi/bin/mpiexec" -np 3 "$work/calls.abi" || fail "abi calls"
    echo "objects of this header run with $lib/libmpi_abi"
    PARTITA_MPICH_ABI=$abi sh types.sh 1 2000 || fail "datatypes"
else
    fail "$abi/lib/libmpi_abi.so is missing: tests/mpich-abi.sh $abi installs it (make deps does)"
fi
[ $failures = 0 ] || { echo "$failures checks failed" >&2; exit 1; }
echo "all checks passed"
