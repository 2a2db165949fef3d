# SPDX-License-Identifier: BSD-2-Clause
"""A raw 9P2000.L client: frames out, frames in, nothing checked for its user.

Conn.send() does not wait and returns the tag; Conn.wait(tag) takes replies in whatever order they come. Every request has
a method of its name that waits; with a leading underscore (conn._walk) it only sends and returns the tag.
"""
import errno
import os
import select
import socket
import struct
import time

NOTAG, NOFID, NONUNAME = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
RLERROR = 7
T = {name: number for name, number in (
    ("statfs", 8), ("lopen", 12), ("lcreate", 14), ("symlink", 16), ("mknod", 18), ("rename", 20), ("readlink", 22),
    ("getattr", 24), ("setattr", 26), ("xattrwalk", 30), ("xattrcreate", 32), ("readdir", 40), ("fsync", 50),
    ("lock", 52), ("getlock", 54), ("link", 70), ("mkdir", 72), ("renameat", 74), ("unlinkat", 76), ("version", 100),
    ("auth", 102), ("attach", 104), ("flush", 108), ("walk", 110), ("read", 116), ("write", 118), ("clunk", 120),
    ("remove", 122))}
O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND = 0, 1, 2, 0o100, 0o200, 0o1000, 0o2000
O_DSYNC, O_SYNC = 0o10000, 0o4000000
SET_MODE, SET_UID, SET_GID, SET_SIZE, SET_ATIME, SET_MTIME, SET_CTIME = 1, 2, 4, 8, 16, 32, 64
RDLCK, WRLCK, UNLCK = 0, 1, 2
BLOCK = 1
SUCCESS, BLOCKED, LOCK_ERROR = 0, 1, 2


class Error(Exception):
    """The server answered Rlerror; .code is the errno."""

    def __init__(self, code):
        super().__init__(errno.errorcode.get(code, str(code)))
        self.code = code


class Closed(Exception):
    """The server has closed the connection."""


class Late(Exception):
    """No reply in time."""


def text(s):
    raw = s if isinstance(s, bytes) else os.fsencode(s)
    return struct.pack("<H", len(raw)) + raw


def frame(kind, tag, body=b""):
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


class Attr:
    """Rgetattr."""
    FIELDS = ("valid", "qtype", "version", "path", "mode", "uid", "gid", "nlink", "rdev", "size", "blksize", "blocks",
              "atime", "atime_ns", "mtime", "mtime_ns", "ctime", "ctime_ns", "btime", "btime_ns", "gen", "data_version")

    def __init__(self, body):
        for name, value in zip(self.FIELDS, struct.unpack("<QBIQIIIQQQQQQQQQQQQQQQ", body)):
            setattr(self, name, value)


def dial(address):
    """A connected socket: address is a path, or (host, port)."""
    if isinstance(address, str):
        s = socket.socket(socket.AF_UNIX)
    else:
        s = socket.socket(socket.AF_INET)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.connect(address)  # with a time limit, a full backlog would be an error
    s.settimeout(60)
    return s


def ready(sock, events, seconds):
    """Those of the events that are there within the time; 0 for none. select(2) knows no descriptors above 1023."""
    poll = select.poll()
    poll.register(sock, events)
    got = poll.poll(max(0, seconds) * 1000)
    return got[0][1] if got else 0


