# SPDX-License-Identifier: BSD-2-Clause
"""The conversation that is swept: every kind of request once or more, each reply judged.

Up to the moment of the fault everything must succeed. The request during which it strikes succeeds all the same or
fails with the errno that was injected. When it succeeded, all after it must, too; when it failed, what builds on it
may fail.
"""
import os
import struct

from wire import NAMES, NOFID, NOTAG, RLERROR, T, Link, entries

AFTERMATH = {1, 2, 9, 17, 20, 21, 22, 39, 61, 95}  # EPERM ENOENT EBADF EEXIST ENOTDIR EISDIR EINVAL ENOTEMPTY ENODATA EOPNOTSUPP
BIG = bytes((i * 31 + (i >> 8) * 7) & 255 for i in range(200_000))


class Wrong(Exception):
    pass


def make_tree(top):
    """What the conversation finds."""
    os.mkdir(top, 0o777)
    os.chmod(top, 0o777)
    os.mkdir(os.path.join(top, "d"))
    for name, data in (("f", b"hello\n"), ("big", BIG), ("d/leaf", b"leaf\n"), ("gone", b"g\n")):
        with open(os.path.join(top, name), "wb") as f:
            f.write(data)
        os.chmod(os.path.join(top, name), 0o666)
    os.chmod(os.path.join(top, "d"), 0o777)


