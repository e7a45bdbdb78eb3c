#!/bin/bash
# Runs fuzz targets: run.sh OUT SECONDS TARGET…
#
# Coverage is LLVM's, switched on with stable flags; there is no address sanitizer, for which Rust needs its nightly
# compiler: what is found are panics, failed assertions, endless loops and too much memory. Starts from what earlier runs found.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 3 ] || { echo "usage: $0 OUT SECONDS TARGET…" >&2; exit 2; }
out=$1
seconds=$2
shift 2
mkdir -p "$out"
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# With --target the flags are for the targets, not for build scripts.
RUSTFLAGS="$coverage -Cdebug-assertions -Coverflow-checks" CARGO_TARGET_DIR=$out/build \
    cargo build --locked --quiet --release --target x86_64-unknown-linux-gnu -p partita-fuzz
for target in "$@"; do
    program=$out/build/x86_64-unknown-linux-gnu/release/fuzz-$target
    [ -x "$program" ] || { echo "run.sh: no fuzz target is called $target" >&2; exit 2; }
    corpus=("$out/corpus/$target")
    mkdir -p "${corpus[@]}"
    [ ! -d "tests/fuzz/seeds/$target" ] || corpus+=("tests/fuzz/seeds/$target")
    echo "== $target, $seconds s"
    "$program" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$out/$target-" "${corpus[@]}" 2>"$out/$target.log" ||
        { tail -n 40 "$out/$target.log" >&2; exit 1; }
    grep -E "^(stat::number_of_executed_units|stat::new_units_added)|DONE" "$out/$target.log" | tail -n 3
done