class Conn:
    def __init__(self, address, msize=65536, timeout=60.0, version=True):
        self.sock = address if isinstance(address, socket.socket) else dial(address)
        self.sock.setblocking(False)
        self.timeout, self.buffer, self.got, self.order = timeout, bytearray(), {}, []
        self.next_tag, self.busy, self.next_fid, self.msize = 0, set(), 1000, msize
        if version:
            self.version(msize)

    # ---- frames ----
    def push(self, data):
        """Sends bytes as they are; takes replies in when the server will not read before it can write."""
        view, deadline = memoryview(data), time.monotonic() + self.timeout
        while view:
            try:
                view = view[self.sock.send(view):]
            except BlockingIOError:
                if ready(self.sock, select.POLLIN | select.POLLOUT, 0.5) == select.POLLIN:
                    self._take()
                if time.monotonic() > deadline:
                    raise Late("the server does not read") from None
            except (BrokenPipeError, ConnectionResetError):
                raise Closed("closed while sending") from None

    def tag(self):
        while True:
            t = self.next_tag
            self.next_tag = (self.next_tag + 1) % 0xFFFF
            if t not in self.busy:
                self.busy.add(t)
                return t

    def send(self, kind, body=b"", tag=None):
        tag = self.tag() if tag is None else tag
        self.push(frame(kind, tag, body))
        return tag

    def _take(self):
        """Reads what is there; returns False at the end."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not data:
            return False
        self.buffer += data
        at = 0
        while len(self.buffer) - at >= 7:
            size, kind, tag = struct.unpack_from("<IBH", self.buffer, at)
            if len(self.buffer) - at < size:
                break
            self.got.setdefault(tag, []).append((kind, bytes(self.buffer[at + 7:at + size])))
            self.order.append(tag)
            at += size
        del self.buffer[:at]
        return True

    def reply(self, tag, timeout=None):
        """(type, body) of the next reply with this tag."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not self.got.get(tag):
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late(f"no reply to tag {tag}")
            if ready(self.sock, select.POLLIN, left) and not self._take():
                if not self.got.get(tag):
                    raise Closed("closed by the server")
        waiting = self.got[tag]
        got = waiting.pop(0)
        if not waiting:
            del self.got[tag]
        self.busy.discard(tag)
        return got

    def wait(self, tag, timeout=None):
        """Body of the reply; raises Error for Rlerror."""
        kind, body = self.reply(tag, timeout)
        if kind == RLERROR:
            raise Error(struct.unpack("<I", body)[0])
        return body

    def outcome(self, tag, timeout=None):
        """0, or the errno of the reply."""
        try:
            self.wait(tag, timeout)
            return 0
        except Error as e:
            return e.code

    def settle(self, seconds):
        """Takes in what comes within the time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if ready(self.sock, select.POLLIN, left) and not self._take():
                return

    def answered(self, tag):
        """Whether a reply is there already."""
        self.settle(0.001)
        return bool(self.got.get(tag))

    def ended(self, seconds=20.0):
        """Whether the server closes the connection within the time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if ready(self.sock, select.POLLIN, left) and not self._take():
                return True
        return False

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- requests: how the body is made ----
    def fid(self):
        self.next_fid += 1
        return self.next_fid

    @staticmethod
    def body(name, *a):
        pack = struct.pack
        if name == "version":
            return pack("<I", a[0]) + text(a[1])
        if name == "attach":  # fid afid uname aname n_uname
            return pack("<II", a[0], a[1]) + text(a[2]) + text(a[3]) + pack("<I", a[4])
        if name == "auth":
            return pack("<I", a[0]) + text(a[1]) + text(a[2]) + pack("<I", a[3])
        if name == "walk":
            return pack("<IIH", a[0], a[1], len(a) - 2) + b"".join(map(text, a[2:]))
        if name in ("clunk", "remove", "readlink", "statfs"):
            return pack("<I", a[0])
        if name == "flush":
            return pack("<H", a[0])
        if name in ("lopen", "fsync"):
            return pack("<II", *a)
        if name == "lcreate":  # fid name flags mode gid
            return pack("<I", a[0]) + text(a[1]) + pack("<III", *a[2:])
        if name == "symlink":
            return pack("<I", a[0]) + text(a[1]) + text(a[2]) + pack("<I", a[3])
        if name == "mknod":  # dfid name mode major minor gid
            return pack("<I", a[0]) + text(a[1]) + pack("<IIII", *a[2:])
        if name == "mkdir":  # dfid name mode gid
            return pack("<I", a[0]) + text(a[1]) + pack("<II", *a[2:])
        if name in ("rename", "link"):
            return pack("<II", a[0], a[1]) + text(a[2])
        if name == "renameat":
            return pack("<I", a[0]) + text(a[1]) + pack("<I", a[2]) + text(a[3])
        if name == "unlinkat":
            return pack("<I", a[0]) + text(a[1]) + pack("<I", a[2])
        if name == "getattr":
            return pack("<IQ", a[0], a[1] if len(a) > 1 else 0x3FFF)
        if name == "setattr":  # fid valid mode uid gid size atime atime_ns mtime mtime_ns
            return pack("<IIIIIQQQQQ", *a)
        if name in ("read", "readdir"):
            return pack("<IQI", *a)
        if name == "write":
            return pack("<IQI", a[0], a[1], len(a[2])) + bytes(a[2])
        if name == "xattrwalk":
            return pack("<II", a[0], a[1]) + text(a[2])
        if name == "xattrcreate":
            return pack("<I", a[0]) + text(a[1]) + pack("<QI", a[2], a[3])
        if name == "lock":  # fid type flags start length proc_id client_id
            return pack("<IBIQQI", *a[:6]) + text(a[6])
        if name == "getlock":  # fid type start length proc_id client_id
            return pack("<IBQQI", *a[:5]) + text(a[5])
        raise KeyError(name)

    def ask(self, name, *a, tag=None):
        return self.send(T[name], self.body(name, *a), tag)

    def __getattr__(self, name):
        if name.startswith("_") and name[1:] in T:
            return lambda *a, tag=None: self.ask(name[1:], *a, tag=tag)
        if name in T:
            return lambda *a: self.wait(self.ask(name, *a))
        raise AttributeError(name)

    # ---- requests with results that are used ----
    def version(self, msize, dialect="9P2000.L"):
        body = self.wait(self.ask("version", msize, dialect, tag=NOTAG))
        return struct.unpack_from("<I", body)[0], body[6:].decode()

    def attach(self, fid=0, aname="", uid=0, uname=""):
        return self.wait(self.ask("attach", fid, NOFID, uname, aname, uid))

    def walk(self, fid, *names, newfid=None):
        """A new fid, or Error ENOENT when not all names were walked."""
        new = self.fid() if newfid is None else newfid
        body = self.wait(self.ask("walk", fid, new, *names))
        if struct.unpack_from("<H", body)[0] < len(names):
            raise Error(errno.ENOENT)
        return new

    def open(self, fid, *names, flags=O_RDONLY):
        new = self.walk(fid, *names)
        try:
            self.wait(self.ask("lopen", new, flags))
        except Error:
            self.clunk(new)
            raise
        return new

    def create(self, fid, name, flags=O_RDWR, mode=0o644, gid=NONUNAME):
        """A new fid, the open file; fid stays the directory."""
        new = self.walk(fid)
        try:
            self.wait(self.ask("lcreate", new, name, flags, mode, gid))
        except Error:
            self.clunk(new)
            raise
        return new

    def getattr(self, fid):
        return Attr(self.wait(self.ask("getattr", fid)))

    def setattr(self, fid, valid, mode=0, uid=0, gid=0, size=0):
        self.wait(self.ask("setattr", fid, valid, mode, uid, gid, size, 0, 0, 0, 0))

    def read(self, fid, offset, count):
        body = self.wait(self.ask("read", fid, offset, count))
        return body[4:]

    def write(self, fid, offset, data):
        return struct.unpack("<I", self.wait(self.ask("write", fid, offset, data)))[0]

    def entries(self, fid, offset, count):
        """[(name, offset, type, qid path)] of one Treaddir."""
        return list(entries_of(self.wait(self.ask("readdir", fid, offset, count))))

    def lock(self, fid, kind, start, length, proc=1, client="t", flags=0):
        """Status."""
        return self.wait(self.ask("lock", fid, kind, flags, start, length, proc, client))[0]

    def getlock(self, fid, kind, start, length, proc=1, client="t"):
        """(type, start, length, proc_id, client_id)"""
        body = self.wait(self.ask("getlock", fid, kind, start, length, proc, client))
        return (*struct.unpack_from("<BQQI", body), body[23:].decode())

    def xattr(self, fid, name):
        new = self.fid()
        size = struct.unpack("<Q", self.wait(self.ask("xattrwalk", fid, new, name)))[0]
        value = self.read(new, 0, size)
        self.clunk(new)
        return value


def entries_of(body):
    at, end = 4, 4 + struct.unpack_from("<I", body)[0]
    while at < end:
        path, offset, kind, n = struct.unpack_from("<QQBH", body, at + 5)
        yield body[at + 24:at + 24 + n], offset, kind, path
        at += 24 + n
