#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs a build into an empty DESTDIR and looks at what came: the programs run from there, every public header can be
# included alone in C and C++ style, the manual pages are there, nothing lies outside the prefix; and uninstall takes all.
# usage: tools/install-test.sh [BUILD-DIRECTORY]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
build=${1:-build}
dest=$(mktemp -d) || exit 1
trap 'rm -rf -- "$dest"' EXIT
passed=0 failed=0
check() {
	local what=$1
	shift
	if "$@" >"$dest.out" 2>&1; then
		passed=$((passed + 1))
		echo "ok      $what"
	else
		failed=$((failed + 1))
		echo "FAILED  $what"
		sed 's/^/    | /' "$dest.out"
	fi
	rm -f "$dest.out"
}
one() {
	[ "$(find "$dest" -name "$1" -type f ! -path '*/completions/*' | wc -l)" = 1 ] || {
		echo "not exactly one $1 is installed"
		return 1
	}
}
prefix=$(meson introspect --buildoptions "$build" | python3 -c '
import json, sys
print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')

check "make install DESTDIR=" make --no-print-directory install BUILD="$build" DESTDIR="$dest"
for file in wire.9t hostile.9t conformance.md p9d p9 p9d.8 p9.1 p9d.service p9d.socket codec.h messages.h error.h session.h vfs.h engine.h libp9core.a p9core.pc \
	client.h fs.h libp9.a p9.pc libp9.3 p9_client.3 p9_fs.3; do
	check "$file is installed" one "$file"
done
check "bash completion is installed" [ -f "$dest$prefix/share/bash-completion/completions/p9" ]
inside_prefix() {
	local stray
	stray=$(find "$dest" -type f ! -path "$dest$prefix/*" ! -path "$dest/etc/*" ! -path "$dest/usr/lib/systemd/*")
	[ -z "$stray" ] || { echo "outside $prefix: $stray" && return 1; }
}
check "all of it below $prefix" inside_prefix
no_paths() {
	! grep -rlaF -- "$PWD/" "$dest" || { echo "(these hold the path of the source tree)" && return 1; }
}
check "no path of the source tree is in it" no_paths
for program in p9d p9; do
	check "$program --version" "$(find "$dest" -name $program -type f ! -path '*/completions/*' | head -n 1)" --version
done
# The installed p9d on a socket that a service manager would pass (LISTEN_FDS), with a configuration file.
activated() {
	mkdir "$dest.share" && echo content >"$dest.share/file" && echo "export it=$dest.share,ro" >"$dest.conf" &&
		python3 - "$(find "$dest" -name p9d -type f ! -path '*/completions/*')" "$(find "$dest" -name p9 -type f ! -path "*/completions/*")" "$dest.conf" "$dest.sock" <<'END'
import os, socket, subprocess, sys
p9d, p9, conf, path = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(5)
fd = listener.fileno()
server = subprocess.Popen(["sh", "-c", f"exec 3<&{fd}; LISTEN_FDS=1 LISTEN_PID=$$ exec {p9d} -c {conf}"], pass_fds=[fd])
try:
    got = subprocess.run([p9, "-s", "unix:" + path, "-a", "it", "cat", "/file"], stdout=subprocess.PIPE, timeout=20)
finally:
    server.terminate()
    code = server.wait(20)
sys.exit(got.stdout != b"content\n" or code)
END
	local rc=$?
	rm -rf -- "$dest.share" "$dest.conf" "$dest.sock"
	return $rc
}
check "p9d on a socket that is passed to it" activated
for header in "$dest$prefix"/include/p9/*.h; do
	check "<p9/${header##*/}> alone" gcc -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only \
		-I"$dest$prefix/include" -x c - <<<"#include <p9/${header##*/}>"
	check "<p9/${header##*/}> in C++" g++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only \
		-I"$dest$prefix/include" -x c++ - <<<"#include <p9/${header##*/}>"
done
# A program that is built from what was installed, and from nothing else.
core() {
	local pc
	pc=$(find "$dest" -name p9core.pc)
	# shellcheck disable=SC2046 # flags are words
	gcc -Wall -Wextra -Werror doc/examples/vfs.c -o "$dest.vfs" \
		$(PKG_CONFIG_SYSROOT_DIR="$dest" PKG_CONFIG_PATH="${pc%/*}" pkg-config --cflags --libs p9core)
	local rc=$?
	rm -f "$dest.vfs"
	return $rc
}
check "doc/examples/vfs.c with p9core.pc" core
# The same with libp9, from C and from C++, with the shared object and with the archive, and run against the installed p9d.
libp9() {
	local language=$1 how=$2 pc rc flags libs
	pc=$(find "$dest" -name p9.pc)
	flags=$(PKG_CONFIG_SYSROOT_DIR="$dest" PKG_CONFIG_PATH="${pc%/*}" pkg-config --cflags p9)
	libs=$(PKG_CONFIG_SYSROOT_DIR="$dest" PKG_CONFIG_PATH="${pc%/*}" pkg-config --libs $how p9)
	if [ "$how" = --static ]; then
		libs=${libs/-lp9/-l:libp9.a}
	fi
	# shellcheck disable=SC2086 # flags are words
	case $language in
	c) gcc -std=c11 -Wall -Wextra -Werror doc/examples/tree.c -o "$dest.prog" $flags $libs || return 1 ;;
	c++) g++ -std=c++17 -Wall -Wextra -Werror -x c++ - -x none -o "$dest.prog" $flags $libs <<'END' || return 1 ;;
