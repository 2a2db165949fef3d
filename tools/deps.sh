#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Installs the Debian packages that a purpose needs and that are missing.
# usage: tools/deps.sh [-n] PURPOSE...     (build, check, bench, fuzz, sanitize, demo, man)
#   -n   only say what is missing; exit code 1 when something is
# Does nothing, fast, when all are there. Needs root or sudo only to install.
set -u

build="gcc libc6-dev meson ninja-build pkg-config python3 fuse3 libfuse3-dev"
# What the kernel in QEMU needs, and what its tests call; the kernel itself is fetched by tests/guest/run.
guest="qemu-system-x86 busybox-static cpio e2fsprogs acl attr util-linux procps"
packages() {
	case $1 in
	build) echo "$build" ;;
	man) echo "mandoc" ;;
	demo) echo "$build $guest" ;;
	fuzz) echo "$build clang-14 libclang-rt-14-dev" ;;
	sanitize) echo "$build libcmocka-dev diod attr acl" ;;
	bench) echo "$build diod bindfs sshfs openssh-server openssh-client git" ;;
	check) echo "$build $guest $(packages fuzz) libcmocka-dev diod clang-format-14 clang-tidy-14 cppcheck" \
		"mandoc strace fio bonnie++ stress-ng dbench git make" ;;
	*) return 1 ;;
	esac
}

only_say=0
if [ "${1:-}" = -n ]; then
	only_say=1
	shift
fi
if [ $# -eq 0 ]; then
	set -- build
fi
wanted=
for purpose; do
	list=$(packages "$purpose") || {
		echo "deps: no purpose '$purpose' (build, check, bench, fuzz, sanitize, demo, man)" >&2
		exit 2
	}
	wanted="$wanted $list"
done

if ! command -v dpkg-query >/dev/null; then
	echo "deps: this is not a Debian system, nothing is installed. Needed here are what Debian calls:" >&2
	echo "$wanted" | tr ' ' '\n' | sort -u | tr '\n' ' ' >&2
	echo >&2
	exit 0
fi

missing_now() {
	# shellcheck disable=SC2086 # a list of words
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null)
	for package in $(echo "$wanted" | tr ' ' '\n' | sort -u); do
		case "
$installed
" in
		*"
installed $package
"*) ;;
		*) printf '%s ' "$package" ;;
		esac
	done
}

missing=$(missing_now)
[ -n "$missing" ] || exit 0
if [ $only_say = 1 ]; then
	echo "$missing"
	exit 1
fi

if [ "$(id -u)" = 0 ]; then
	root=
elif command -v sudo >/dev/null; then
	root=sudo
else
	echo "deps: missing packages: $missing" >&2
	echo "deps: you are not root and there is no sudo; as root run" >&2
	echo "    apt-get install --no-install-recommends $missing" >&2
	exit 1
fi

say() {
	echo "deps: $*"
}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
# Runs apt-get with its output kept for the case that it fails. Another apt-get may hold the lock: waits for it.
apt() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null
}
install() {
	# shellcheck disable=SC2086 # a list of words
	apt install -y --no-install-recommends $missing
}

say "installing $missing"
# The lists of packages may be missing or old: then apt-get update, once, and again.
if ! install; then
	say "apt-get update"
	if ! apt update; then
		cat "$log" >&2
		say "apt-get update failed (above); trying with the lists that are there" >&2
	fi
	if ! install; then
		cat "$log" >&2
		say "cannot install: $missing" >&2
		say "apt-get's words are above; install them by hand and try again" >&2
		exit 1
	fi
fi
missing=$(missing_now)
if [ -n "$missing" ]; then
	say "still missing after apt-get: $missing" >&2
	exit 1
fi
