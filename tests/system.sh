#!/bin/bash
# Builds the whole-system tests here and runs them where KVM is (tests/machine/with-kvm). One line per test file at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

binaries=$(cargo test --locked -p partita-tests --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
[ -n "$binaries" ] || { cargo test --locked -p partita-tests --no-run; exit 1; }
out=${CARGO_TARGET_DIR:-$PWD/target}
export PARTITA_BIN=$out/release PARTITA_GUESTS=$out/programs PARTITA_APPS=$out/apps PARTITA_ORACLE=$out/oracle
export PARTITA_TESTS_RUN=${PARTITA_TESTS_RUN:-}
exec tests/machine/with-kvm bash -c '
failed=
for binary in "$@"; do
    name=${binary##*/}
    echo "== ${name%-*}"
    "$binary" --test-threads=1 $PARTITA_TESTS_RUN || failed="$failed ${name%-*}"
done
if [ -n "$failed" ]; then
    echo "system tests failed:$failed"
    exit 1
fi' system $binaries
