#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the fuzz targets and gives each of them, and each archive format, FUZZ_SECONDS. Ends at the first finding, with status 1 and the
# input that makes it in tests/fuzz/artifacts. FUZZ names targets ("mime unpack:zip"); CORPUS is a folder of inputs to begin with.
set -eu
cd "$(dirname "$0")"
seconds=${FUZZ_SECONDS:-600}
targets=${FUZZ:-smtp_dialogue smtp_data smtp_reply xforward mime header_edit policy_request handover engine_answer engine_wire tables \
    settings stored rules_file rules_message spamd_request $(
    sed -n 's/^    ("\([a-z0-9-]*\)", b.*/unpack:\1/p' targets/unpack.rs)}

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
# No sanitizer: the crates that we call forbid or hardly use unsafe code; looked for are panics, endless loops and memory. So the usual
# compiler does.
cargo fuzz build --fuzz-dir . --sanitizer none

for target in $targets; do
    name=${target%%:*} format=${target#"$name"} format=${format#:}
    found=corpus/$name${format:+-$format} seeds=
    [ -d "seeds/$name" ] && seeds=seeds/$name
    mkdir -p "$found" "artifacts/$name"
    echo "== $target: $seconds s"
    FUZZ_FORMAT=$format cargo fuzz run --fuzz-dir . --sanitizer none "$name" "$found" $seeds ${CORPUS:+"$CORPUS"} -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -max_len=65536 -print_final_stats=1 -verbosity=0
done
