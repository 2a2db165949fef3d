# SPDX-License-Identifier: BSD-2-Clause
"""Errors of the disk reach who asks, and what was promised holds."""
import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import threading

from common import P9d, Skip, check, equal, fresh, libc, put, suite
from ninep import NONUNAME, O_APPEND, O_CREAT, O_DSYNC, O_EXCL, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY, SET_SIZE, Error

MIB = 1 << 20


@contextlib.contextmanager
def tmpfs(size):
    d = fresh("tmpfs")
    if libc.mount(b"tmpfs", os.fsencode(d), b"tmpfs", 0, f"size={size}".encode()) < 0:
        raise Skip("tmpfs does not mount")
    os.chmod(d, 0o777)
    try:
        yield d
    finally:
        libc.umount2(os.fsencode(d), 2)


@contextlib.contextmanager
def loop_ext4(image, fresh_one=True):
    d = fresh("ext4")
    if not shutil.which("mkfs.ext4"):
        raise Skip("no mkfs.ext4")
    if fresh_one:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", image], check=True)
    done = subprocess.run(["mount", "-o", "loop,errors=continue", image, d], check=False, stderr=subprocess.PIPE)
    if done.returncode:
        raise Skip("loop devices do not work: " + done.stderr.decode().strip()[:100])
    try:
        yield d
    finally:
        if libc.umount2(os.fsencode(d), 0) < 0:
            libc.umount2(os.fsencode(d), 2)


@suite.test
def durable_fsync_tells_of_a_late_write_error():
    """A file system on a sparse file in a tmpfs that is too small: writes are taken, writing back fails."""
    with tmpfs("8m") as small:
        image = small + "/image"
        with open(image, "wb") as f:
            f.truncate(64 * MIB)
        with loop_ext4(image) as d, P9d("-e", f"x={d}") as s:
            c = s.conn(msize=MIB)
            a, b = c.create(0, "f"), c.open(0, "f", flags=O_RDWR)
            done = 0
            while done < 24 * MIB:
                done += c.write(a, done, os.urandom(MIB - 24))
            code = c.outcome(c._fsync(a, 0), 60)
            check(code in (errno.EIO, errno.ENOSPC), f"Tfsync said {os.strerror(code)}")
            other = c.outcome(c._fsync(b, 0), 60)
            check(other in (errno.EIO, errno.ENOSPC), f"a fid that was open before: {os.strerror(other)}")
            c.getattr(a)


def shutdown(where):
    """As if the power went: nothing of what is only in memory, the journal's part too, reaches the disk."""
    fd = os.open(where, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x8004587d, struct.pack("<I", 2))  # FS_IOC_SHUTDOWN, without flushing the log
    except OSError as e:
        raise Skip(f"the file system cannot be shut down: {e}") from None
    finally:
        os.close(fd)


def before_the_power_goes(c, n):
    """What SECURITY.md promises to be there afterwards: {name: content, or None for what must be gone}."""
    there = {}
    top = c.open(0)
    for how, flags in (("fsync", 0), ("datasync", 0), ("sync", O_SYNC), ("dsync", O_DSYNC)):
        name = f"{how}{n}"
        f = c.create(0, name, flags=O_RDWR | O_CREAT | flags, mode=0o600)
        there[name] = os.urandom(70000)
        c.write(f, 0, there[name][:30000])
        c.write(f, 30000, there[name][30000:])
        if not flags:
            c.fsync(f, how == "datasync")
    c.mkdir(0, f"dir{n}", 0o700, NONUNAME)
    c.renameat(0, f"sync{n}", 0, f"renamed{n}")
    there[f"renamed{n}"], there[f"sync{n}"] = there[f"sync{n}"], None
    there[f"dir{n}"] = b""
    if n:
        c.unlinkat(0, f"fsync{n - 1}", 0)
        there[f"fsync{n - 1}"] = None
    c.fsync(top, 0)
    c.write(c.create(0, f"lost{n}"), 0, b"x" * 5000)
    return there


@suite.test
def durable_what_was_promised_outlives_a_power_cut():
    lost = 0
    with tmpfs("128m") as memory:
        image, there = memory + "/image", {}
        with open(image, "wb") as f:
            f.truncate(64 * MIB)
        for n in range(6):
            with loop_ext4(image, fresh_one=n == 0) as d:
                for name, content in there.items():
                    path = f"{d}/{name}"
                    check(os.path.lexists(path) == (content is not None), f"{name} after the cut")
                    if content:
                        with open(path, "rb") as f:
                            check(f.read() == content, f"the content of {name} after the cut")
                lost += n > 0 and not (os.path.exists(f"{d}/lost{n - 1}") and os.path.getsize(f"{d}/lost{n - 1}") == 5000)
                if n == 5:
                    break
                with P9d("-e", f"x={d}") as s:
                    c = s.conn(msize=MIB)
                    there.update(before_the_power_goes(c, n))
                    shutdown(d)
                    check(c.outcome(c._lcreate(c.walk(0), "late", O_RDWR, 0o600, NONUNAME)) != 0)
                    s.alive()
    check(lost > 0, "nothing was lost that was not promised either: it was no cut")


