# SPDX-License-Identifier: BSD-2-Clause
"""Servers that lie: the twelve rows of hostile servers. Whatever an answer says, the mount must not crash, nothing on it may
hang past its time-out, nobody is shown data that the server's frame did not hold, and it can be unmounted.

A row is a lie that changes the answers to one kind of request for good. While it is told, a tour of the mount calls
everything there is; the outcome of each call is checked by the row, where there is something that must not come out.
"""
import fcntl
import os
import signal
import struct
import time

import liar
import rig
from liar import frame, qid, text
from rig import Child, Mount, P9d, check, equal, fresh, mounted, outcome, put, suite, until

TIMEOUT = 2
CONTENT = b"the content of the file\n" * 400
ROWS = []
SETS = {}


def server_tree():
    top = fresh("honest")
    put(top + "/file", CONTENT)
    put(top + "/other", b"other")
    os.mkdir(top + "/dir")
    for i in range(20):
        put(f"{top}/dir/entry{i}")
    os.symlink("target", top + "/link")
    os.setxattr(top + "/file", "user.a", b"value of the attribute")
    return top


def read_file(path, flags=0):
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        return os.read(fd, 100000)
    finally:
        os.close(fd)


def write_file(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        n = os.write(fd, b"w" * 10000)
        os.fsync(fd)
        return n
    finally:
        os.close(fd)


def lock_file(path, how):
    fd = os.open(path, os.O_RDWR)
    try:
        if how == "flock":
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if how == "get":
            got = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))
            return struct.unpack("hhqqi4x", got)
        return fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
    finally:
        os.close(fd)


def list_dir(path):
    """At most as many entries as an endless listing is let to have."""
    names = []
    with os.scandir(os.fsencode(path)) as entries:
        for e in entries:
            names.append(e.name)
            if len(names) > 300000:
                return "ENDLESS"
    return sorted(names)


def tour(top):
    """Everything that can be asked. name -> value, or the name of the errno."""
    p = lambda name: os.path.join(top, name)
    st = lambda name: [getattr(os.lstat(p(name)), f) for f in ("st_mode", "st_size", "st_nlink", "st_mtime_ns")]
    steps = {
        "stat": lambda: st("file"), "stat link": lambda: st("link"), "stat root": lambda: st(""),
        "stat missing": lambda: st("missing"), "list": lambda: list_dir(p("dir")), "list root": lambda: list_dir(p("")),
        "read": lambda: read_file(p("file")), "read direct": lambda: read_file(p("file"), os.O_DIRECT),
        "read again": lambda: read_file(p("file")), "readlink": lambda: os.readlink(p("link")),
        "getxattr": lambda: os.getxattr(p("file"), "user.a"), "listxattr": lambda: os.listxattr(p("file")),
        "setxattr": lambda: os.setxattr(p("file"), "user.b", b"b"), "statvfs": lambda: tuple(os.statvfs(p("")))[:5],
        "write": lambda: write_file(p("new")), "lock": lambda: lock_file(p("other"), "fcntl"),
        "getlk": lambda: lock_file(p("other"), "get"), "flock": lambda: lock_file(p("other"), "flock"),
        "mkdir": lambda: os.mkdir(p("d2")), "rename": lambda: os.rename(p("d2"), p("d3")), "rmdir": lambda: os.rmdir(p("d3")),
        "symlink": lambda: os.symlink("x", p("l2")), "link": lambda: os.link(p("other"), p("hard")),
        "unlink": lambda: os.unlink(p("hard")), "chmod": lambda: os.chmod(p("other"), 0o600),
        "truncate": lambda: os.truncate(p("other"), 3), "mkfifo": lambda: os.mkfifo(p("fifo")),
        "stat dir": lambda: st("dir"), "stat entry": lambda: st("dir/entry3"),
    }
    result = {}
    for name, step in steps.items():
        began = time.monotonic()
        result[name] = outcome(step)
        took = time.monotonic() - began
        if took > TIMEOUT * 4 + 2:
            raise AssertionError(f"{name} took {took:.1f} s, the time-out is {TIMEOUT} s")
    return result


