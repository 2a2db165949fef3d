#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Runs the examples of the manual against a p9d of its own.
# usage: tests/libp9/examples.sh P9D TREE ASYNC
set -eu
p9d=$1 tree=$2 async=$3
dir=$(mktemp -d)
mkdir -p "$dir/share/sub"
printf 12345 >"$dir/share/sub/file"
"$p9d" -l "unix:$dir/sock" "$dir/share" 2>"$dir/log" &
server=$!
trap 'kill $server 2>/dev/null; rm -rf -- "$dir"' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	[ -S "$dir/sock" ] && break
	sleep 0.25
done
"$tree" "unix:$dir/sock" >"$dir/out"
grep -qx ' *5  /sub/file' "$dir/out"
grep -qx '3 files' "$dir/out"
"$tree" "unix:$dir/sock" /nothing >"$dir/out" 2>&1 && exit 1
grep -q 'ENOENT' "$dir/out"
"$async" "unix:$dir/sock" 1000 >"$dir/out"
grep -qx '1000 of 1000 answered' "$dir/out"
"$async" "unix:$dir/none" >"$dir/out" 2>&1 && exit 1
grep -q 'ENOENT' "$dir/out"
echo "examples: passed"