@suite.test
def durable_full_file_system():
    with tmpfs("1m") as d, P9d("-e", f"x={d}") as s:
        c = s.conn(msize=MIB)
        f = c.create(0, "f")
        done = 0
        with contextlib.suppress(Error):
            while done < 4 * MIB:
                n = c.write(f, done, b"x" * 300000)
                check(n > 0)
                done += n
        check(0 < done <= MIB, f"{done} bytes in a file system of 1 MiB")
        equal(c.outcome(c._write(f, done, b"x" * 10000)), errno.ENOSPC)
        c.setattr(f, SET_SIZE, size=0)
        equal(c.write(f, 0, b"again"), 5)


@suite.test
def durable_appends_do_not_tear():
    """Many clients append to one file: every record whole, none lost."""
    d = fresh("dir", 0o777)
    put(d + "/log", b"", 0o666)
    bad = []
    with P9d("-e", f"x={d}") as s:
        def append(who):
            try:
                c = s.conn()
                f = c.open(0, "log", flags=O_WRONLY | O_APPEND)
                for i in range(200):
                    record = b"%d:%d:%s\n" % (who, i, b"x" * (i % 90))
                    equal(c.write(f, 0, record), len(record))
            except Exception as e:  # pylint: disable=broad-except
                bad.append(repr(e))
        threads = [threading.Thread(target=append, args=(i,)) for i in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(not bad, bad)
    with open(d + "/log", "rb") as f:
        lines = f.read().splitlines()
    equal(len(lines), 1200)
    equal({tuple(map(int, x.split(b":")[:2])) for x in lines}, {(w, i) for w in range(6) for i in range(200)})


@suite.test
def durable_one_wins_exclusive_creation():
    d = fresh("dir", 0o777)
    with P9d("-e", f"x={d}") as s:
        wins, bad = [], []

        def race(who):
            try:
                c = s.conn()
                for i in range(150):
                    f = c.walk(0)
                    code = c.outcome(c._lcreate(f, f"n{i}", O_RDWR | O_CREAT | O_EXCL, 0o600, 0xffffffff))
                    check(code in (0, errno.EEXIST), code)
                    if code == 0:
                        wins.append((i, who))
                    c.clunk(f)
            except Exception as e:  # pylint: disable=broad-except
                bad.append(repr(e))
        threads = [threading.Thread(target=race, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(not bad, bad)
        equal(sorted(i for i, _ in wins), list(range(150)))


@suite.test
def durable_read_of_a_file_that_shrinks():
    """Its length was promised, its pages are gone: zeros, and the frame stays whole."""
    d = fresh("dir", 0o777)
    put(d + "/f", b"x" * (4 * MIB), 0o666)
    stop = threading.Event()

    def shrink():
        fd = os.open(d + "/f", os.O_RDWR)
        while not stop.is_set():
            os.ftruncate(fd, 100)
            os.pwrite(fd, b"x" * (2 * MIB), 0)
        os.close(fd)
    t = threading.Thread(target=shrink)
    with P9d("-e", f"x={d}") as s:
        c = s.conn(msize=MIB)
        f = c.open(0, "f")
        t.start()
        try:
            for i in range(300):
                tags = [c._read(f, k * 500000, 500000) for k in range(4)]
                for tag in tags:
                    body = c.wait(tag)
                    equal(int.from_bytes(body[:4], "little"), len(body) - 4)
                    check(not body[4:].strip(b"x\0"), "bytes that were never in the file")
        finally:
            stop.set()
            t.join()


@suite.test
def durable_files_that_are_gone():
    """Unlinked while open: read, written, truncated, changed, given attributes; and replaced by a rename."""
    d = fresh("dir", 0o777)
    put(d + "/f", b"content", 0o666)
    put(d + "/g", b"other", 0o666)
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        f, closed = c.open(0, "f", flags=O_RDWR), c.walk(0, "f")
        c.renameat(0, "g", 0, "f")
        equal(c.read(f, 0, 10), b"content")
        c.write(f, 0, b"CONTENT")
        c.setattr(f, SET_SIZE, size=3)
        c.setattr(f, 1, mode=0o600)
        a = c.getattr(f)
        equal((a.nlink, a.size, a.mode & 0o777), (0, 3, 0o600))
        c.setattr(closed, SET_SIZE, size=2)
        equal(c.read(f, 0, 10), b"CO")
        x = c.walk(closed)
        c.xattrcreate(x, "user.a", 3, 0)
        c.write(x, 0, b"abc")
        code = c.outcome(c._clunk(x))
        check(code in (0, errno.EOPNOTSUPP), code)
        equal(c.read(c.open(0, "f"), 0, 10), b"other")
        equal(c.outcome(c._lopen(closed, O_WRONLY | O_TRUNC)), 0)
        equal(c.read(f, 0, 10), b"")