def always_true(got):
    """What no lie may bring about."""
    for name in ("read", "read direct", "read again"):
        if isinstance(got[name], bytes):
            check(set(got[name]) <= set(CONTENT) | {0}, f"{name}: {got[name][:60]!r}")
    for name in ("list", "list root"):
        check(got[name] != "ENDLESS", "an endless listing")
        if isinstance(got[name], list):
            bad = [n for n in got[name] if b"/" in n or n in (b"", b".", b"..") or b"\0" in n or len(n) > 255]
            check(not bad, f"listed: {bad[:3]}")
    for name in ("stat", "stat dir", "stat entry", "stat link"):
        if isinstance(got[name], list):
            check(0 <= got[name][1] < 1 << 63, f"{name}: size {got[name][1]}")


def row(name, kinds, change, expect=None, swallow=None):
    """change(request, reply) -> bytes or None, for the answers to these kinds of request. expect(outcomes) checks them."""
    ROWS.append((name, tuple(kinds.split()), change, expect, swallow))


def run_row(kinds, change, expect, swallow=None, options=""):
    with P9d("-e", f"x={server_tree()}") as server:
        lie = lambda request, reply: change(request, reply) if request.name in kinds else None
        liary = liar.Liar(rig.TOP, server.socket, lie, hear=swallow)
        try:
            with Mount(f"unix:{liary.path}", f"timeout={TIMEOUT}" + options, codes=None) as m:
                liary.armed = True
                got = Child(lambda: tour(m.where)).result(90)
                check(liary.told or swallow, f"the lie was never told: {sorted(set(liary.asked))}")
                always_true(got)
                if expect:
                    expect(got)
                m.healthy()
        finally:
            liary.close()


def fails(*names):
    """Each of these must be an error."""
    def expect(got):
        fine = [n for n in names if not (isinstance(got[n], str) and got[n].startswith("E"))]
        check(not fine, f"no error: {[(n, rig.common.lib.short(got[n], 80)) for n in fine]}")
    return expect


def honest_error(reply):
    """Whether the reply is an error as it should be."""
    return reply.name == "lerror"


def fine_only(function):
    """The lie replaces answers that are no errors."""
    return lambda request, reply: None if honest_error(reply) else function(request, reply)


u32, u64 = (lambda n: struct.pack("<I", n)), (lambda n: struct.pack("<Q", n))

# 1: frames whose size is a lie. There is no way to find the next: the link ends, and every call with it.
for n in (0, 3, 6, 0x7fffffff, 0xffffffff):
    row(f"1 a frame of size {n}", "getattr", lambda q, r, n=n: frame(r.type, r.tag, r.body, n), fails("read", "write"))
row("1 a frame larger than msize", "getattr", lambda q, r: frame(r.type, r.tag, bytes(20 << 20)), fails("read"))
row("1 a frame with bytes left over", "getattr", fine_only(lambda q, r: frame(r.type, r.tag, r.body + b"more")), fails("read"))
row("1 a frame cut in the middle", "getattr", lambda q, r: r.data[:30])
row("1 an Rread larger than its request", "read", fine_only(
    lambda q, r: frame("read", r.tag, u32(500000) + b"E" * 500000)), fails("getxattr"))

# 2: tags.
row("2 an answer to nothing", "getattr", lambda q, r: frame("clunk", 777) + r.data)
row("2 every answer twice", "getattr", lambda q, r: r.data + r.data)
row("2 every read's answer twice", "read", lambda q, r: r.data + r.data)
row("2 every walk's answer twice", "walk", lambda q, r: r.data + r.data)
row("2 the tag of Tversion", "getattr", lambda q, r: frame(r.type, 0xffff, r.body), fails("stat entry"))