#include <p9/client.h>
#include <p9/codec.h>
#include <p9/error.h>
#include <p9/fs.h>
#include <cstdio>
int main(int argc, char **argv)
{
	p9_client_opts o = {};
	o.uid = 0;
	p9_client *c = p9_client_new();
	p9_rgetattr st;
	bool fine = argc > 1 && p9_client_dial(c, argv[1], &o) >= 0 && p9_stat(c, "file", &st) >= 0 && st.size == 8;
	if (fine) {
		std::puts("file");
	}
	p9_client_free(c);
	return fine ? 0 : 1;
}
END
	esac
	mkdir "$dest.share" && echo content >"$dest.share/file"
	"$(find "$dest" -name p9d -type f ! -path '*/completions/*')" -l "unix:$dest.sock" "$dest.share" 2>/dev/null &
	local server=$!
	for _ in $(seq 100); do [ -S "$dest.sock" ] && break || sleep 0.1; done
	LD_LIBRARY_PATH=$(dirname "$(find "$dest" -name libp9.so.0)") "$dest.prog" "unix:$dest.sock" | grep -q file
	rc=$?
	kill $server && wait $server
	case $how in
	--static) ! ldd "$dest.prog" | grep -q libp9 || rc=1 ;;
	*) ldd "$dest.prog" | grep -q 'libp9\.so\.0' || rc=1 ;;
	esac
	rm -rf -- "$dest.prog" "$dest.share" "$dest.sock"
	return $rc
}
for language in c c++; do
	check "$language with libp9.so" libp9 $language ""
	check "$language with libp9.a" libp9 $language --static
done
# What the shared object exports is what its headers declare, and nothing else.
exports() {
	nm -D --defined-only "$(find "$dest" -name 'libp9.so.0*' -type f)" | awk '$2 != "A" { sub("@.*", "", $3); print $3 }' |
		sort >"$dest.have"
	(cd "$dest$prefix/include/p9" && python3 "$OLDPWD/tools/exports.py" list error.h codec.h client.h fs.h) |
		LC_ALL=C sort >"$dest.want"
	LC_ALL=C sort -o "$dest.have" "$dest.have"
	diff "$dest.want" "$dest.have"
	local rc=$?
	rm -f "$dest.want" "$dest.have"
	return $rc
}
check "libp9.so exports what the headers declare" exports
check "make uninstall" make --no-print-directory uninstall BUILD="$build" DESTDIR="$dest"
nothing_left() {
	local left
	left=$(find "$dest" -type f)
	[ -z "$left" ] || { echo "left: $left" && return 1; }
}
check "nothing is left" nothing_left
echo "install: $passed passed, $failed failed"
[ $failed = 0 ]