class Talk:
    """struck() tells whether the fault has come, allowed() which errnos may then be answered."""

    def __init__(self, path, struck, allowed, owner):
        self.path, self.struck, self.allowed = path, struck, allowed
        self.user, self.group = owner
        self.tag, self.before, self.broken, self.link, self.where = 0, False, False, None, "connect"
        self.errors, self.batch = [], False

    # -- one request
    def judge(self, name, kind, body):
        """Returns the body of a success, None for an error that may be."""
        now = self.struck()
        fresh = now and not self.before
        self.before = now and not self.batch
        if kind == T[name] + 1:
            return body
        if kind != RLERROR:
            raise Wrong(f"T{name} answered by a message of type {kind}")
        (ecode,) = struct.unpack("<I", body)
        self.errors.append(f"T{name}: {ecode}")
        if fresh and ecode in self.allowed():
            self.broken = True
        elif not (self.broken and ecode in AFTERMATH):
            raise Wrong(f"T{name} ({self.where}): error {ecode} ({os.strerror(ecode)}), "
                        f"{'at the fault' if fresh else 'after it' if now else 'before it'}")
        return None

    def rpc(self, name, form="", *values):
        self.tag = (self.tag + 1) % 1000
        tag = NOTAG if name == "version" else self.tag
        self.where = f"{name} {values}"[:100]
        self.link.send(name, tag, form, *values)
        kind, got, body = self.link.receive()
        if got != tag:
            raise Wrong(f"T{name}: reply to tag {got}, want {tag} ({NAMES.get(kind - 1)})")
        return self.judge(name, kind, body)

    def same(self, what, got, want):
        if got is not None and got != want and not self.broken:
            raise Wrong(f"{what}: got {got!r:.80}, want {want!r:.80}")

    # -- helpers
    def walk(self, fid, newfid, *names):
        struck = self.struck()
        body = self.rpc("walk", "IIn", fid, newfid, names)
        if body is not None and struct.unpack("<H", body[:2])[0] < len(names) and not struck and self.struck():
            self.broken = True  # an error on the way is told by how far it came
        if body is not None and struct.unpack("<H", body[:2])[0] != len(names) and not self.broken:
            raise Wrong(f"walk to {names} came {struct.unpack('<H', body[:2])[0]} elements far")

    def write(self, fid, offset, data):
        """Writes all of it, whatever goes at once; a server may write less."""
        done = 0
        while done < len(data):
            body = self.rpc("write", "IQd", fid, offset + done, data[done:])
            if body is None:
                return
            (n,) = struct.unpack("<I", body)
            if n == 0 or n > len(data) - done:
                raise Wrong(f"Rwrite count {n} of {len(data) - done}")
            done += n

    def read(self, fid, offset, count, want):
        """Reads as often as it takes; at the end the bytes must be right (never zeros in the place of others)."""
        got = b""
        while len(got) < count:
            body = self.rpc("read", "IQI", fid, offset + len(got), count - len(got))
            if body is None:
                break
            if len(body) == 4:
                break
            got += body[4:]
        if self.broken:
            return
        if got != want[:len(got)]:
            raise Wrong(f"read at {offset}: {got[:20]!r}... ({len(got)} bytes) are not the file's {want[:20]!r}...")
        if len(got) != len(want):
            raise Wrong(f"read at {offset}: {len(got)} bytes, want {len(want)}")

    def clunk(self, *fids):
        for fid in fids:
            self.rpc("clunk", "I", fid)

    # -- the parts
    def session(self):
        body = self.rpc("version", "Is", 65536 * 2, "9P2000.L")
        self.same("version", body and body[6:], b"9P2000.L")
        uid = self.user
        self.rpc("attach", "IIssI", 0, NOFID, "", "main", uid)
        self.rpc("attach", "IIssI", 1, NOFID, "root", "main", 0 if os.geteuid() == 0 else uid)
        if self.broken:
            self.rpc("attach", "IIssI", 0, NOFID, "", "main", uid)
            self.rpc("attach", "IIssI", 1, NOFID, "root", "main", 0 if os.geteuid() == 0 else uid)

    def files(self):
        self.walk(0, 2, "d", "leaf")
        self.walk(0, 7, "d")
        self.walk(7, 3, "..", "d", "leaf")
        self.rpc("getattr", "IQ", 2, 0x3FFF)
        self.rpc("lopen", "II", 2, 2)
        self.read(2, 0, 100, b"leaf\n")
        self.write(2, 5, b"more\n")
        self.rpc("fsync", "II", 2, 0)
        self.rpc("fsync", "II", 2, 1)
        self.read(2, 0, 100, b"leaf\nmore\n")
        self.walk(0, 4)
        self.rpc("lcreate", "IsIII", 4, "new", 0o102 | 0o1000, 0o644, NOFID)
        self.write(4, 0, b"x" * 5000)
        self.read(4, 0, 6000, b"x" * 5000)
        self.rpc("getattr", "IQ", 4, 0x7FF)
        self.rpc("setattr", "IIIIIQQQQQ", 4, 0x1 | 0x8 | 0x10 | 0x80, 0o600, 0, 0, 100, 1000, 5, 0, 0)
        self.rpc("setattr", "IIIIIQQQQQ", 4, 0x20, 0, 0, 0, 0, 0, 0, 0, 0)
        self.read(4, 0, 6000, b"x" * 100)
        self.walk(4, 5)
        self.clunk(4, 5, 3, 2, 7)
        self.walk(1, 2, "big")
        self.rpc("lopen", "II", 2, 0)
        self.read(2, 0, 100_000, BIG[:100_000])
        self.read(2, 150_000, 100_000, BIG[150_000:])
        self.clunk(2)
        self.walk(1, 2, "f")
        self.rpc("setattr", "IIIIIQQQQQ", 2, 0x2 | 0x4 | 0x8, 0, self.user, self.group, 3, 0, 0, 0, 0)
        self.clunk(2)
        self.rpc("statfs", "I", 0)

    def tree(self):
        self.rpc("mkdir", "IsII", 0, "dir", 0o755, NOFID)
        self.rpc("symlink", "IssI", 0, "sym", "d/leaf", NOFID)
        self.rpc("mknod", "IsIIII", 0, "pipe", 0o010644, 0, 0, NOFID)
        self.walk(0, 2, "sym")
        self.same("readlink", self.rpc("readlink", "I", 2), b"\6\0d/leaf")
        self.walk(0, 3, "new")
        self.walk(0, 4, "dir")
        self.rpc("link", "IIs", 4, 3, "linked")
        self.rpc("rename", "IIs", 3, 4, "moved")
        self.rpc("renameat", "IsIs", 4, "moved", 0, "back")
        self.rpc("unlinkat", "IsI", 4, "linked", 0)
        self.rpc("remove", "I", 4)
        self.rpc("mkdir", "IsII", 0, "dir2", 0o755, NOFID)
        self.rpc("unlinkat", "IsI", 0, "dir2", 0x200)
        self.rpc("remove", "I", 2)
        self.clunk(3)
        self.walk(0, 5, "gone")
        self.walk(0, 6, "gone")
        self.rpc("remove", "I", 6)
        self.rpc("lopen", "II", 5, 0)
        self.read(5, 0, 10, b"g\n")
        self.clunk(5)

    def xattrs(self):
        self.walk(0, 2, "d", "leaf")
        for name, value in (("user.a", b"value"), ("user.b", b"")):
            self.walk(2, 3)
            self.rpc("xattrcreate", "IsQI", 3, name, len(value), 0)
            if value:
                self.rpc("write", "IQd", 3, 0, value)
            self.clunk(3)
        self.rpc("xattrwalk", "IIs", 2, 4, "user.a")
        self.same("xattr", (self.rpc("read", "IQI", 4, 0, 100) or b"")[4:] or None, b"value")
        self.clunk(4)
        self.rpc("xattrwalk", "IIs", 2, 4, "")
        self.rpc("read", "IQI", 4, 0, 1000)
        self.clunk(4)
        self.walk(2, 3)
        self.rpc("xattrcreate", "IsQI", 3, "user.a", 0, 2)
        self.clunk(3, 2)

    def listing(self):
        self.walk(0, 2)
        self.rpc("lopen", "II", 2, 0)
        names, offset = [], 0
        for _ in range(40):
            body = self.rpc("readdir", "IQI", 2, offset, 400)
            if body is None or len(body) == 4:
                break
            part = entries(body[4:])
            names += [n for n, _ in part]
            offset = part[-1][1]
        if len(set(names)) != len(names):
            raise Wrong(f"listing: an entry twice: {sorted(names)}")
        self.same("listing", sorted(names), [".", "..", "back", "big", "d", "f", "pipe"])
        self.rpc("readdir", "IQI", 2, 0, 4000)
        self.clunk(2)

    def locks(self):
        for fid in (2, 3):
            self.walk(1, fid, "f")
            self.rpc("lopen", "II", fid, 2)
        lock = lambda fid, kind, flags, start, length, pid: ("lock", "IBIQQIs", fid, kind, flags, start, length, pid, "c")
        self.same("lock", self.rpc(*lock(2, 1, 0, 0, 10, 1)), b"\0")
        self.rpc("getlock", "IBQQIs", 3, 1, 0, 0, 2, "c")
        self.same("lock", self.rpc(*lock(3, 1, 0, 5, 10, 2)), b"\1")
        self.waiting(lock(3, 1, 1, 5, 10, 2))
        self.same("unlock", self.rpc(*lock(2, 2, 0, 0, 10, 1)), b"\0")
        self.same("lock", self.rpc(*lock(3, 1, 1, 5, 10, 2)), b"\0")
        self.clunk(3, 2)

    def waiting(self, lock):
        """A lock that waits, and is flushed: the Rflush must come, and at most one reply to the lock, before it."""
        self.link.send(lock[0], 2000, *lock[1:])
        self.link.send("flush", 2001, "H", 2000)
        self.where, self.batch = "flush of a waiting lock", True
        kind, tag, body = self.link.receive()
        if tag == 2000:
            self.judge("lock", kind, body)
            kind, tag, body = self.link.receive()
        if tag != 2001:
            raise Wrong(f"reply to tag {tag}, want that of Tflush")
        self.judge("flush", kind, body)
        self.batch, self.before = False, self.struck()

    def pipelined(self):
        self.where, self.batch = "pipelined", True
        self.link.send("walk", 2001, "IIn", 0, 2, ["d"])
        self.link.send("getattr", 2002, "IQ", 2, 0x7FF)
        self.link.send("clunk", 2003, "I", 2)
        for _ in range(3):
            kind, tag, body = self.link.receive()
            self.judge({2001: "walk", 2002: "getattr", 2003: "clunk"}[tag], kind, body)
        self.batch, self.before = False, self.struck()
        self.rpc("version", "Is", 8192, "9P2000.L")
        self.rpc("attach", "IIssI", 0, NOFID, "", "main", self.user)
        self.walk(0, 2, "d")

    def run(self):
        """All of it; leaves two fids to the end of the connection. Raises Wrong; Lost is the caller's to judge."""
        self.link = Link(self.path)
        try:
            for part in (self.session, self.files, self.tree, self.xattrs, self.listing, self.locks, self.pipelined):
                part()
        finally:
            self.link.close()
