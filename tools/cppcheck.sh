#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Runs cppcheck over what a build directory compiles from src/, guest/, bench/ and fuzz/. What it is told to keep quiet about,
# and why, stands in tools/cppcheck.txt; in the code: /* cppcheck-suppress id ; reason */.
# usage: tools/cppcheck.sh [BUILD-DIRECTORY]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}

[ -e "$build/compile_commands.json" ] || {
	echo "cppcheck: $build is not configured" >&2
	exit 1
}
mkdir -p "$build/cppcheck"
log=$build/cppcheck/checked
if cppcheck --project="$build/compile_commands.json" --file-filter='src/*' --file-filter='bench/*' --file-filter='guest/*' \
	--file-filter='fuzz/*' --cppcheck-build-dir="$build/cppcheck" --suppressions-list=tools/cppcheck.txt \
	--enable=warning,performance,portability --inline-suppr -j 2 --error-exitcode=1 \
	--template='{file}:{line}: {severity}: {message} [{id}]' >"$log"; then
	count=$(grep -c '^Checking [^ ]* \.\.\.' "$log" || true)
	echo "cppcheck: $count files clean"
	[ "$count" -gt 0 ]
else
	echo "cppcheck: see above"
	exit 1
fi
