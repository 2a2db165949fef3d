# SPDX-License-Identifier: BSD-2-Clause
"""A 9P2000.L client of raw frames, just enough for the fault sweep: numbers, bodies and a socket."""
import socket
import struct

RLERROR, NOTAG, NOFID = 7, 0xFFFF, 0xFFFFFFFF
T = {"statfs": 8, "lopen": 12, "lcreate": 14, "symlink": 16, "mknod": 18, "rename": 20, "readlink": 22, "getattr": 24,
     "setattr": 26, "xattrwalk": 30, "xattrcreate": 32, "readdir": 40, "fsync": 50, "lock": 52, "getlock": 54,
     "link": 70, "mkdir": 72, "renameat": 74, "unlinkat": 76, "version": 100, "auth": 102, "attach": 104, "flush": 108,
     "walk": 110, "read": 116, "write": 118, "clunk": 120, "remove": 122}
NAMES = {number: name for name, number in T.items()}


class Lost(Exception):
    """The connection is gone."""


def s(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<H", len(data)) + data


def pack(form, *values):
    """struct.pack, little-endian, but an `s` takes a string of 9P and an `n` a list of them."""
    out = b""
    for kind, value in zip(form, values):
        if kind == "s":
            out += s(value)
        elif kind == "n":
            out += struct.pack("<H", len(value)) + b"".join(s(v) for v in value)
        elif kind == "d":
            out += struct.pack("<I", len(value)) + value
        else:
            out += struct.pack("<" + kind, value)
    return out


class Link:
    def __init__(self, path, seconds=60.0):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(seconds)
        self.buffer = b""
        try:
            self.sock.connect(path)
        except OSError as e:
            self.sock.close()
            raise Lost(str(e)) from None

    def send(self, name, tag, form="", *values):
        body = pack(form, *values)
        try:
            self.sock.sendall(struct.pack("<IBH", 7 + len(body), T[name], tag) + body)
        except socket.timeout:
            raise
        except OSError as e:
            raise Lost(str(e)) from None

    def take(self, n):
        while len(self.buffer) < n:
            try:
                data = self.sock.recv(1 << 17)
            except socket.timeout:
                raise
            except OSError as e:
                raise Lost(str(e)) from None
            if not data:
                raise Lost("closed" + (" in the middle of a reply" if self.buffer else ""))
            self.buffer += data
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def receive(self):
        """The next reply: type, tag, body."""
        size, kind, tag = struct.unpack("<IBH", self.take(7))
        return kind, tag, self.take(size - 7)

    def close(self):
        self.sock.close()


def entries(data):
    """Names and cookies of an Rreaddir's payload."""
    out, at = [], 0
    while at < len(data):
        offset, _, n = struct.unpack_from("<QBH", data, at + 13)
        out.append((data[at + 24:at + 24 + n].decode(), offset))
        at += 24 + n
    return out