# 3: types and errors that are none.
for n in ("clunk", "read", "version", "walk", "lerror"):
    row(f"3 R{n} for everything with a name", "walk getattr lopen read", lambda q, r, n=n:
        frame(n, r.tag) if NAMES_OF(q) != n else None, fails("stat entry"))
for n in (0, 4096, 1 << 31, (1 << 32) - 2, (1 << 32) - 1):
    row(f"3 Rlerror {n}", "lopen mkdir setattr", lambda q, r, n=n: frame("lerror", r.tag, u32(n)),
        fails("read", "mkdir", "chmod"))
row("3 a T-message for an answer", "getattr", lambda q, r: frame(24, r.tag, r.body))
row("3 a type that nobody knows", "getattr", lambda q, r: frame(250, r.tag, r.body))


def NAMES_OF(q):  # pylint: disable=invalid-name
    return q.name


# 4: counts.
for n in (1, 1 << 20, 0x80000000, 0xffffffff):
    row(f"4 Rread with a count of {n} more than there is", "read", fine_only(
        lambda q, r, n=n: frame("read", r.tag, u32((len(r.body) - 4 + n) & 0xffffffff) + r.body[4:])), fails("read"))
row("4 Rread of one byte at a time", "read", fine_only(lambda q, r: frame("read", r.tag, u32(min(1, len(r.body) - 4)) + r.body[4:5])))
row("4 Rread of nothing", "read", fine_only(lambda q, r: frame("read", r.tag, u32(0))))
row("4 Rwrite of nothing", "write", fine_only(lambda q, r: frame("write", r.tag, u32(0))), fails("write"))
row("4 Rwrite of more than was sent", "write", fine_only(lambda q, r: frame("write", r.tag, u32(0xfffffff0))), fails("write"))
row("4 Rreaddir with a count of more than there is", "readdir", fine_only(
    lambda q, r: frame("readdir", r.tag, u32(0xffffffff) + r.body[4:])), fails("list"))

# 5: walks.
row("5 more qids than names", "walk", fine_only(
    lambda q, r: frame("walk", r.tag, struct.pack("<H", struct.unpack("<H", r.body[:2])[0] + 1) + r.body[2:] + qid())),
    fails("stat entry"))
row("5 fewer qids than names", "walk", fine_only(lambda q, r: frame("walk", r.tag, struct.pack("<H", 0))
                                               if struct.unpack("<H", r.body[:2])[0] else None), fails("stat entry"))
row("5 65535 qids", "walk", fine_only(lambda q, r: frame("walk", r.tag, struct.pack("<H", 0xffff) + qid() * 20)),
    fails("stat entry"))


# 6: listings.
def listing(*names, offsets=None):
    def change(q, r):
        at = struct.unpack("<Q", q.body[4:12])[0]
        if at and offsets is None:
            return frame("readdir", r.tag, u32(0))
        data = b""
        for i, name in enumerate(names):
            data += qid(0, 1000 + i) + u64(i + 1 if offsets is None else offsets) + b"\x08" + text(name)
        return frame("readdir", r.tag, u32(len(data)) + data)
    return fine_only(change)


for what, name in (("of 256 bytes", b"n" * 256), ("that is empty", b""), ("with a slash", b"a/b"), ("that is /", b"/"),
                   ("with NUL", b"a\0b"), ("of 60000 bytes", b"x" * 60000), ("that climbs", b"../../etc/passwd")):
    row(f"6 a name {what}", "readdir", listing(b"good", name, b"fine"))
