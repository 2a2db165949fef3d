#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""p9 mount, every operation once: against p9d in each cache mode, as root and as another user, and what becomes of it
when the server dies, hangs or is slow.

usage: tests/mount/smoke.py [--build DIR] [--only TEXT]
"""
import argparse
import errno
import fcntl
import mmap
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import mnt  # noqa: E402
from mnt import Skip, check, equal, fails, python, run, until  # noqa: E402

MODES = ("none", "attr", "loose")
NOBODY = 65534
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

suite = mnt.lib.Suite("mount-smoke")


def each_mode(function):
    """A test of a fresh mount, in each cache mode."""
    for mode in MODES:
        def test(mode=mode):
            with mnt.served(f"cache={mode}") as m:
                function(m, m.server.export)
        test.__name__ = f"{function.__name__}_[{mode}]"
        suite.test(test)
    return function


def put(path, data=b""):
    with open(path, "wb") as f:
        f.write(data)
    return path


def get(path):
    with open(path, "rb") as f:
        return f.read()


# ---- files and directories ----
@each_mode
def files_are_made_read_and_written(m, export):
    put(m.path("a"), b"hello")
    equal(get(os.path.join(export, "a")), b"hello")
    equal(get(m.path("a")), b"hello")
    data = os.urandom(3 * 1024 * 1024 + 17)
    put(m.path("big"), data)
    equal(get(os.path.join(export, "big")), data)
    with open(m.path("big"), "r+b") as f:
        f.seek(1000001)
        f.write(b"xyz")
        f.flush()
        os.fsync(f.fileno())
        f.seek(1000000)
        equal(f.read(5), data[1000000:1000001] + b"xyz" + data[1000004:1000005])
    with open(m.path("big"), "rb") as f:
        equal(os.pread(f.fileno(), 100, len(data) - 10), data[-10:])
        equal(os.pread(f.fileno(), 100, len(data) + 10), b"")
    with fails(errno.ENOENT):
        get(m.path("nothing"))
    with fails(errno.EEXIST):
        os.open(m.path("a"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with fails(errno.ENAMETOOLONG):
        put(m.path("n" * 256))
    put(m.path("n" * 255))
    put(m.path("a"), b"hi")  # O_TRUNC
    equal(os.stat(m.path("a")).st_size, 2)


@each_mode
def the_tree_is_changed(m, export):
    os.mkdir(m.path("d"), 0o751)
    equal(stat.S_IMODE(os.stat(os.path.join(export, "d")).st_mode), 0o751)
    put(m.path("d", "f"), b"1")
    os.symlink("d/f", m.path("l"))
    equal(os.readlink(m.path("l")), "d/f")
    equal(get(m.path("l")), b"1")
    os.symlink("x" * 4095, m.path("long"))
    equal(os.readlink(m.path("long")), "x" * 4095)
    os.link(m.path("d", "f"), m.path("h"))
    equal(os.stat(m.path("h")).st_nlink, 2)
    equal(os.stat(m.path("h")).st_ino, os.stat(m.path("d", "f")).st_ino)
    os.mkfifo(m.path("p"), 0o600)
    check(stat.S_ISFIFO(os.stat(m.path("p")).st_mode))
    with fails(errno.ENOTEMPTY):
        os.rmdir(m.path("d"))
    with fails(errno.ENOTDIR):
        os.rmdir(m.path("h"))
    with fails(errno.EISDIR):
        os.unlink(m.path("d"))
    with fails(errno.EEXIST):
        os.mkdir(m.path("d"))
    os.rename(m.path("d", "f"), m.path("g"))
    check(not os.path.exists(m.path("d", "f")))
    os.rename(m.path("g"), m.path("h2"))
    os.rename(m.path("d"), m.path("e"))
    put(m.path("e", "new"), b"2")
    equal(get(os.path.join(export, "e", "new")), b"2")
    with fails(errno.EINVAL):
        os.rename(m.path("e"), m.path("e", "below"))
    os.unlink(m.path("h2"))
    equal(os.stat(m.path("h")).st_nlink, 1)
    os.unlink(m.path("e", "new"))
    os.rmdir(m.path("e"))
    equal(sorted(os.listdir(m.dir)), ["h", "l", "long", "p"])


@each_mode
def attributes_are_carried(m, export):
    p = put(m.path("a"), b"12345")
    os.chmod(p, 0o640)
    os.chown(p, 12, 34)
    os.utime(p, ns=(1234567890123456789, 987654321987654321))
    for where in (p, os.path.join(export, "a")):
        st = os.stat(where)
        equal((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (0o640, 12, 34))
        equal((st.st_atime_ns, st.st_mtime_ns), (1234567890123456789, 987654321987654321))
    before = time.time() - 2
    os.utime(p)
    check(os.stat(p).st_mtime > before)
    os.truncate(p, 3)
    equal(get(p), b"123")
    with open(p, "r+b") as f:
        os.fchmod(f.fileno(), 0o444)
        os.ftruncate(f.fileno(), 100)
        equal(os.fstat(f.fileno()).st_size, 100)
    equal(get(p), b"123" + bytes(97))
    mine, theirs = os.stat(p), os.stat(os.path.join(export, "a"))
    for key in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize"):
        equal(getattr(mine, key), getattr(theirs, key), key)
    v, w = os.statvfs(m.dir), os.statvfs(export)
    equal((v.f_blocks, v.f_bsize, v.f_namemax), (w.f_blocks, w.f_bsize, w.f_namemax))
    check(os.access(p, os.R_OK))
    line = mnt.mounted(m.dir).split()
    equal(line[0], m.server.addr)
    equal(line[2], "fuse.p9")
    check("nosuid" in line[3] and "nodev" in line[3] and "default_permissions" in line[3], line[3])


@each_mode
def unlinked_files_live_while_they_are_open(m, export):
    with open(put(m.path("a"), b"data"), "r+b") as f:
        os.unlink(m.path("a"))
        check(not os.path.exists(os.path.join(export, "a")))
        equal(os.fstat(f.fileno()).st_nlink, 0)
        equal(f.read(), b"data")
        f.write(b"more")
        f.flush()
        os.ftruncate(f.fileno(), 6)
        os.fchmod(f.fileno(), 0o600)
        equal(os.pread(f.fileno(), 100, 0), b"datamo")
        put(m.path("a"), b"other")
        equal(os.pread(f.fileno(), 100, 0), b"datamo")
    with open(put(m.path("b"), b"old"), "rb") as f:
        os.rename(put(m.path("c"), b"new"), m.path("b"))
        equal(f.read(), b"old")
        equal(get(m.path("b")), b"new")
    os.mkdir(m.path("d"))
    fd = os.open(m.path("d"), os.O_RDONLY)
    os.rmdir(m.path("d"))
    equal(os.fstat(fd).st_nlink, 0)
    equal(os.listdir(fd), [])
    os.close(fd)


@each_mode
def large_directories_are_listed_whole(m, export):
    names = {f"entry-{i:05}" for i in range(20000)}
    os.mkdir(os.path.join(export, "d"))
    for n in names:
        os.close(os.open(os.path.join(export, "d", n), os.O_CREAT | os.O_WRONLY, 0o600))
    for _ in range(2):
        got = os.listdir(m.path("d"))
        equal(len(got), len(names))
        equal(set(got), names)
    with os.scandir(m.path("d")) as entries:
        for e in entries:
            check(stat.S_ISREG(e.stat().st_mode) and e.is_file() and e.inode() == e.stat().st_ino, e.name)
    for n in sorted(names)[::2]:
        os.unlink(m.path("d", n))
    equal(set(os.listdir(m.path("d"))), set(sorted(names)[1::2]))


@each_mode
def directories_can_be_rewound_and_sought(m, export):
    for i in range(500):
        put(os.path.join(export, f"f{i:03}"))
    out = mnt.python("""
