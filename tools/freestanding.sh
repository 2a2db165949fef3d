#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fails when the libraries given need a symbol from outside themselves but memcpy, memmove, memset, memcmp, memchr,
# and the six functions of guest/platform.h.
# usage: tools/freestanding.sh LIB.a...     (the first needs nothing of those behind it: wire, then engine, ...)
set -u
LC_ALL=C
export LC_ALL
rc=0
inside=
for lib; do
	inside="$inside $lib"
	# shellcheck disable=SC2086 # a list of files
	undefined=$(nm -u -P $lib 2>/dev/null | awk 'NF > 1 { print $1 }' | sort -u)
	# shellcheck disable=SC2086
	defined=$(nm --defined-only -P $inside 2>/dev/null | awk 'NF > 1 { print $1 }' | sort -u)
	[ -n "$defined" ] || {
		echo "freestanding: $lib: no symbols" >&2
		exit 1
	}
	for symbol in $undefined; do
		case $symbol in memcpy | memmove | memset | memcmp | memchr | _GLOBAL_OFFSET_TABLE_ | p9_platform_*) continue ;; esac
		echo "$defined" | grep -qx -- "$symbol" && continue
		echo "freestanding: $lib needs $symbol:"
		nm -u -A "$lib" | grep -w -- "$symbol"
		rc=1
	done
done
exit $rc