row("6 . and .. many times", "readdir", listing(b".", b"..", b".", b"..", b"."))
row("6 an offset that never advances", "readdir", listing(b"again", offsets=5))
row("6 an offset of 0 that never advances", "readdir", listing(b"again", offsets=0))
row("6 an offset above 2^63", "readdir", listing(b"again", offsets=(1 << 64) - 1))
row("6 the same entry twice", "readdir", listing(b"twin", b"twin"))
row("6 an entry cut at the end", "readdir", fine_only(
    lambda q, r: frame("readdir", r.tag, u32(len(r.body) - 9) + r.body[4:-5]) if len(r.body) > 40 else None), fails("list"))
row("6 a type that getattr denies", "readdir", fine_only(
    lambda q, r: frame("readdir", r.tag, u32(24 + 5) + qid(0x80, 3) + u64(77) + b"\x04" + text(b"entry"))
    if struct.unpack("<Q", q.body[4:12])[0] == 0 else frame("readdir", r.tag, u32(0))))

# 7: attributes. The kernel never asks for more than 64 KiB.
for n in (65537, 1 << 31, 1 << 32, (1 << 63), (1 << 64) - 1):
    row(f"7 an xattr of {n} bytes", "xattrwalk", fine_only(lambda q, r, n=n: frame("xattrwalk", r.tag, u64(n))),
        fails("getxattr"))
row("7 an xattr shorter than it said", "xattrwalk", fine_only(lambda q, r: frame("xattrwalk", r.tag, u64(60000))))
row("7 an xattr longer than it said", "xattrwalk", fine_only(lambda q, r: frame("xattrwalk", r.tag, u64(3))))

# 9: attributes of files. Offsets in Rgetattr: valid 0, qid 8, mode 21, nlink 33, size 49, mtime nsec.
def attr(offset, data):
    return fine_only(lambda q, r: frame("getattr", r.tag, r.body[:offset] + data + r.body[offset + len(data):]))


row("9 nothing is valid", "getattr", attr(0, u64(0)))
row("9 a size of 2^63", "getattr", attr(49, u64(1 << 63)))
row("9 a size of 2^64-1", "getattr", attr(49, u64((1 << 64) - 1)))
row("9 a size of 2^63-1", "getattr", attr(49, u64((1 << 63) - 1)))
row("9 no links", "getattr", attr(33, u64(0)))
row("9 2^64-1 links", "getattr", attr(33, u64((1 << 64) - 1)))
for at, what in ((81, "atime"), (97, "mtime"), (113, "ctime")):
    row(f"9 a billion nanoseconds of {what}", "getattr", attr(at, u64(1000000000)))
    row(f"9 2^64-1 nanoseconds of {what}", "getattr", attr(at, u64((1 << 64) - 1)))
row("9 a time of 2^64-1", "getattr", attr(89, u64((1 << 64) - 1)))
row("9 all are regular files", "getattr", attr(21, u32(0o100644)))
row("9 all are directories", "getattr", attr(21, u32(0o40755)))
row("9 all are devices", "getattr", attr(21, u32(0o60666)))
row("9 no type at all", "getattr", attr(21, u32(0o644)))
row("9 mode 0xffffffff", "getattr", attr(21, u32(0xffffffff)))
row("9 blksize 0", "getattr", attr(57, u64(0)))
row("9 one qid for all", "getattr", attr(8, qid(0, 4711)))
row("9 one qid for all that is walked to", "walk", fine_only(
    lambda q, r: frame("walk", r.tag, r.body[:2] + qid(0, 4711) * struct.unpack("<H", r.body[:2])[0])))
row("9 a directory's qid for all that is walked to", "walk", fine_only(
    lambda q, r: frame("walk", r.tag, r.body[:2] + qid(0x80, 4711) * struct.unpack("<H", r.body[:2])[0])))