import ctypes
c = ctypes.CDLL(None, use_errno=True)
class dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("len", ctypes.c_uint16), ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]
c.opendir.restype = c.readdir.restype = ctypes.c_void_p
c.telldir.restype = ctypes.c_long
c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
for f in (c.readdir, c.telldir, c.rewinddir, c.closedir): f.argtypes = [ctypes.c_void_p]
d = c.opendir(os.fsencode(sys.argv[1]))
def name():
    e = c.readdir(d)
    return dirent.from_address(e).name if e else None
seen, at = [], {}
while True:
    pos = c.telldir(d)
    n = name()
    if n is None: break
    at[len(seen)] = pos
    seen.append(n)
assert len(seen) == 502 and len(set(seen)) == 502, len(seen)
for k in (400, 3, 501, 100, 0):
    c.seekdir(d, at[k])
    assert name() == seen[k], (k, seen[k])
    if k < 501: assert name() == seen[k + 1]
c.rewinddir(d)
assert [name() for _ in seen] == seen and name() is None and name() is None
open(sys.argv[1] + "/late", "w").close()
c.rewinddir(d)
n = 0
while name(): n += 1
assert n == 503, n
c.closedir(d)
print("fine")
""", m.dir)
    equal(out, "fine\n")


@each_mode
def extended_attributes_work(m, export):
    p = put(m.path("a"))
    os.setxattr(p, "user.x", b"value")
    equal(os.getxattr(os.path.join(export, "a"), "user.x"), b"value")
    equal(os.getxattr(p, "user.x"), b"value")
    with fails(errno.EEXIST):
        os.setxattr(p, "user.x", b"v", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        os.setxattr(p, "user.y", b"v", os.XATTR_REPLACE)
    with fails(errno.ENODATA):
        os.getxattr(p, "user.y")
    os.setxattr(p, "user.big", b"b" * 3000)
    equal(len(os.getxattr(p, "user.big")), 3000)
    equal(sorted(os.listxattr(p)), ["user.big", "user.x"])
    size = mnt.libc.getxattr(os.fsencode(p), b"user.big", None, 0)
    equal(size, 3000)
    buf = mnt.ctypes.create_string_buffer(100)
    equal(mnt.libc.getxattr(os.fsencode(p), b"user.big", buf, 100), -1)
    equal(mnt.ctypes.get_errno(), errno.ERANGE)
    os.removexattr(p, "user.big")
    with fails(errno.ENODATA):
        os.removexattr(p, "user.big")
    equal(os.listxattr(p), ["user.x"])
    os.mkdir(m.path("d"))
    os.setxattr(m.path("d"), "user.d", b"1")
    equal(os.listxattr(m.path("d")), ["user.d"])


@each_mode
def seeks_and_odd_calls_are_answered_honestly(m, export):
    with open(put(m.path("a"), b"x" * 10000), "r+b") as f:
        fd = f.fileno()
        equal(os.lseek(fd, 0, os.SEEK_DATA), 0)
        equal(os.lseek(fd, 5000, os.SEEK_DATA), 5000)
        equal(os.lseek(fd, 5000, os.SEEK_HOLE), 10000)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with fails(errno.ENXIO):
                os.lseek(fd, 10000, whence)
        with fails(errno.EOPNOTSUPP):
            os.posix_fallocate(fd, 0, 1) if mnt.libc.fallocate(fd, 0, mnt.ctypes.c_long(0), mnt.ctypes.c_long(20000)) \
                == 0 else (_ for _ in ()).throw(OSError(mnt.ctypes.get_errno(), "fallocate"))
        with fails(errno.ENOTTY):
            fcntl.ioctl(fd, 0x5401, bytes(64))
        equal(select_ready(fd), True)
        os.fsync(fd)
        os.fdatasync(fd)
    fd = os.open(m.dir, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    put(m.path("b"), b"b")
    for flags in (RENAME_NOREPLACE, RENAME_EXCHANGE):
        rc = mnt.libc.renameat2(-100, os.fsencode(m.path("a")), -100, os.fsencode(m.path("b")), flags)
        equal((rc, mnt.ctypes.get_errno() in (errno.EINVAL, errno.EEXIST)), (-1, True))
    equal(get(m.path("b")), b"b")
    run("cp", "--reflink=auto", m.path("a"), m.path("copy"))
    equal(get(m.path("copy")), b"x" * 10000)


def select_ready(fd):
    import select  # pylint: disable=import-outside-toplevel
    p = select.poll()
    p.register(fd, select.POLLIN | select.POLLOUT)
    return bool(p.poll(1000))


@each_mode
def mapped_files_are_shared(m, export):
    p = put(m.path("a"), bytes(3 * 4096))
    with open(p, "r+b") as f, mmap.mmap(f.fileno(), 0) as a:
        a[5000:5005] = b"hello"
        a.flush()
        equal(get(os.path.join(export, "a"))[5000:5005], b"hello")
        equal(os.pread(f.fileno(), 5, 5000), b"hello")
        out = python("""
