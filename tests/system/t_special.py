# SPDX-License-Identifier: BSD-2-Clause
"""FIFOs, sockets, devices and links: they answer at once, and are never opened on the host."""
import errno
import os
import re
import shutil
import socket
import stat
import time

from common import P9d, Skip, check, equal, fresh, put, quickly, suite
from t_race import swapper
from ninep import NONUNAME, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SET_MODE, SET_SIZE, Error

KINDS = ("fifo", "socket", "chr", "blk", "link")


def make(d):
    os.mkfifo(d + "/fifo", 0o666)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(d + "/socket")
    try:
        os.mknod(d + "/chr", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(d + "/blk", 0o666 | stat.S_IFBLK, os.makedev(7, 0))
    except PermissionError:
        raise Skip("no device nodes can be made here") from None
    os.symlink("/etc/passwd", d + "/link")
    put(d + "/file", b"file", 0o666)


class Traced(P9d):
    """p9d under strace; stop() gives the openat calls."""

    def __init__(self, *args):
        if not shutil.which("strace"):
            raise Skip("no strace")
        d = fresh("trace", 0o777)
        self.trace = d + "/trace"
        # LeakSanitizer cannot work where somebody traces
        super().__init__(*args, before=("strace", "-D", "-f", "-y", "-e", "trace=open,openat,openat2", "-o", self.trace),
                         env={"ASAN_OPTIONS": "detect_leaks=0"})

    def opened(self, names):
        """Lines of the trace in which one of the names was opened, and not only pinned."""
        self.stop()
        deadline, text = time.monotonic() + 30, ""
        while "+++ exited" not in text and time.monotonic() < deadline:
            time.sleep(0.02)
            with open(self.trace, encoding="utf-8", errors="replace") as f:
                text = f.read()
        check("openat" in text, "the trace is empty")
        pattern = re.compile(rf"(\"(?:[^\"]*/)?({'|'.join(names)})\"|= \d+<[^>]*/({'|'.join(names)})>)")
        check(re.search(r"= \d+<[^>]*/file>", text), "the trace does not show what was opened")
        return [line for line in text.splitlines() if pattern.search(line) and "O_PATH" not in line
                and "O_CREAT|O_EXCL" not in line and "O_EXCL|O_CREAT" not in line]


@suite.test
def special_files_are_never_opened():
    d = fresh("special", 0o777)
    make(d)
    s = Traced("-e", f"x={d}")
    with s:
        c = s.conn()
        for kind in KINDS:
            for flags in (O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, 0o4000, 0o10000000, 0o200000):
                f = c.walk(0, kind)

                def attempt(f=f, flags=flags):
                    try:
                        c.wait(c.ask("lopen", f, flags))
                    except Error as e:
                        return e.code
                    return 0
                code = quickly(attempt)
                check(code in (errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.ENOTDIR, errno.EOPNOTSUPP, errno.EACCES),
                      f"Tlopen of {kind} with {flags:o}: {os.strerror(code) if code else 'it was opened'}")
                a = c.getattr(f)
                equal(stat.S_IFMT(a.mode), stat.S_IFMT(os.lstat(f"{d}/{kind}").st_mode), "the fid is of use still")
                c.clunk(f)
            code = quickly(lambda kind=kind: c.outcome(c._lcreate(c.walk(0), kind, O_RDWR, 0o600, NONUNAME)))
            check(code in (errno.ELOOP, errno.ENXIO, errno.EEXIST, errno.EOPNOTSUPP), f"Tlcreate over {kind}: {code}")
            f = c.walk(0, kind)
            for act in (lambda f=f: c.outcome(c._setattr(f, SET_SIZE, 0, 0, 0, 0, 0, 0, 0, 0)),
                        lambda f=f: c.outcome(c._setattr(f, SET_MODE, 0o644, 0, 0, 0, 0, 0, 0, 0)),
                        lambda f=f: c.outcome(c._xattrwalk(f, c.fid(), "")),
                        lambda f=f: c.outcome(c._lock(f, 1, 0, 0, 0, 1, "t")),
                        lambda f=f: c.outcome(c._read(f, 0, 1))):
                quickly(act)
            c.link(0, f, kind + "2")
            c.rename(f, 0, kind + "3")
            quickly(lambda f=f: c.remove(f))
            c.unlinkat(0, kind + "2", 0)
        c.open(0, "file")
        names = [k + n for k in KINDS for n in ("", "2", "3")]
        bad = s.opened(names)
        check(not bad, f"the host opened: {bad[:3]}")


@suite.test
def special_made_by_the_client():
    d = fresh("special", 0o777)
    with P9d("-e", f"x={d}") as s, P9d("-e", f"x={d},dev") as dev:
        c = s.conn()
        for name, mode, want in (("fifo", stat.S_IFIFO, 0), ("sock", stat.S_IFSOCK, 0), ("chr", stat.S_IFCHR, errno.EPERM),
                                 ("blk", stat.S_IFBLK, errno.EPERM), ("dir", stat.S_IFDIR, errno.EPERM),
                                 ("lnk", stat.S_IFLNK, errno.EINVAL), ("bad", 0o130000, errno.EINVAL)):
            equal(c.outcome(c._mknod(0, name, mode | 0o644, 1, 3, NONUNAME)), want, name)
        c = dev.conn()
        code = c.outcome(c._mknod(0, "null", stat.S_IFCHR | 0o666, 1, 3, NONUNAME))
        if code == errno.EPERM:
            raise Skip("no device nodes can be made here")
        equal(code, 0)
        a = c.getattr(c.walk(0, "null"))
        equal((a.rdev, a.mode), (os.makedev(1, 3), stat.S_IFCHR | 0o666))
        check(quickly(lambda: c.outcome(c._lopen(c.walk(0, "null"), O_RDWR))) != 0, "a device was opened")


@suite.test
def special_fifo_swapped_in():
    """A file and a FIFO change places while the file is opened and created."""
    d = fresh("special", 0o777)
    os.mkfifo(d + "/b", 0o666)
    put(d + "/a", b"file", 0o666)
    with P9d("-e", f"x={d}") as s:
        p = swapper(d + "/a", d + "/b")
        won = lost = 0
        try:
            c = s.conn()
            began = time.monotonic()
            while (spent := time.monotonic() - began) < 1.5 or (spent < 60 and not (won and lost)):
                for name in "ab":
                    f = c.walk(0, name)
                    code = quickly(lambda f=f: c.outcome(c._lopen(f, O_RDWR)), 1)
                    won, lost = won + (code == 0), lost + (code != 0)
                    check(code in (0, errno.ENXIO), os.strerror(code))
                    c.clunk(f)
                    f = c.walk(0)
                    code = quickly(lambda f=f, name=name: c.outcome(c._lcreate(f, name, O_RDWR, 0o600, NONUNAME)))
                    check(code in (0, errno.ENXIO), os.strerror(code))
                    c.clunk(f)
        finally:
            p.communicate(b"\n")
        check(won and lost, f"{won} won, {lost} lost: shows nothing")
