#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A file system that hangs when it is told to: raw FUSE, one thread, nothing cached by the kernel.

usage: fusefs.py GATE MOUNTPOINT

One directory with the files h0..h31 of 128 KiB (bytes of their name); what is written is forgotten. GATE is a file with
names of operations (LOOKUP GETATTR OPEN READ ...; ALL is all of them); requests of these kinds wait until the name is gone
from it, and nothing interrupts them, as with a server that does not answer. GATE.seen says what was last found there. It
ends when it is unmounted.
"""
import ctypes
import errno
import os
import select
import signal
import struct
import sys

OPS = {1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 9: "MKDIR", 10: "UNLINK", 12: "RENAME", 13: "LINK", 14: "OPEN",
       15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC", 22: "GETXATTR", 23: "LISTXATTR", 25: "FLUSH",
       26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 36: "INTERRUPT", 38: "DESTROY", 42: "BATCH_FORGET",
       45: "RENAME2"}
NO_REPLY = {"FORGET", "BATCH_FORGET", "INTERRUPT", "DESTROY"}
FILES, SIZE = 32, 128 * 1024


def attr(node):
    mode, nlink, size = (0o40777, 2, 0) if node == 1 else (0o100666, 1, SIZE)
    return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, nlink, 0, 0, 0, 4096, 0)


def entry(node):
    return struct.pack("<4Q2I", node, 0, 0, 0, 0, 0) + attr(node)


def listing(offset):
    out = b""
    for i in range(offset, FILES):
        name = b"h%d" % i
        out += struct.pack("<QQII", 2 + i, i + 1, len(name), 8) + name + bytes(-len(name) % 8)
    return out


def answer(op, node, body):
    """Bytes, or minus errno."""
    if op == "INIT":
        return struct.pack("<4I2H2I2HI7I", 7, 31, 0, 0, 64, 48, 131072, 1, 32, 0, 0, *[0] * 7)
    if op == "LOOKUP":
        name = body.rstrip(b"\0")
        known = name[:1] == b"h" and name[1:].isdigit() and int(name[1:]) < FILES
        return entry(2 + int(name[1:])) if known else -errno.ENOENT
    if op in ("GETATTR", "SETATTR"):
        return struct.pack("<QII", 0, 0, 0) + attr(node)
    if op == "LISTXATTR":
        return b"" if struct.unpack_from("<I", body)[0] else struct.pack("<II", 0, 0)
    if op == "LINK":
        return entry(struct.unpack_from("<Q", body)[0])
    if op in ("OPEN", "OPENDIR"):
        return struct.pack("<QII", 0, 1 if op == "OPEN" else 0, 0)
    if op == "READ":
        offset, size = struct.unpack_from("<QI", body, 8)
        return bytes([node & 0xFF]) * max(0, min(size, SIZE - offset))
    if op == "WRITE":
        return struct.pack("<II", struct.unpack_from("<I", body, 16)[0], 0)
    if op == "READDIR":
        offset, size = struct.unpack_from("<QI", body, 8)
        return listing(offset)[:size]
    if op == "STATFS":
        return struct.pack("<5Q10I", 0, 0, 0, 0, 0, 0, 255, 0, *[0] * 7)  # f_bsize 0: a server must not divide by it
    if op in ("FLUSH", "RELEASE", "RELEASEDIR", "FSYNC", "RENAME", "RENAME2", "UNLINK"):
        return b""
    return -errno.ENOSYS


class Gate:
    def __init__(self, path):
        self.path, self.text, self.kinds = path, None, set()

    def look(self):
        try:
            with open(self.path, encoding="ascii") as f:
                text = f.read()
        except FileNotFoundError:
            text = ""
        if text != self.text:
            self.text, self.kinds = text, set(text.split())
            with open(self.path + ".seen~", "w", encoding="ascii") as f:
                f.write(text)
            os.rename(self.path + ".seen~", self.path + ".seen")

    def shut(self, op):
        return (op in self.kinds or "ALL" in self.kinds) and op != "INIT"


def reply(fd, unique, result):
    error, data = (result, b"") if isinstance(result, int) else (0, result)
    try:
        os.write(fd, struct.pack("<IiQ", 16 + len(data), error, unique) + data)
    except OSError:
        pass  # nobody waits for it any more


def serve(fd, gate):
    waiting = []
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        events = poll.poll(5)
        gate.look()
        still = [w for w in waiting if gate.shut(w[1])]
        for unique, op, node, body in waiting:
            if not gate.shut(op):
                reply(fd, unique, answer(op, node, body))
        waiting = still
        if not events:
            continue
        try:
            data = os.read(fd, 1 << 20)
        except OSError as e:
            if e.errno == errno.ENODEV:
                return
            continue
        _, code, unique, node = struct.unpack_from("<IIQQ", data)
        op, body = OPS.get(code, str(code)), data[40:]
        if op in NO_REPLY:
            continue
        if gate.shut(op):
            waiting.append((unique, op, node, body))
        else:
            reply(fd, unique, answer(op, node, body))


def main():
    gate, where = sys.argv[1:]
    fd = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: without the test nothing is to hang
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"hang", os.fsencode(where), b"fuse.hang", 6, options) < 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    os.set_blocking(fd, False)
    print("mounted", flush=True)
    serve(fd, Gate(gate))


if __name__ == "__main__":
    main()