with open(sys.argv[1], "r+b") as f, mmap.mmap(f.fileno(), 0) as a:
    assert a[5000:5005] == b"hello"
    a[0:3] = b"abc"
""", p)
        equal(out, "")
        equal(a[0:3], b"abc")
    equal(get(os.path.join(export, "a"))[:3], b"abc")


@each_mode
def mapped_pages_are_not_appended(m, export):
    p = put(m.path("a"), bytes(8192))
    with open(p, "r+b") as f, mmap.mmap(f.fileno(), 0) as a, open(p, "ab") as log:
        log.write(b"tail")
        log.flush()
        a[100:104] = b"page"
        a.flush()
        os.fsync(f.fileno())
    data = get(os.path.join(export, "a"))
    equal((len(data), data[100:104], data[-4:]), (8196, b"page", b"tail"))


@each_mode
def direct_io_bypasses_the_cache(m, export):
    p = put(m.path("a"), bytes(8192))
    fd = os.open(p, os.O_RDWR | os.O_DIRECT)
    buf = mmap.mmap(-1, 4096)
    buf[:] = b"d" * 4096
    equal(os.pwrite(fd, buf, 4096), 4096)
    equal(get(os.path.join(export, "a")), bytes(4096) + b"d" * 4096)
    put(os.path.join(export, "a"), b"e" * 8192)
    equal(os.preadv(fd, [buf], 0), 4096)
    equal(bytes(buf), b"e" * 4096)
    os.close(fd)


# ---- two clients ----
@suite.test
def appends_of_two_mounts_do_not_overwrite_each_other():
    for mode in ("none", "attr"):
        with mnt.served(f"cache={mode}") as a:
            b = mnt.Mount(a.server, f"cache={mode}")
            try:
                code = """
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for i in range(300): os.write(f, (sys.argv[2] + "%04d" % i).encode() * 20)
"""
                both = [python(code, x.path("log"), tag, wait=False) for x, tag in ((a, "A"), (b, "B"))]
                for p in both:
                    equal(p.wait(60), 0)
                data = get(os.path.join(a.server.export, "log"))
                equal(len(data), 2 * 300 * 100)
                records = [data[i:i + 100] for i in range(0, len(data), 100)]
                for r in records:
                    equal(r, r[:5] * 20)
                equal(len(set(records)), 600)
                for x in (a, b):
                    equal(get(x.path("log")), data)
            finally:
                b.umount()
                b.drop()


@suite.test
def what_is_closed_here_is_seen_when_opened_there():
    for mode in ("none", "attr"):
        with mnt.served(f"cache={mode}") as a:
            b = mnt.Mount(a.server, f"cache={mode}")
            try:
                for i in range(100):
                    text = os.urandom(1 + i * 37 % 9000)
                    writer, reader = (a, b) if i % 2 else (b, a)
                    put(writer.path("f"), text)
                    equal(get(reader.path("f")), text, f"{mode}, round {i}")
            finally:
                b.umount()
                b.drop()


@suite.test
def what_the_server_changes_is_seen_at_the_next_open():
    with mnt.served("cache=attr") as m:
        real = os.path.join(m.server.export, "f")
        put(real, b"first")
        equal(get(m.path("f")), b"first")
        for i in range(50):
            put(real, b"x" * i + b"!")
            equal(get(m.path("f")), b"x" * i + b"!")
        put(real, b"x" * 50)  # same size, other bytes
        equal(get(m.path("f")), b"x" * 50)
        put(real, b"y" * 50)
        equal(get(m.path("f")), b"y" * 50)


# ---- locks ----
LOCKER = """
f = open(sys.argv[1], "r+b")
def hit(*_): raise InterruptedError
signal.signal(signal.SIGALRM, hit)
for line in sys.stdin:
    what, *rest = line.split()
    try:
        if what == "alarm": signal.setitimer(signal.ITIMER_REAL, float(rest[0]))
        elif what == "flock": fcntl.flock(f, eval(rest[0]))
        elif what == "lock": fcntl.lockf(f, eval(rest[0]), int(rest[1]), int(rest[2]))
        elif what == "reopen": g = open(sys.argv[1], "r+b"); g.close()
        elif what == "second": g = open(sys.argv[1], "r+b"); fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 0)
        print("ok", flush=True)
    except InterruptedError: print("EINTR", flush=True)
    except OSError as e: print(errno.errorcode[e.errno], flush=True)
