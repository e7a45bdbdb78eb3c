#!/bin/bash
# Builds the whole-system tests here and runs them where KVM is (tests/machine/with-kvm).
#
#   tests/system.sh                      every test of every file, but where KVM is emulated without those that are marked as ignored
#   tests/system.sh FILE[:WORD,WORD]…    only these files of tests/tests (programs, applications, storm, faults, cluster, reasons, bench), of them
#                                        only tests whose names contain one of the words
#
# Where KVM is emulated, two files run at a time (PARTITA_TEST_JOBS): each has a machine of its own, which keeps one processor
# busy. Elsewhere they run one after another, because then their limits are real times.
set -euo pipefail
cd "$(dirname "$0")/.."

binaries=$(cargo test --locked -p partita-tests --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
[ -n "$binaries" ] || { cargo test --locked -p partita-tests --no-run; exit 1; }
if [ $# -eq 0 ]; then
    set -- applications storm faults cluster reasons programs bench
    # What takes a minute or two where KVM is, and far too long in the emulated machine.
    [ ! -w /dev/kvm ] || set -- "$@" applications:--ignored,rdma storm:--ignored,eight reasons:--ignored,the_host
fi
out=${CARGO_TARGET_DIR:-$PWD/target}
export PARTITA_BIN=$out/release PARTITA_GUESTS=$out/programs PARTITA_APPS=$out/apps PARTITA_ORACLE=$out/oracle
export PARTITA_BENCH_PROGRAMS=$out/bench
jobs=1
[ -w /dev/kvm ] || jobs=2
jobs=${PARTITA_TEST_JOBS:-$jobs}

binary_of() { printf '%s\n' $binaries | grep "/$1-[0-9a-f]*$" | head -n 1; }

# One file. Status 99: the emulated machine itself died (QEMU's SVM emulation does, now and then), which says nothing about
# the test; only then is it run again, three times at most. A failed test is final.
run_file() {
    local name=${1%%:*} words= status try processors=2
    [ "$name" = "$1" ] || words=${1#*:}
    # Three hosts, and what serves them: loads of partitions that share a processor with that are not what they seem.
    [ "$name" != reasons ] || processors=4
    for try in 1 2 3; do
        status=0
        PARTITA_MACHINE_CPUS=${PARTITA_MACHINE_CPUS:-$processors} tests/machine/with-kvm "$(binary_of "$name")" --test-threads=1 ${words//,/ } || status=$?
        [ "$status" = 99 ] || return "$status"
        echo "== $name: the emulated machine died (try $try of 3)"
    done
    return "$status"
}

for wanted in "$@"; do
    [ -n "$(binary_of "${wanted%%:*}")" ] || { echo "system.sh: no test file is called ${wanted%%:*}" >&2; exit 2; }
done
logs=$(mktemp -d)
trap 'rm -rf "$logs"; kill $(jobs -p) 2>/dev/null || true' EXIT
failed=
declare -A running=() log_of=()
started=0

# Waits for one file and shows what it printed.
reap() {
    local status=0 pid=
    wait -n -p pid "${!running[@]}" || status=$?
    echo "== ${running[$pid]}: status $status"
    cat "${log_of[$pid]}"
    [ "$status" = 0 ] || failed="$failed ${running[$pid]}"
    unset "running[$pid]" "log_of[$pid]"
}

for wanted in "$@"; do
    while [ "${#running[@]}" -ge "$jobs" ]; do reap; done
    echo "== $wanted: started"
    if [ "$jobs" = 1 ]; then
        run_file "$wanted" || failed="$failed $wanted"
    else
        # A name of its own: what is started beside opens it some time later.
        started=$((started + 1))
        run_file "$wanted" >"$logs/$started" 2>&1 &
        running[$!]=$wanted log_of[$!]=$logs/$started
    fi
done
while [ "${#running[@]}" -gt 0 ]; do reap; done
if [ -n "$failed" ]; then
    echo "system tests failed:$failed"
    exit 1
fi
