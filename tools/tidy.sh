#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Runs clang-tidy (clang's analyzer and its bugprone checks, chosen in .clang-tidy) over what a build directory compiles
# from src/, guest/ and bench/. A finding that is none: /* NOLINT(check): reason */ on the line.
# usage: tools/tidy.sh [BUILD-DIRECTORY]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
files=$(python3 -c '
import json, os, sys
build = sys.argv[1]
paths = {os.path.relpath(os.path.join(e["directory"], e["file"])) for e in json.load(open(build + "/compile_commands.json"))}
print("\n".join(sorted(p for p in paths if p.startswith(("src/", "guest/", "bench/")) and p.endswith(".c"))))' "$build")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The options that clang does not know are gcc's; they are no finding. A process for each file: clang's check of va_list
# finds what is not there in the second file of a process.
if echo "$files" | xargs -P 2 -n 1 clang-tidy-14 -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option >"$log" 2>&1; then
	echo "tidy: $(echo "$files" | wc -l) files clean"
else
	grep -vE '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' "$log" | head -n 100
	echo "tidy: see above"
	exit 1
fi