# 10: the rest.
row("10 a link of 65535 bytes", "readlink", fine_only(lambda q, r: frame("readlink", r.tag, text(b"t" * 65535))))
row("10 a link of 4096 bytes", "readlink", fine_only(lambda q, r: frame("readlink", r.tag, text(b"t" * 4096))))
row("10 a link with NUL", "readlink", fine_only(lambda q, r: frame("readlink", r.tag, text(b"a\0b"))))
row("10 an empty link", "readlink", fine_only(lambda q, r: frame("readlink", r.tag, text(b""))))
row("10 a block size of 0", "statfs", fine_only(lambda q, r: frame("statfs", r.tag, bytes(len(r.body)))))
row("10 a block size of 2^32-1", "statfs", fine_only(lambda q, r: frame("statfs", r.tag, b"\xff" * len(r.body))))
for n in (1, 7, 1 << 30, 0xffffffff):
    row(f"10 an iounit of {n}", "lopen lcreate", fine_only(lambda q, r, n=n: frame(r.type, r.tag, r.body[:13] + u32(n))))
row("10 a lock's status of 255", "lock", fine_only(lambda q, r: frame("lock", r.tag, b"\xff")), fails("lock", "flock"))
row("10 a lock for ever blocked", "lock", fine_only(lambda q, r: frame("lock", r.tag, b"\x01")), fails("lock", "flock"))
row("10 a lock in the way that wraps", "getlock", fine_only(
    lambda q, r: frame("getlock", r.tag, b"\x01" + u64((1 << 64) - 10) + u64((1 << 64) - 10) + u32(0) + text(b"x"))))
row("10 a lock in the way of type 200", "getlock", fine_only(
    lambda q, r: frame("getlock", r.tag, b"\xc8" + u64(0) + u64(0) + u32(0) + text(b"x" * 3000))))
row("10 clunk is an error", "clunk", lambda q, r: frame("lerror", r.tag, u32(5)))


# 11: silence.
row("11 reads are never answered", "read", lambda q, r: b"", fails("read"))
row("11 writes are never answered", "write", lambda q, r: b"", fails("write"))
row("11 getattrs are never answered", "getattr", lambda q, r: b"", fails("stat entry"))
row("11 nothing is answered, Tflush neither", "getattr read walk lopen flush clunk readdir statfs", lambda q, r: b"",
    fails("stat entry", "read"))
