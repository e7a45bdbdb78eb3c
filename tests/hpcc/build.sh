#!/bin/sh
# Builds HPCC 1.5.0 from Debian's source package, unchanged but for the hook HPCC offers (see print.c).
#
# usage: build.sh partita|mpich|native OUT [WRAPPERS]
#
#   partita  OUT/partita/hpcc: static, with WRAPPERS/mpicc (default: guest-shim/bin of this tree)
#   mpich    OUT/mpich/hpcc: the native reference
#   native   OUT/native/hpcc: our library in ordinary processes (mpicc -native, mpirun-native)
#
# Ends with one line per part of HPCC: which objects compiled, and which functions the library lacks.
# Exit status: 0 built, 1 not, 2 wrong use. Needs dpkg-dev or apt, make, libopenblas-serial-dev (static, one thread).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
version=1.5.0
digest=0a6fef7ab9f3347e549fed65ebb98234feea9ee18aea0c8f59baefbe3cf7ffb8

[ $# -ge 2 ] || { sed -n '4,4s/^# //p' "$0" >&2; exit 2; }
variant=$1
mkdir -p "$2"
out=$(CDPATH='' cd -- "$2" && pwd -P)
wrappers=${3:-$here/../../guest-shim/bin}
case $variant in
partita) compiler=$wrappers/mpicc library=$wrappers/../lib/libmpi.a ;;
native) compiler="$wrappers/mpicc -native" library=$wrappers/../lib/libmpi_native.a ;;
mpich) compiler=mpicc.mpich library= ;;
*) sed -n '4,4s/^# //p' "$0" >&2; exit 2 ;;
esac
blas=/usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.a
if [ ! -e $blas ]; then
    echo "hpcc: $blas is missing: apt-get install libopenblas-serial-dev" >&2
    exit 1
fi
if [ -n "$library" ] && [ ! -e "$library" ]; then
    echo "hpcc: $library is missing: run 'make build' at the top first" >&2
    exit 1
fi

# The source package, by a sources list of our own: the machine's lists stay as they are.
fetch() {
    archive=$out/hpcc_$version.orig.tar.gz
    if [ ! -e "$archive" ]; then
        mkdir -p "$out/apt/lists/partial"
        mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
        echo "deb-src $mirror bookworm main" >"$out/apt/sources.list"
        options="-o Dir::Etc::sourcelist=$out/apt/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::Lists=$out/apt/lists
            -o APT::Get::List-Cleanup=0 -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=root -q"
        # shellcheck disable=SC2086 # a list of words
        (cd "$out" && apt-get $options update >apt/log 2>&1 && apt-get $options source --tar-only hpcc >>apt/log 2>&1) ||
            { echo "hpcc: cannot fetch the source package, see $out/apt/log" >&2; exit 1; }
    fi
    echo "$digest  $archive" | sha256sum --check --quiet - || { echo "hpcc: $archive is not what we know" >&2; exit 1; }
}

# One build directory per variant. gcc 12 takes HPCC as it is; -O2 without fused multiply-add for equal bits.
configure() {
    rm -rf "${out:?}/$variant/hpcc-$version"
    mkdir -p "$out/$variant"
    tar -C "$out/$variant" -xzf "$archive"
    cp "$here/print.c" "$source/src/extfinalize.c"
    cat >"$source/hpl/Make.$variant" <<END
SHELL = /bin/sh
CD = cd
CP = cp
LN_S = ln -s
MKDIR = mkdir -p
RM = rm -f
TOUCH = touch
ARCH = $variant
TOPdir = ../../..
INCdir = \$(TOPdir)/include
BINdir = \$(TOPdir)/bin/\$(ARCH)
LIBdir = \$(TOPdir)/lib/\$(ARCH)
HPLlib = \$(LIBdir)/libhpl.a
LAlib = $blas
F2CDEFS = -DAdd_ -DF77_INTEGER=int -DStringSunStyle
HPL_INCLUDES = -I\$(INCdir) -I\$(INCdir)/\$(ARCH)
HPL_LIBS = \$(HPLlib) \$(LAlib) -lm
HPL_DEFS = \$(F2CDEFS) -DHPL_CALL_CBLAS -DRA_TIME_BOUND_DISABLE \$(HPL_INCLUDES)
CC = $compiler
CCNOOPT = \$(HPL_DEFS) -w
CCFLAGS = \$(HPL_DEFS) -O2 -ffp-contract=off -w
LINKER = $compiler
LINKFLAGS =
ARCHIVER = ar
ARFLAGS = rc
RANLIB = ranlib
END
}

# What compiled, part by part, and what the linker missed.
parts() {
    for part in hpl/src src DGEMM FFT PTRANS RandomAccess STREAM; do
        all=$(find "$source/$part" -name '*.c' | wc -l)
        missing=$(find "$source/$part" -name '*.c' | while read -r file; do [ -e "${file%.c}.o" ] || basename "$file"; done | tr '\n' ' ')
        echo "hpcc: $variant: $part: $all files${missing:+, without: $missing}"
    done
    lacking=$(sed -n "s/.*undefined reference to \`\([^']*\)'.*/\1/p" "$log" | sort -u | tr '\n' ' ')
    [ -z "$lacking" ] || echo "hpcc: $variant: the library lacks: $lacking"
}

source=$out/$variant/hpcc-$version
program=$out/$variant/hpcc
log=$out/$variant/log
fetch
if [ -e "$program" ] && [ "$program" -nt "$0" ] && [ "$program" -nt "$here/print.c" ] && { [ -z "$library" ] || [ "$program" -nt "$library" ]; }; then
    exit 0
fi
rm -f "$program"
configure
status=0
env -u MAKEFLAGS -u MAKELEVEL make -C "$source" -k -j2 arch="$variant" >"$log" 2>&1 || status=1
# A relinked archive of HPL is part of the target; the program is left at the top.
if [ -e "$source/hpcc" ]; then
    cp "$source/hpcc" "$program"
else
    status=1
fi
parts
[ $status -eq 0 ] || { echo "hpcc: $variant: not built, see $log" >&2; grep -m 5 -E 'error|undefined' "$log" >&2 || true; }
exit $status
