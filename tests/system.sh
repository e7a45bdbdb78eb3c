#!/bin/bash
# Builds the whole-system tests here and runs them where KVM is (tests/machine/with-kvm).
#
#   tests/system.sh                      every test of every file
#   tests/system.sh FILE[:WORD,WORD]…    only these files of tests/tests (programs, applications, storm, faults, cluster), of them
#                                        only tests whose names contain one of the words
set -euo pipefail
cd "$(dirname "$0")/.."

binaries=$(cargo test --locked -p partita-tests --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
[ -n "$binaries" ] || { cargo test --locked -p partita-tests --no-run; exit 1; }
[ $# -gt 0 ] || set -- programs applications storm faults cluster
out=${CARGO_TARGET_DIR:-$PWD/target}
export PARTITA_BIN=$out/release PARTITA_GUESTS=$out/programs PARTITA_APPS=$out/apps PARTITA_ORACLE=$out/oracle
failed=
for wanted in "$@"; do
    name=${wanted%%:*}
    words=
    [ "$name" = "$wanted" ] || words=${wanted#*:}
    binary=$(printf '%s\n' $binaries | grep "/$name-[0-9a-f]*$" | head -n 1) || true
    [ -n "$binary" ] || { echo "system.sh: no test file is called $name" >&2; exit 2; }
    echo "== $name ${words:+(only $words)}"
    # A machine of its own for every file. Status 99: the emulated machine itself died (QEMU's SVM emulation does, now and
    # then), which says nothing about the test; only then is it run again, three times at most. A failed test is final.
    for try in 1 2 3; do
        status=0
        tests/machine/with-kvm "$binary" --test-threads=1 ${words//,/ } || status=$?
        [ "$status" = 99 ] || break
        echo "== $name: the emulated machine died (try $try of 3)"
    done
    [ "$status" = 0 ] || failed="$failed $name"
done
if [ -n "$failed" ]; then
    echo "system tests failed:$failed"
    exit 1
fi