row("11 the answer stops in the middle", "read", fine_only(lambda q, r: r.data[:len(r.data) // 2]), fails("read"))


def hang_up(request, client):
    if request.name == "read":
        import socket
        client.shutdown(socket.SHUT_RDWR)
        return True
    return False


row("11 the link is closed", "read", lambda q, r: None, fails("read"), hang_up)

# 12: answers that are too short for their fields.
for kind in ("getattr", "walk", "lopen", "lcreate", "statfs", "readlink", "xattrwalk", "lock", "getlock", "readdir", "read", "write", "mkdir"):
    for n in (0,) if kind == "lock" else (0, 1, 3):
        row(f"12 R{kind} with {n} bytes", kind, fine_only(lambda q, r, n=n: frame(r.type, r.tag, r.body[:n])
                                                         if len(r.body) > n else None))


def add_rows():
    """A test for each of the twelve rows, with all its lies."""
    groups = {}
    for r in ROWS:
        groups.setdefault(r[0].split(" ")[0], []).append(r)

    def add(number, rows):
        def test():
            wrong = []
            for name, kinds, change, expect, swallow in rows:
                if rig.OPT.quick and rows.index((name, kinds, change, expect, swallow)) % 3:
                    continue
                try:
                    run_row(kinds, change, expect, swallow)
                except AssertionError as e:
                    wrong.append(f"{name}: {str(e)[:1500]}")
            check(not wrong, f"{len(wrong)} of {len(rows)} lies:\n      " + "\n      ".join(wrong))
        test.__name__ = f"lies of row {number} ({len(rows)} of them)"
        suite.test(test)
    for number, rows in groups.items():
        add(number, rows)


add_rows()


@suite.test
def lies_of_row_8_terms_that_cannot_be():
    """A mount that cannot come about ends with an error, mounted on nothing."""
    wrong = []
    cases = [("msize larger than asked", lambda q, r: frame("version", r.tag, u32(1 << 30) + r.body[4:]))]
    cases += [(f"msize {n}", lambda q, r, n=n: frame("version", r.tag, u32(n) + r.body[4:])) for n in (0, 1, 7, 24, 100)]
    cases += [(f"version {v[:20]!r}", lambda q, r, v=v: frame("version", r.tag, r.body[:4] + text(v)))
              for v in (b"9P2000", b"9P2000.Lx", b"", b"unknown", b"9P2000.L\0", b"v" * 65000)]
    with P9d("-e", f"x={server_tree()}") as server:
        for name, change in cases:
            lie = lambda q, r, change=change: change(q, r) if q.name == "version" else None
            liary = liar.Liar(rig.TOP, server.socket, lie, armed=True)
            m = Mount(f"unix:{liary.path}", "timeout=2", ready=False, codes=None)
            try:
                until(lambda m=m: m.process.poll() is not None or mounted(m.where), 15, f"{name}: it neither mounts nor ends")
                if mounted(m.where):
                    wrong.append(f"{name}: mounted")
                elif m.process.returncode not in (1, 2, 3) or not m.output().strip():
                    wrong.append(f"{name}: exit code {m.process.returncode}: {m.output()[-300:]!r}")
            finally:
                m.destroy()
                liary.close()
    check(not wrong, "; ".join(wrong))


@suite.test
def lies_about_the_root():
    """Its qid is a file's; attach is answered before it was sent; or never."""
    cases = [("a root that is a file", "attach", lambda q, r: frame("attach", r.tag, qid(0, 1))),
             ("attach is never answered", "attach", lambda q, r: b""),
             ("version is never answered", "version", lambda q, r: b""),
             ("attach is answered with a walk", "attach", lambda q, r: frame("walk", r.tag, bytes(2))),
             ("an answer before there is a question", "version", lambda q, r: frame("attach", 0, qid(0x80, 1)) + r.data)]
    with P9d("-e", f"x={server_tree()}") as server:
        for name, kind, change in cases:
            lie = lambda q, r, change=change, kind=kind: change(q, r) if q.name == kind else None
            liary = liar.Liar(rig.TOP, server.socket, lie, armed=True)
            m = Mount(f"unix:{liary.path}", "timeout=2", ready=False, codes=None)
            try:
                until(lambda m=m: m.process.poll() is not None or mounted(m.where), 25, f"{name}: it neither mounts nor ends")
                check(not mounted(m.where), f"{name}: it is mounted")
                check(m.process.returncode in (1, 2, 3), f"{name}: exit code {m.process.returncode}: {m.output()[-500:]}")
            finally:
                m.destroy()
                liary.close()


@suite.test
def a_reply_after_its_flush():
    """A reader is killed, its Tread flushed; the read's answer comes after Rflush. No later call takes it for its own."""
    held, state = [], {"after": 0}

    def lie(request, reply):
        if request.name == "read" and not state["after"]:
            held.append(reply.data)
            return b""
        if request.name == "flush" and held:
            state["after"] += 1
            return reply.data + held.pop()
        return None
    with P9d("-e", f"x={server_tree()}") as server:
        liary = liar.Liar(rig.TOP, server.socket, lie)
        try:
            with Mount(f"unix:{liary.path}", "timeout=8", codes=None) as m:
                liary.armed = True
                reader = Child(lambda: read_file(m.path("file")))
                until(lambda: held, 10, "no Tread")
                time.sleep(0.1)
                took = reader.kill(signal.SIGKILL, 15)
                until(lambda: state["after"], 10, "the Tread of a reader that was killed is not flushed")
                print(f"    the reader died after {took:.2f} s")
                got = Child(lambda: outcome(read_file, m.path("other"))).result(30)
                check(got == b"other" or isinstance(got, str), f"read after it: {got!r}")
                m.healthy()
        finally:
            liary.close()
