#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes seeds of fuzz/fz_takeover.c: the states of real p9d in several situations, with the kinds of their descriptors.

usage: tests/takeover/seeds.py [--p9d PATH] DIRECTORY
"""
import argparse
import os
import re
import stat
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "system"), os.path.join(HERE, "..", "vhost")]
sys.dont_write_bytecode = True
import common  # noqa: E402

KINDS = ("socket", "directory", "pinned", "file", "eventfd", "memory", "nothing")


def kind(fd):
    """What fz_takeover.c has for this descriptor."""
    name, st = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd)
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
        flags = int(re.search(r"flags:\s*(\d+)", f.read()).group(1), 8)
    if stat.S_ISSOCK(st.st_mode):
        return "socket"
    if "eventfd" in name:
        return "eventfd"
    if "memfd" in name:
        return "memory"
    if flags & os.O_PATH:
        return "pinned"
    return "directory" if stat.S_ISDIR(st.st_mode) else "file" if stat.S_ISREG(st.st_mode) else "nothing"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p9d", default=os.path.join(common.lib.ROOT, "build", "p9d"))
    parser.add_argument("directory")
    args = parser.parse_args()
    common.P9D = os.path.abspath(args.p9d)
    import k_device  # pylint: disable=import-outside-toplevel
    import k_fail  # pylint: disable=import-outside-toplevel
    import k_state  # pylint: disable=import-outside-toplevel
    from ninep import BLOCK, O_RDWR, WRLCK, T, frame  # pylint: disable=import-outside-toplevel
    os.makedirs(args.directory, exist_ok=True)

    def save(name, s):
        with k_fail.dial(s.private()) as t:
            fds = k_fail.take_until(t, k_fail.ACK)
            state = os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
        with open(os.path.join(args.directory, name), "wb") as f:
            f.write(bytes([len(fds) - 1]) + bytes(KINDS.index(kind(fd)) for fd in fds[1:]) + state)
        for fd in fds:
            os.close(fd)

    with k_state.Line("-e", f"x={k_state.tree()}", "-e", f"y={k_state.tree()}") as s:
        save("nobody", s)
        a, b = s.conn("x"), s.conn("y")
        fa, fb = a.open(0, "f", flags=O_RDWR), a.open(0, "dir")
        a.readdir(fb, 0, 500)
        w = a.walk(0, "f")
        a.xattrcreate(w, "user.x", 10, 0)
        a.write(w, 0, b"01234")
        save("fids", s)
        a.lock(fa, WRLCK, 0, 10)
        b._lock(b.open(0, "f", flags=O_RDWR), WRLCK, BLOCK, 0, 10, 2, "w")
        c = s.conn("x")
        c._lock(c.open(0, "f", flags=O_RDWR), WRLCK, BLOCK, 0, 10, 2, "w")
        save("locks", s)
        b.push(frame(T["write"], 5, b"12345")[:9])
        d = s.conn("")
        d.walk(0)
        for i in range(40):
            a._read(fa, i, 20000)
        save("bytes", s)
    with k_device.Dev(options=",queues=2") as s:
        g = s.guest(queues=2)
        save("device", s)
        f = g.open(0, "f", flags=O_RDWR)
        g.lock(f, WRLCK, 0, 10)
        g._lock(g.open(0, "f", flags=O_RDWR), WRLCK, BLOCK, 0, 10, 2, "w")
        g.monitor.raw(b"\x01\0\0\0\x01\0\0\0\x08")
        save("device-waits", s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