"""
EX, SH, UN = "fcntl.LOCK_EX", "fcntl.LOCK_SH", "fcntl.LOCK_UN"
NB = "|fcntl.LOCK_NB"


class Locker:
    def __init__(self, path):
        self.process = python(LOCKER, path, wait=False)

    def begin(self, *what):
        self.process.stdin.write(" ".join(str(w) for w in what) + "\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().strip()

    def __call__(self, *what):
        self.begin(*what)
        return self.answer()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@each_mode
def locks_of_two_programs_conflict(m, export):
    p = put(m.path("a"), bytes(100))
    a, b = Locker(p), Locker(p)
    try:
        equal(a("lock", EX + NB, 10, 0), "ok")
        equal(b("lock", EX + NB, 10, 5), "EAGAIN")
        equal(b("lock", EX + NB, 10, 10), "ok")
        equal(b("lock", SH + NB, 1, 9), "EAGAIN")
        with open(p, "rb") as f:
            ask = fcntl.fcntl(f, fcntl.F_GETLK, struct_flock(fcntl.F_RDLCK, 0, 5))
            kind, start, length, pid = unpack_flock(ask)
            equal((kind, start, length), (fcntl.F_WRLCK, 0, 10))
            equal(pid, a.process.pid)
        equal(a("second"), "EAGAIN")  # b holds 10..19; and a's own are no obstacle:
        equal(b("lock", UN, 0, 0), "ok")
        equal(a("second"), "ok")
        equal(b("lock", SH + NB, 0, 0), "EAGAIN")
        equal(a("reopen"), "ok")  # closing any descriptor lets all go
        equal(b("lock", SH + NB, 0, 0), "ok")
        equal(a("lock", SH + NB, 0, 0), "ok")
        a.close()
        equal(b("lock", EX + NB, 0, 0), "ok")  # with the process its locks are gone
    finally:
        a.close()
        b.close()


def struct_flock(kind, start, length):
    import struct  # pylint: disable=import-outside-toplevel
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def unpack_flock(data):
    import struct  # pylint: disable=import-outside-toplevel
    kind, _, start, length, pid = struct.unpack("hhqqi4x", data)
    return kind, start, length, pid


@each_mode
def locks_wait_and_are_interrupted(m, export):
    p = put(m.path("a"), bytes(100))
    a, b = Locker(p), Locker(p)
    try:
        for what, tail in (("lock", (0, 0)), ("flock", ())):
            equal(a(what, EX, *tail), "ok")
            equal(b("alarm", 0.3), "ok")
            equal(b(what, EX, *tail), "EINTR")
            b.begin(what, EX, *tail)
            time.sleep(0.2)
            equal(a(what, UN, *tail), "ok")
            equal(b.answer(), "ok")
            equal(a(what, EX + NB, *tail), "EAGAIN")
            equal(b(what, UN, *tail), "ok")
        equal(a("flock", EX), "ok")
        b.begin("flock", EX)
        time.sleep(0.2)
        b.process.kill()  # a waiting program can be killed
        equal(b.process.wait(30), -signal.SIGKILL)
        a.close()  # and a flock goes with the last close
        b = Locker(p)
        equal(until(lambda: b("flock", EX + NB) == "ok", 5, "the flock stays"), True)
    finally:
        a.close()
        b.close()


@suite.test
def locks_of_two_mounts_conflict_and_many_may_wait():
    with mnt.served() as m:
        other = mnt.Mount(m.server)
        p = put(m.path("a"), bytes(10))
        holder, waiters = Locker(p), []
        try:
            equal(holder("lock", EX, 0, 0), "ok")
            for i in range(40):
                w = Locker((other if i % 2 else m).path("a"))
                w.begin("lock", EX, 0, 0)
                waiters.append(w)
            time.sleep(1)
            equal(get(m.path("a")), bytes(10))  # everything else goes on
            equal(holder("lock", UN, 0, 0), "ok")
            for _ in range(len(waiters)):
                ready, _, _ = __import__("select").select([w.process.stdout for w in waiters], [], [], 20)
                check(ready, "nobody gets the lock")
                w = next(x for x in waiters if x.process.stdout in ready)
                equal(w.answer(), "ok")
                w.close()
                waiters.remove(w)
        finally:
            for w in (*waiters, holder):
                w.close()
            other.umount()
            other.drop()


# ---- what is fetched before it is asked for ----
@suite.test
def what_is_looked_at_ahead_is_never_older_than_a_change_made_here():
    with mnt.served() as m:
        for i in range(40):
            put(os.path.join(m.server.export, f"f{i:02}"), b"old")
        for turn in range(15):
            for i in range(3 * (turn % 10)):
                equal(os.stat(m.path(f"f{i:02}")).st_mode & 0o777, 0o644)
            last = m.path(f"f{39 - turn}")
            equal(os.stat(m.path("f00")).st_size, 3)
            os.chmod(last, 0o600)
            equal(os.stat(last).st_mode & 0o777, 0o600)
            put(last, b"longer")
            equal(os.stat(last).st_size, 6)
            os.rename(last, m.path("moved"))
            with fails(errno.ENOENT):
                os.stat(last)
            equal(get(m.path("moved")), b"longer")
            os.unlink(m.path("moved"))
            with fails(errno.ENOENT):
                os.stat(m.path("moved"))
            os.chmod(m.path("f00"), 0o644)
            mnt.drop_caches()


@suite.test
def what_was_looked_at_ahead_is_opened_as_it_is():
    """Another client's change is seen by whoever opens, also when size and times were fetched before it."""
    with mnt.served() as m:
        for i in range(60):
            put(os.path.join(m.server.export, f"f{i}"), b"before")
        for i in range(60):
            path = os.path.join(m.server.export, f"f{i}")
            os.stat(m.path(f"f{i - 1 if i else 0}"))  # which has the others looked at
            put(path, b"after, and longer" if i % 2 else b"AFTER!")
            with open(m.path(f"f{i}"), "rb") as f:
                equal(os.fstat(f.fileno()).st_size, 17 if i % 2 else 6)
                equal(f.read(), b"after, and longer" if i % 2 else b"AFTER!")


@suite.test
def a_lock_makes_what_came_with_the_open_old():
    with mnt.served() as m:
        path = put(os.path.join(m.server.export, "f"), b"before")
        for data in (b"one", b"two, longer", b"three!"):
            with open(m.path("f"), "rb", buffering=0) as f:
                put(path, data)
                fcntl.lockf(f, fcntl.LOCK_SH)
                equal(f.read(3), data[:3])


@suite.test
def attributes_that_files_lack_are_asked_for_once_and_can_be_set():
    with mnt.served() as m:
        for i in range(50):
            put(os.path.join(m.server.export, f"f{i}"))
        os.setxattr(os.path.join(m.server.export, "f7"), "user.a", b"there")
        for _ in range(3):
            os.listdir(m.dir)
            for i in range(50):
                if i == 7:
                    equal(os.getxattr(m.path("f7"), "user.a"), b"there")
                else:
                    with fails(errno.ENODATA):
                        os.getxattr(m.path(f"f{i}"), "user.a")
            with fails(errno.ENODATA):
                os.getxattr(m.path("f9"), "user.b")
            os.setxattr(m.path("f9"), "user.b", b"now")
            equal(os.getxattr(m.path("f9"), "user.b"), b"now")
            os.removexattr(m.path("f9"), "user.b")
            with fails(errno.ENODATA):
                os.getxattr(m.path("f9"), "user.b")


@suite.test
def what_was_fetched_in_vain_is_let_go():
    with mnt.served() as m:
        for i in range(200):
            put(os.path.join(m.server.export, f"f{i}"), b"x" * 100)
        before = m.server.fids()
        for i in range(5):
            os.stat(m.path(f"f{i}"))
        until(lambda: m.server.fids() > before + 20, 10, "nothing is looked at ahead")
        until(lambda: m.server.fids() <= before + 6, 10, "fids of what was looked at stay")


