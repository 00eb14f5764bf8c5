#!/bin/sh
# The tests of this crate, and the server that they start, under the compiler's
# AddressSanitizer: an access of ours to memory that is no longer there ends it,
# and so does memory that was lost. What the kernel itself writes there neither
# this nor valgrind sees.
#
#   proactor/asan.sh [--test uring] [...]
#
# The pitfalls in examples/ are left out: what they do wrong is their lesson.
# The sanitizer is not part of stable Rust; RUSTC_BOOTSTRAP lets it be used for
# a look by hand.
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
export ASAN_OPTIONS=detect_stack_use_after_return=1
[ $# -gt 0 ] || set -- --lib --test '*'
exec cargo test -p proactor --target "$host" --target-dir target/asan "$@"
