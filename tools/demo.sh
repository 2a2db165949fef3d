#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Shows what p9 does, on a directory of its own below /tmp: shares it, lists, reads and writes it with p9, looks at what
# happened on the host, and mounts it with a real Linux kernel in QEMU. Exit code 0 when all of it worked.
# usage: tools/demo.sh [BUILD-DIRECTORY] [--no-kernel]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
build=build kernel=1
for arg; do
	case $arg in
	--no-kernel) kernel=0 ;;
	*) build=$arg ;;
	esac
done
PATH=$PWD/$build:$PATH
bold= plain=
if [ -t 1 ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi

top=$(mktemp -d /tmp/p9-demo.XXXXXX) || exit 1
chmod 755 "$top"
server=
cleanup() {
	trap - EXIT INT TERM HUP
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null
		wait "$server" 2>/dev/null
	fi
	rm -rf -- "$top"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
	echo
	echo "demo: did not work: $*" >&2
	[ ! -s "$top/p9d.log" ] || sed 's/^/  p9d: /' "$top/p9d.log" >&2
	exit 1
}
step=0
say() {
	step=$((step + 1))
	echo
	echo "$bold$step. $*$plain"
}
# Shows a command, runs it, and indents what it prints.
show() {
	echo "   \$ $*"
	"$@" >"$top/out" 2>&1 </dev/null
	local rc=$?
	sed 's/^/     /' "$top/out"
	[ $rc -eq 0 ] || fail "'$*': exit code $rc"
}
# The last command must have printed this.
expect() {
	grep -qF -- "$1" "$top/out" || fail "'$1' was expected here"
}

share=$top/share
mkdir "$share" "$share/photos"
echo 'Hello from the host.' >"$share/hello.txt"
ln -s hello.txt "$share/greeting"
head -c 3000000 /dev/urandom >"$share/photos/cat.jpg"

say "A directory on the host, to be shared:"
show ls -l "$share"

say "p9d shares it under the name 'demo', on a Unix socket:"
export P9_SERVER=unix:$top/p9.sock
echo "   \$ p9d -l $P9_SERVER -e demo=$share &"
p9d -l "$P9_SERVER" -e "demo=$share" >"$top/p9d.log" 2>&1 </dev/null &
server=$!
for _ in $(seq 100); do
	[ -S "$top/p9.sock" ] && break
	kill -0 "$server" 2>/dev/null || fail "p9d ended"
	sleep 0.05
done
[ -S "$top/p9.sock" ] || fail "p9d does not listen"
sed 's/^/     /' "$top/p9d.log"

say "p9 lists and reads it (P9_SERVER=$P9_SERVER, so there is no need to say where):"
show p9 -a demo ls -l
expect hello.txt
show p9 -a demo cat /hello.txt
expect 'Hello from the host.'
show p9 -a demo readlink /greeting
expect hello.txt

say "p9 writes to it, and the host sees it at once:"
echo 'Hello back, through 9P.' >"$top/reply.txt"
show p9 -a demo mkdir /from-p9
show p9 -a demo put "$top/reply.txt" /from-p9/reply.txt
show cat "$share/from-p9/reply.txt"
expect 'Hello back'
show p9 -a demo mv /from-p9/reply.txt /from-p9/renamed.txt
show p9 -a demo chmod 0600 /from-p9/renamed.txt
show ls -l "$share/from-p9"
expect renamed.txt
expect rw-------

say "Three megabytes fetched, and compared with the original:"
show p9 -a demo get /photos/cat.jpg "$top/cat.jpg"
show cmp "$share/photos/cat.jpg" "$top/cat.jpg"
echo "     the same"

say "Errors say what, where and why:"
echo "   \$ p9 -a demo cat /nothing"
p9 -a demo cat /nothing >"$top/out" 2>&1 </dev/null && fail "a file that is not there could be read"
sed 's/^/     /' "$top/out"
expect ENOENT

say "p9d ends when it is told to, and takes its socket with it:"
echo "   \$ kill %1"
kill "$server"
wait "$server"
rc=$?
server=
[ $rc -eq 0 ] || fail "p9d: exit code $rc"
[ ! -e "$top/p9.sock" ] || fail "the socket is still there"

if [ $kernel = 1 ]; then
	say "A real Linux kernel, booted in QEMU, mounts such a share over TCP and works in it (half a minute):"
	if tests/guest/run --help | grep -qw demo; then
		guest=(--suite demo)
	else
		guest=(--suite quick --only 'and read back')
	fi
	echo "   \$ tests/guest/run --p9d $build/p9d --p9 $build/p9 --transport tcp ${guest[*]@Q}"
	tests/guest/run --p9d "$build/p9d" --p9 "$build/p9" --transport tcp "${guest[@]}" 2>&1 </dev/null | sed 's/^/     /'
	[ "${PIPESTATUS[0]}" -eq 0 ] || fail "the kernel in QEMU could not use the share"
fi

echo
echo "${bold}All of it worked.$plain To share a directory of your own:"
cat <<END
   $build/p9d DIRECTORY                  shares it on the default socket and says how to list and mount it
   $build/p9 ls -l                       lists it
   mount -t 9p -o trans=unix,version=9p2000.L,aname=DIRECTORY SOCKET /mnt      (as root)
README.md has more; 'make install' installs p9d, p9 and their manual pages.
END