@suite.test
def files_without_a_fid_are_opened_as_they_should_be():
    with mnt.served("fids=128,cache=loose") as m:
        names = [f"f{i}" for i in range(400)]
        for n in names:
            put(os.path.join(m.server.export, n), n.encode())
            os.mkdir(os.path.join(m.server.export, "d" + n))
            os.mkdir(os.path.join(m.server.export, "d" + n, "e"))
        for n in names:
            os.stat(m.path("d" + n, "e"))
            os.stat(m.path(n))
        for n in names:  # the kernel knows them all, the server's fids of most were given back
            equal(get(m.path(n)), n.encode())
        for n in names:
            with open(m.path(n), "ab") as f:
                f.write(b"+")
            os.rmdir(m.path("d" + n, "e"))
        for n in names:
            equal(get(os.path.join(m.server.export, n)), n.encode() + b"+")


# ---- memory ----
def forgets(options, files, rounds):
    with mnt.served(options) as m:
        for i in range(files):
            os.close(os.open(os.path.join(m.server.export, f"f{i}"), os.O_CREAT | os.O_WRONLY))
        for i in range(files // 20):  # so that the tables have their size
            os.stat(m.path(f"f{i}"))
        mnt.drop_caches()
        before = m.server.fids()
        sizes = []
        for _ in range(rounds):
            for i in range(files):
                os.stat(m.path(f"f{i}"))
            mnt.drop_caches()
            until(lambda: m.server.fids() <= before + 5, 20, f"{m.server.fids()} fids stay, it were {before}")
            sizes.append(m.rss())
        # the allocator gives memory back now and then: a round may look smaller than those around it
        check(sizes[-1] < max(sizes[:len(sizes) // 2]) + (1 << 20), sizes)


@suite.test
def lookups_and_forgets_leave_nothing():
    forgets("", 20000, 10)


@suite.test
def more_files_than_fids_can_be_known():
    with mnt.served("fids=128,cache=loose") as m:
        deep = "/".join("d%d" % i for i in range(40))
        os.makedirs(os.path.join(m.server.export, deep))
        put(os.path.join(m.server.export, deep, "f"), b"deep")
        names = [f"f{i}" for i in range(2000)]
        for n in names:
            put(os.path.join(m.server.export, n), n.encode())
        equal(get(m.path(deep, "f")), b"deep")
        fd = os.open(m.path(deep), os.O_RDONLY)
        opened = open(m.path("f7"), "rb")  # pylint: disable=consider-using-with
        for _ in range(2):
            for n in names:
                equal(os.stat(m.path(n)).st_size, len(n))
                equal(get(m.path(n)), n.encode())
            check(m.server.fids() < 400, m.server.fids())
            equal(os.stat("f", dir_fd=fd).st_size, 4)
            equal(get(m.path(deep, "f")), b"deep")
        os.rename(m.path("d0"), m.path("moved"))
        for n in names:
            os.stat(m.path(n))
        equal(os.stat("f", dir_fd=fd).st_size, 4)
        os.close(fd)
        equal(opened.read(), b"f7")
        opened.close()
        equal(sorted(os.listdir(m.dir)), sorted([*names, "moved"]))
        for n in names:
            os.chmod(m.path(n), 0o600)
            os.unlink(m.path(n))
        equal(os.listdir(m.dir), ["moved"])


@suite.test
def many_files_can_be_open():
    with mnt.served() as m:
        fds = []
        for i in range(900):
            fds.append(os.open(m.path(f"f{i}"), os.O_CREAT | os.O_RDWR))
            os.write(fds[-1], b"%d" % i)
        for i, fd in enumerate(fds):
            equal(os.pread(fd, 10, 0), b"%d" % i)
            os.close(fd)


# ---- ways to mount ----
@suite.test
def it_goes_to_the_background_when_it_works():
    s = mnt.Server()
    where = mnt.fresh("mnt")
    put(os.path.join(s.export, "f"), b"1")
    run(mnt.program("p9"), "-s", s.addr, "mount", "-o", "cache=none", where, timeout=20)
    try:
        equal(get(os.path.join(where, "f")), b"1")
        with fails(errno.EBUSY), open(os.path.join(where, "f"), "rb"):
            out = subprocess.run([mnt.program("p9"), "umount", where], stderr=subprocess.PIPE, check=False)
            equal(out.returncode, 1)
            check(b"(EBUSY)" in out.stderr, out.stderr)
            raise OSError(errno.EBUSY, "as it should be")
        run(mnt.program("p9"), "umount", where, timeout=20)
        equal(mnt.mounted(where), None)
    finally:
        mnt.libc.umount2(os.fsencode(where), 2)
        s.stop()


@suite.test
def what_is_wrong_is_said_to_the_caller():
    s = mnt.Server()
    where = mnt.fresh("mnt")
    p9 = mnt.program("p9")
    try:
        for want, code, words in (
                ([p9, "-s", s.addr, "mount", where + "/none"], 1, b"(ENOENT)"),
                ([p9, "-s", s.addr, "mount", s.socket], 1, b"(ENOTDIR)"),
                ([p9, "-s", s.addr + "x", "mount", where], 3, b"(ENOENT)"),
                ([p9, "-s", s.addr, "-a", "other", "mount", where], 3, b"(ENOENT)"),
                ([p9, "-s", s.addr, "mount", "-o", "cache=some", where], 2, b"cache"),
                ([p9, "-s", s.addr, "mount", "-o", "nonsense", where], 2, b"nonsense"),
                ([p9, "-s", s.addr, "mount"], 2, b"usage"),
                ([p9, "umount", where], 1, b"nothing of p9"),
                ([p9, "umount", "/proc"], 1, b"nothing of p9")):
            out = subprocess.run(want, stderr=subprocess.PIPE, check=False, timeout=20)
            equal(out.returncode, code, " ".join(want))
            check(words in out.stderr, out.stderr)
            equal(mnt.mounted(where), None)
    finally:
        s.stop()


@suite.test
def a_mount_point_however_it_is_written():
    """What is looked at after mount(2) must not be asked of the program that mounts."""
    s = mnt.Server()
    where = mnt.fresh("mnt")
    p9 = mnt.program("p9")
    link = where + "-link"
    os.symlink(where, link)
    try:
        for cwd, name in (("/", where + "/."), (where, "."), (where, "./"), (where, f"../{os.path.basename(where)}/"), ("/", link)):
            subprocess.run([p9, "-s", s.addr, "mount", name], cwd=cwd, check=True, timeout=20)
            check(mnt.mounted(where), name)
            subprocess.run([p9, "umount", link if name == link else where], check=True, timeout=20)
            equal(mnt.mounted(where), None)
        s.stop()
    finally:
        mnt.libc.umount2(os.fsencode(where), 2)
        s.kill()


@suite.test
def signals_unmount():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        s = mnt.Server()
        m = mnt.Mount(s)
        try:
            put(m.path("f"), b"1")
            m.signal(number)
            m.end()
            equal(mnt.mounted(m.dir), None)
            s.stop()
        finally:
            m.drop()
            s.kill()


@suite.test
def a_dead_mount_is_named_and_cleaned_up():
    s = mnt.Server()
    m = mnt.Mount(s)
    try:
        m.process.kill()
        m.process.wait()
        with fails(errno.ENOTCONN):
            os.listdir(m.dir)
        out = subprocess.run([mnt.program("p9"), "-s", s.addr, "mount", m.dir], stderr=subprocess.PIPE, check=False)
        equal(out.returncode, 1)
        check(b"p9 umount" in out.stderr, out.stderr)
        run(mnt.program("p9"), "umount", m.dir)
        equal(os.listdir(m.dir), [])
        s.stop()
    finally:
        m.drop()
        s.kill()


@suite.test
def an_ordinary_user_mounts():
    if not os.stat(run("which", "fusermount3")[0].decode().strip()).st_mode & stat.S_ISUID:
        raise Skip("fusermount3 is not set-user-ID")
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)  # as udev has it
    try:
        mount_as_user()
    finally:
        os.chmod("/dev/fuse", mode)


def mount_as_user():
    with mnt.served("", owner=NOBODY, user=NOBODY) as m:
        def as_user(code, *args):
            return run("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c",
                       "import os, sys\n" + code, *args)[0]
        as_user("open(sys.argv[1] + '/f', 'w').write('mine')", m.dir)
        equal(get(os.path.join(m.server.export, "f")), b"mine")
        equal(os.stat(os.path.join(m.server.export, "f")).st_uid, NOBODY)
        with fails(errno.EACCES):  # not even root may look
            os.listdir(m.dir)
        line = mnt.mounted(m.dir)
        check("nosuid" in line and "nodev" in line and f"user_id={NOBODY}" in line, line)
        umount = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", mnt.program("p9"), "umount", m.dir]
        user = subprocess.Popen([*umount[:4], "sh", "-c", 'cd "$1" && echo in && exec cat', "sh", m.dir],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        equal(user.stdout.readline(), b"in\n")
        out = subprocess.run(umount, stderr=subprocess.PIPE, check=False, timeout=20)
        equal(out.returncode, 1)
        check(b"busy" in out.stderr and b"still mounted" in out.stderr, out.stderr)
        check(mnt.mounted(m.dir))
        user.communicate()
        run(*umount)
        m.end()
        m.umount = lambda: None


@suite.test
def owners_and_modes_can_be_overridden():
    with mnt.served("uid=1234,gid=4321,ro") as m:
        put(os.path.join(m.server.export, "f"), b"1")
        st = os.stat(m.path("f"))
        equal((st.st_uid, st.st_gid), (1234, 4321))
        with fails(errno.EROFS):
            put(m.path("g"))


OVERLAY = """
set -e
mkdir -p $1/up $1/work
mount -t tmpfs t $1
mkdir -p $1/up $1/work $1/up2 $1/work2
ln -s $2 $1/up/$5
mount -t overlay o -o lowerdir=/usr/sbin,upperdir=$1/up,workdir=$1/work /usr/sbin
ln -s $2 $1/up2/p9
mount -t overlay o -o lowerdir=/usr/bin,upperdir=$1/up2,workdir=$1/work2 /usr/bin
mount -t fuse.p9 "$3" $4 -o cache=none,noatime,x-systemd.automount,_netdev
grep " $4 fuse.p9" /proc/self/mounts
cat $4/f
umount $4
"""


@suite.test
def mount_of_type_fuse_p9_works():
    s = mnt.Server()
    where, scratch = mnt.fresh("mnt"), mnt.fresh("over")
    put(os.path.join(s.export, "f"), b"content\n")
    try:
        for helper in ("mount.fuse.p9", "unused"):  # our own, and through mount.fuse(8)
            out, _ = run("unshare", "-m", "sh", "-c", OVERLAY, "sh", scratch, mnt.program("p9"), s.addr, where, helper)
            check(out.endswith(b"content\n") and b"nosuid" in out and b"nodev" in out and b"noatime" in out, out)
            check(out.startswith(s.addr.encode()), out)
        s.stop()
    finally:
        s.kill()


# ---- servers that die, hang, and are strange ----
WORKER = """
n = 0
try:
    while True:
        p = sys.argv[1] + "/w%d" % (n % 7)
        with open(p, "wb") as f: f.write(b"x" * 100000)
        with open(p, "rb") as f: f.read()
        os.stat(sys.argv[1]); os.listdir(sys.argv[1])
        n += 1
except OSError as e:
    print(errno.errorcode[e.errno])
"""


@suite.test
def a_server_that_is_killed_leaves_errors_and_no_hangs():
    for mode in MODES:
        s = mnt.Server()
        m = mnt.Mount(s, f"cache={mode}")
        try:
            workers = [python(WORKER, m.dir, wait=False) for _ in range(4)]
            time.sleep(0.5)
            fd = os.open(m.path("open"), os.O_CREAT | os.O_RDWR)
            s.signal(signal.SIGKILL)
            for w in workers:
                equal(w.communicate(timeout=20)[0], "EIO\n")
            with fails(errno.EIO):
                os.stat(m.path("nothing"))
            with fails(errno.EIO):
                os.pwrite(fd, b"1", 0)
                os.fsync(fd)
            try:
                os.close(fd)
            except OSError:
                pass
            run(mnt.program("p9"), "umount", m.dir, timeout=20)
            m.end()
            check(re.search("closed the connection|ECONNRESET|EPIPE", m.output()), m.output())
        finally:
            m.drop()
            s.kill()


@suite.test
def a_server_that_hangs_gives_timeouts():
    s = mnt.Server()
    m = mnt.Mount(s, "timeout=2,cache=none")
    try:
        put(m.path("f"), b"1")
        fd = os.open(m.path("f"), os.O_RDWR)
        s.signal(signal.SIGSTOP)
        errors = []

        def call(f):
            try:
                f()
            except OSError as e:
                errors.append(e.errno)
        calls = [threading.Thread(target=call, args=(f,)) for f in (
            lambda: os.stat(m.path("f")), lambda: os.listdir(m.dir), lambda: os.pread(fd, 1, 0),
            lambda: os.pwrite(fd, b"2", 0), lambda: os.mkdir(m.path("d")))]
        begin = time.monotonic()
        for c in calls:
            c.start()
        for c in calls:
            c.join(30)
        check(time.monotonic() - begin < 15, "it took too long")
        check(len(errors) == 5 and set(errors) <= {errno.ETIMEDOUT, errno.EIO}, errors)
        s.signal(signal.SIGCONT)
        until(lambda: os.stat(m.path("f")), 10, "it does not go on")
        equal(os.pread(fd, 1, 0) in (b"1", b"2"), True)
        os.close(fd)
        s.signal(signal.SIGSTOP)
        p = python("os.stat(sys.argv[1])", m.path("f"), wait=False, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        p.kill()
        equal(p.wait(30), -signal.SIGKILL)  # no need to wait for the time-out
        run(mnt.program("p9"), "umount", "-l", m.dir, timeout=20)
        m.end(20)
    finally:
        s.signal(signal.SIGCONT)
        m.drop()
        s.kill()


@suite.test
def signals_that_do_not_kill_disturb_nothing():
    with mnt.served("cache=none") as m:
        out = python("""
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
import ctypes
c = ctypes.CDLL(None, use_errno=True)
bad = 0
for i in range(3000):
    if c.mkdir(os.fsencode(sys.argv[1] + "/d"), 0o700) < 0: bad += 1
    if c.rmdir(os.fsencode(sys.argv[1] + "/d")) < 0: bad += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(bad)
""", m.dir)
        equal(out, "0\n")


# ---- servers that lie: a proxy that bends the replies of a p9d ----
def lying(bend):
    """A mount of a server whose replies go through bend(type, frame) -> frame."""
    real = mnt.Server()
    path = os.path.join(suite.directory, f"liar-{time.monotonic_ns()}")
    listener = mnt.socket.socket(mnt.socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4)
    threading.Thread(target=relay, args=(listener, real.socket, bend), daemon=True).start()
    return real, path, listener


def frames(sock):
    data = b""
    while True:
        while len(data) >= 4 and len(data) >= int.from_bytes(data[:4], "little"):
            n = int.from_bytes(data[:4], "little")
            yield data[:n]
            data = data[n:]
        try:
            more = sock.recv(1 << 20)
        except OSError:
            return
        if not more:
            return
        data += more


def relay(listener, real, bend):
    try:
        client, _ = listener.accept()
        server = mnt.socket.socket(mnt.socket.AF_UNIX)
        server.connect(real)

        def back():
            try:
                for f in frames(server):
                    client.sendall(bend(f[4], f))
            except OSError:  # a client that has caught the liar is gone
                pass
            client.close()
        threading.Thread(target=back, daemon=True).start()
        for f in frames(client):
            server.sendall(f)
        server.close()
    except OSError:
        pass


RLERROR, RGETATTR, RREADDIR, RLOPEN, RREADLINK, RSTATFS, RREAD, RWRITE, RWALK = 7, 25, 41, 13, 23, 9, 117, 119, 111
GETATTR_AT = {"qid": 15, "mode": 28, "size": 56, "atime_nsec": 88}


def patch(frame, at, value, size):
    return frame[:at] + value.to_bytes(size, "little") + frame[at + size:]


def bent(kind, change):
    """Bends replies of one kind, once the switch is on."""
    switch = threading.Event()

    def bend(type_, frame):
        return change(frame) if switch.is_set() and type_ == kind else frame
    return switch, bend


LIES = {
    "a size of 2^63": (RGETATTR, lambda f: patch(f, 56, 1 << 63, 8), lambda m: os.stat(m.path("f")), (errno.EIO,)),
    "10^9 nanoseconds": (RGETATTR, lambda f: patch(f, 88, 10**9, 8), lambda m: os.stat(m.path("f")), (errno.EIO,)),
    "no attributes": (RGETATTR, lambda f: patch(f, 7, 0, 8), lambda m: os.stat(m.path("f")), (errno.EIO,)),
    "a file that becomes a pipe": (RGETATTR, lambda f: patch(f, 28, 0o010644, 4) if f[28:32] == b"\xa4\x81\0\0" else f,
                                   lambda m: os.stat(m.path("f")), (errno.EIO, errno.ESTALE, None)),
    "a file that becomes a directory": (RGETATTR, lambda f: patch(f, 28, 0o040755, 4), lambda m: os.stat(m.path("f")),
                                        (errno.EIO, errno.ESTALE)),
    "an error number that the kernel does not take": (RLERROR, lambda f: patch(f, 7, 600, 4),
                                                      lambda m: os.stat(m.path("nothing")), (errno.EIO,)),
    "an error that is none": (RLERROR, lambda f: patch(f, 7, 0, 4), lambda m: os.stat(m.path("nothing")), (errno.EIO,)),
    "the same entries for ever": (RREADDIR, None, lambda m: os.listdir(m.path("d")), (errno.EIO, None)),
    "a slash in a name": (RREADDIR, lambda f: f.replace(b"entry", b"ent/y"), lambda m: os.listdir(m.path("d")),
                          (errno.EIO,)),
    "a frame too short": (RREADDIR, lambda f: patch(f, 0, 5, 4), lambda m: os.listdir(m.path("d")), (errno.EIO,)),
    "an iounit of 1": (RLOPEN, lambda f: patch(f, 20, 1, 4), lambda m: get(m.path("f")), (None,)),
    "no bytes written": (RWRITE, lambda f: patch(f, 7, 0, 4), lambda m: put(m.path("f"), b"x" * 9999), (errno.EIO,)),
    "more bytes written than sent": (RWRITE, lambda f: patch(f, 7, 1 << 31, 4), lambda m: put(m.path("f"), b"x" * 9999),
                                     (errno.EIO,)),
    "a block size of 0": (RSTATFS, lambda f: patch(f, 11, 0, 4), lambda m: os.statvfs(m.dir), (None,)),
    "NUL in a link": (RREADLINK, lambda f: f.replace(b"target", b"tar\0et"), lambda m: os.readlink(m.path("l")),
                      (errno.EIO,)),
    "another reply": (RREAD, lambda f: patch(f, 4, 121, 1), lambda m: get(m.path("f")), (errno.EIO,)),
    "a tag that nobody used": (RREAD, lambda f: patch(f, 5, 0x7777, 2), lambda m: get(m.path("f")), (errno.EIO,)),
}


def make_lie(name):
    kind, change, act, want = LIES[name]
    first = []

    def again(f):
        first.append(f)
        return patch(first[0], 5, int.from_bytes(f[5:7], "little"), 2)
    switch, bend = bent(kind, change or again)
    real, path, listener = lying(bend)
    put(os.path.join(real.export, "f"), b"content")
    os.symlink("target", os.path.join(real.export, "l"))
    os.mkdir(os.path.join(real.export, "d"))
    for i in range(2000):
        put(os.path.join(real.export, "d", f"entry-{i}"))
    m = None
    try:
        m = mnt.Mount(type("Liar", (), {"addr": "unix:" + path}), "timeout=3,cache=none")
        os.stat(m.path("f"))
        switch.set()
        got = None
        try:
            act(m)
        except OSError as e:
            got = e.errno
        check(got in want, f"errno {got}, want one of {want}")
        switch.clear()
        m.umount()
    finally:
        if m:
            m.drop()
        listener.close()
        real.kill()


for lie in LIES:
    def tell(lie=lie):
        make_lie(lie)
    tell.__name__ = "a_lie:_" + lie
    suite.test(tell)


@suite.test
def a_small_msize_carries_everything():
    s = mnt.Server("-m", "4096")
    m = mnt.Mount(s)
    try:
        data = os.urandom(1 << 20)
        put(m.path("f"), data)
        equal(get(os.path.join(s.export, "f")), data)
        equal(get(m.path("f")), data)
        fd = os.open(m.path("log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(fd, data)
        os.close(fd)
        equal(get(os.path.join(s.export, "log")), data)
        os.setxattr(m.path("f"), "user.x", b"y" * 3900)
        equal(os.getxattr(m.path("f"), "user.x"), b"y" * 3900)
        os.mkdir(m.path("d"))
        for i in range(300):
            put(m.path("d", "x" * 200 + str(i)))
        equal(len(os.listdir(m.path("d"))), 300)
        m.umount()
        s.stop()
    finally:
        m.drop()
        s.kill()


@suite.test
def a_directory_larger_than_its_tags():
    """Each name is walked to and looked at, some thousand requests for two hundred tags, together and one by one."""
    for options in ("aname=EXPORT", "aname=EXPORT,nopipeline"):
        with mnt.served(options) as m:
            for i in range(1500):
                put(os.path.join(m.server.export, f"e{i}"), b"x" * (i % 50))
            for _ in range(3):
                mnt.drop_caches()
                got = mnt.python("for e in sorted(os.scandir(sys.argv[1]), key=lambda e: int(e.name[1:])): "
                                 "print(e.name, e.stat().st_size)", m.dir)
                equal(got, "".join(f"e{i} {i % 50}\n" for i in range(1500)))


@suite.test
def diod_is_mounted():
    if not os.path.exists("/usr/sbin/diod"):
        raise Skip("no diod")
    for options in ("aname=EXPORT", "aname=EXPORT,nopipeline"):
        with mnt.served(options, other=["sh", "-c", "exec /usr/sbin/diod -f -n -L stderr -l \"$0\" -e \"$1\""]) as m:
            exercise(m)


def exercise(m):
    """The main operations, with a server that is not ours."""
    data = os.urandom(2000000)
    put(m.path("f"), data)
    equal(get(m.path("f")), data)
    os.mkdir(m.path("d"))
    os.symlink("f", m.path("l"))
    equal(os.readlink(m.path("l")), "f")
    os.link(m.path("f"), m.path("h"))
    equal(os.stat(m.path("f")).st_nlink, 2)
    for i in range(200):
        put(m.path("d", f"e{i}"), b"%d" % i)
        os.chmod(m.path("d", f"e{i}"), 0o600 + i % 8)
        equal(stat.S_IMODE(os.stat(m.path("d", f"e{i}")).st_mode), 0o600 + i % 8)
    equal(len(os.listdir(m.path("d"))), 200)
    with os.scandir(m.path("d")) as entries:
        for e in entries:
            equal(get(e.path), e.name[1:].encode())
    fd = os.open(m.path("f"), os.O_RDWR)
    os.unlink(m.path("f"))
    os.unlink(m.path("h"))
    equal(os.pread(fd, 1 << 21, 0), data)  # diod cannot tell what fstat() asks: it knows files by their paths
    equal(os.pwrite(fd, b"more", 5), 4)
    os.close(fd)
    with open(m.path("d", "e7"), "ab") as f:
        f.write(b"+")
    equal(get(m.path("d", "e7")), b"7+")
    os.rename(m.path("d"), m.path("e"))
    for i in range(200):
        os.unlink(m.path("e", f"e{i}"))
    os.rmdir(m.path("e"))
    equal(os.listdir(m.dir), ["l"])
    with fails(errno.ENOENT):
        os.stat(m.path("e"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("mount: needs root: it drops caches, mounts for others, and looks into p9d")
    mnt.start(suite.directory, args.build)
    if not os.path.exists("/dev/fuse"):
        print("skip    all: no /dev/fuse" if not os.environ.get("CI") else "FAILED  there is no /dev/fuse")
        return 1 if os.environ.get("CI") else 0
    if args.only:
        suite.tests = [t for t in suite.tests if any(w in t[0] for w in args.only.split(","))]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return suite.run()


if __name__ == "__main__":
    sys.exit(main())
