#!/bin/sh
# Runs HPCC with two ranks and prints what verified.
#
# usage: run.sh PROGRAM [RUNNER...]     (RUNNER: mpirun.mpich -np 2; or mpirun-native -np 2; or another)
#
# The whole result file goes to standard output, then one line per verified part. In a partition: run this script with
# `vmm run --np 2 --file tests/hpcc/hpccinf.txt:/hpccinf.txt` as the RUNNER, or give `-` as PROGRAM and the output of
# such a run on standard input. Exit status: 0 if HPCC says Success=1 and every part verified.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
[ $# -ge 1 ] || { sed -n '4,4s/^# //p' "$0" >&2; exit 2; }
program=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$program" = - ]; then
    cat >"$work/out"
else
    program=$(CDPATH='' cd -- "$(dirname -- "$program")" && pwd -P)/$(basename -- "$program")
    [ $# -gt 0 ] || set -- mpirun.mpich -np 2
    case $1 in
    /*) ;;
    */*) runner=$PWD/$1 && shift && set -- "$runner" "$@" ;; # the run is in another directory
    esac
    cp "$here/hpccinf.txt" "$work"
    (cd "$work" && "$@" "$program" >out) || { cat "$work/out"; echo "hpcc: the run failed" >&2; exit 1; }
fi
cat "$work/out"

bad=0
# part NAME: what must be in the output, as a regular expression; and what must not.
part() {
    if grep -Eq -- "$2" "$work/out" && ! { [ -n "$3" ] && grep -Eq -- "$3" "$work/out"; }; then
        echo "hpcc: $1: verified"
    else
        echo "hpcc: $1: NOT VERIFIED"
        bad=1
    fi
}
# value NAME KEY MAXIMUM: the summary has KEY, not above MAXIMUM and not below 0.
value() {
    if awk -F= -v k="$2" -v m="$3" '$1 == k { found = 1; if ($2 + 0 < 0 || $2 + 0 > m) bad = 1 } END { exit !found || bad }' "$work/out"; then
        echo "hpcc: $1: verified"
    else
        echo "hpcc: $1: NOT VERIFIED ($2)"
        bad=1
    fi
}
part "HPL" '[.]{3} PASSED' 'FAILED'
value "HPL residual" HPL_RnormI 1e-6
value "PTRANS" PTRANS_residual 1e-10
value "MPIRandomAccess" MPIRandomAccess_ErrorsFraction 0.01
value "MPIRandomAccess LCG" MPIRandomAccess_LCG_ErrorsFraction 0.01
value "MPIFFT" MPIFFT_maxErr 1e-12
part "Star and Single DGEMM" '^StarDGEMM_Gflops=' ''
part "STREAM" '^StarSTREAM_Triad=' ''
part "latency and bandwidth" '^MaxPingPongLatency_usec=' ''
part "all" '^Success=1' ''
exit $bad
