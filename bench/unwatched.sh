#!/usr/bin/env bash
# Does watching cost anything while nobody watches? Builds epoll_lt twice, as
# it is and with every watch call taken out of its text, and counts the
# instructions of its loop for `Unwatched`. Needs objdump, c++filt, perl.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=$work/target

# A workspace of two servers; both depend on the same echo.
for name in as_it_is deleted; do
    mkdir -p "$work/$name/src"
    sed "s/^name = \"epoll_lt\"/name = \"$name\"/" epoll_lt/Cargo.toml \
        > "$work/$name/Cargo.toml"
    cp epoll_lt/src/help.txt "$work/$name/src/"
    # The start and the loop stay functions of their own in both, so that the
    # loop is compared and not how the compiler mixed the two.
    sed 's/^    fn \(new\|run\)(/    #[inline(never)]\n&/' epoll_lt/src/lib.rs \
        > "$work/$name/src/lib.rs"
    sed "s/epoll_lt/$name/g" epoll_lt/src/main.rs > "$work/$name/src/main.rs"
done
{
    sed -n '/^\[workspace.package\]/,$p' Cargo.toml |
        sed "s#path = \"#path = \"$root/#"
    printf '[workspace]\nresolver = "3"\nmembers = ["as_it_is", "deleted"]\n'
} > "$work/Cargo.toml"
cp Cargo.lock "$work/"

# watch.wait("epoll_wait", asked, f) is f(), and so for every other verb;
# watch.ready(…) is nothing.
perl -0pi -e '
    s/self\.watch\.ready\(.*?\);\n//g;
    my $list = qr{"\w+",\s*[\w.()]+?};
    s/(?:self\.)?watch\.(?:ask|wait|copy|take|wait_and_copy)\($list,\s*
      ((?:[^()]|\((?:[^()]|\([^()]*\))*\))*?),?\s*\)/std::convert::identity($1)()/gsx;
' "$work/deleted/src/lib.rs"
if grep -nE 'watch\.' "$work/deleted/src/lib.rs"; then
    echo 'these watch calls could not be taken out' >&2
    exit 1
fi
# A change of the text that did not compile would be seen; one that took away
# more than the watch would not, so it is shown.
diff "$work"/{as_it_is,deleted}/src/lib.rs | grep '^[<>]' || true

cd "$work"
# The newer way to write symbols down keeps what a function is generic over.
RUSTFLAGS='-C symbol-mangling-version=v0' \
    cargo build --release --quiet --offline 2> build.log || {
    cat build.log >&2
    exit 1
}
for name in as_it_is deleted; do
    objdump -d --no-show-raw-insn "target/release/$name" | c++filt |
        awk -v name="$name" '
            /^[0-9a-f]+ <.*>:$/ {
                # With the watch calls deleted, the loops for `Unwatched` and
                # `Watched` are one function, under either name.
                ours = index($0, name) && /::run>/ &&
                    (index($0, "Unwatched") || name == "deleted")
                shown = $0
                gsub(/^[0-9a-f]+ |\[[0-9a-f]+\]/, "", shown)
            }
            # Padding, between blocks and behind the function, is never run.
            /\t(nop|int3|data16|cs nop|xchg +%ax,%ax)/ { next }
            ours && /^ +[0-9a-f]+:\t/ {
                count[shown]++
                total++
                print $2 > (name ".mnemonics")
            }
            END {
                for (it in count) printf "    %6d  %s\n", count[it], it
                printf "%s: %d instructions\n", name, total
            }'
done
if cmp -s as_it_is.mnemonics deleted.mnemonics; then
    echo 'the same instructions in the same order'
else
    echo 'not the same instructions:'
    diff as_it_is.mnemonics deleted.mnemonics || true
fi
