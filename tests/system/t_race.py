# SPDX-License-Identifier: BSD-2-Clause
"""Names that change under the server: a directory that is swapped with a link out of the export, or moved out of it."""
import errno
import os
import shutil
import stat
import subprocess
import threading
import time

from common import P9d, Skip, check, denied, equal, fresh, libc, put, suite
from ninep import (NONUNAME, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, SET_GID, SET_MODE, SET_SIZE, SET_UID, Error, T)

SECONDS = 4.0
# A system without CAP_SYS_ADMIN makes no mounts: p9d falls back to checking the way up itself.
ORDINARY = ("setpriv", "--reuid", "33", "--regid", "33", "--clear-groups")
NO_ADMIN = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")


def swapper(a, b):
    """A process that exchanges two names as fast as it can. Its standard input ends it; it prints how often."""
    code = ("import ctypes,os,select,sys\nl=ctypes.CDLL(None)\na,b=(os.fsencode(x) for x in sys.argv[1:])\nn=0\n"
            "r=l.renameat2\n"
            "print(r(-100,a,-100,b,2),flush=True)\n"
            "while not select.select([0],[],[],0)[0]:\n"
            "  for _ in range(64): n+=r(-100,a,-100,b,2)==0\n"
            "print(n)\n")
    p = subprocess.Popen(["python3", "-c", code, a, b], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if p.stdout.readline() != b"0\n":
        raise Skip("this file system cannot exchange two names")
    return p


def picture(top):
    """Everything about a tree that a wrong system call would change."""
    out = {}
    for path, dirs, files in os.walk(top):
        for name in ["", *dirs, *files]:
            p = os.path.join(path, name) if name else path
            st = os.lstat(p)
            data = None
            if stat.S_ISREG(st.st_mode):
                with open(p, "rb", opener=lambda q, f: os.open(q, f | os.O_NOATIME)) as f:
                    data = f.read()
            out[p] = (st.st_ino, st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns,
                      st.st_atime_ns, data, tuple(sorted(os.listxattr(p, follow_symlinks=False))))
    return out


def make_outside():
    outside = fresh("outside", 0o777)
    for name in ("f", "victim", "old"):
        put(f"{outside}/{name}", b"secret " + name.encode(), 0o666)
    os.mkdir(outside + "/sub")
    os.mkdir(outside + "/empty")
    os.symlink("f", outside + "/link")
    put(outside + "/sub/f", b"deep secret", 0o666)
    old = time.time() - 100 * 86400  # an atime that a read would move, relatime or not
    for p, dirs, files in os.walk(outside):
        for n in dirs + files:
            os.utime(os.path.join(p, n), (old, old), follow_symlinks=False)
    os.utime(outside, (old, old))
    return outside


def make_inside(outside):
    d = fresh("export", 0o777)
    os.mkdir(d + "/x")
    os.chmod(d + "/x", 0o777)
    fill(d + "/x")
    os.symlink(outside, d + "/y")
    return d


def fill(x):
    for name in ("f", "victim", "old"):
        put(f"{x}/{name}", b"inside", 0o666)
    for name in ("sub", "empty"):
        os.makedirs(f"{x}/{name}", exist_ok=True)
        os.chmod(f"{x}/{name}", 0o777)
    put(x + "/sub/f", b"inside", 0o666)


# Every request that takes a fid and a name, with the name x (a directory, or a link to the outside), and those whose fid is
# a directory reached through x a moment before. c: connection, r: the root, x: a fid walked to "x" (either).
ATTACKS = {
    "walk": [lambda c, r, x: c._walk(r, c.fid(), "x", "f"), lambda c, r, x: c._walk(r, c.fid(), "x", "sub", "f"),
             lambda c, r, x: c._walk(x, c.fid(), "f"), lambda c, r, x: c._walk(x, c.fid(), "..", "x", "f")],
    "lopen": [lambda c, r, x: c._lopen(x, O_RDONLY)],
    "lcreate": [lambda c, r, x: c._lcreate(x, "f", O_RDWR | O_CREAT | O_TRUNC, 0o600, NONUNAME),
                lambda c, r, x: c._lcreate(dup(c, r), "x", O_RDWR | O_CREAT, 0o600, NONUNAME)],
    "symlink": [lambda c, r, x: c._symlink(x, "new", "t", NONUNAME), lambda c, r, x: c._symlink(r, "x", "t", NONUNAME)],
    "mknod": [lambda c, r, x: c._mknod(x, "fifo", stat.S_IFIFO | 0o600, 0, 0, NONUNAME),
              lambda c, r, x: c._mknod(r, "x", stat.S_IFREG | 0o600, 0, 0, NONUNAME)],
    "mkdir": [lambda c, r, x: c._mkdir(x, "newdir", 0o700, NONUNAME), lambda c, r, x: c._mkdir(r, "x", 0o700, NONUNAME)],
    "link": [lambda c, r, x: c._link(x, c.keep, "hard"), lambda c, r, x: c._link(r, x, "hard"),
             lambda c, r, x: c._link(r, c.keep, "x")],
    "rename": [lambda c, r, x: c._rename(c.moving, x, "moved"), lambda c, r, x: c._rename(x, c.dir, "x")],
    "renameat": [lambda c, r, x: c._renameat(x, "old", c.dir, "stolen"), lambda c, r, x: c._renameat(c.dir, "in", x, "f"),
                 lambda c, r, x: c._renameat(x, "old", x, "new")],
    "unlinkat": [lambda c, r, x: c._unlinkat(x, "victim", 0), lambda c, r, x: c._unlinkat(x, "empty", 0x200),
                 lambda c, r, x: c._unlinkat(r, "x", 0x200)],
    "remove": [lambda c, r, x: c._remove(deep(c, r, "victim"))],
    "setattr": [lambda c, r, x: c._setattr(x, SET_MODE, 0o700, 0, 0, 0, 0, 0, 0, 0),
                lambda c, r, x: c._setattr(deep(c, r, "f"), SET_MODE | SET_SIZE, 0o600, 0, 0, 3, 0, 0, 0, 0),
                lambda c, r, x: c._setattr(deep(c, r, "f"), SET_SIZE, 0, 0, 0, 3, 0, 0, 0, 0),
                lambda c, r, x: c._setattr(deep(c, r, "f"), SET_UID | SET_GID, 0, 1, 1, 0, 0, 0, 0, 0),
                lambda c, r, x: c._setattr(x, 0x1B0, 0, 0, 0, 0, 1, 1, 1, 1)],
    "getattr": [lambda c, r, x: c._getattr(x)],
    "readlink": [lambda c, r, x: c._readlink(x)],
    "statfs": [lambda c, r, x: c._statfs(x)],
    "readdir": [lambda c, r, x: c._readdir(opened_dir(c, r), 0, 4096)],
    "read": [lambda c, r, x: c._read(opened(c, r, O_RDONLY), 0, 100)],
    "write": [lambda c, r, x: c._write(opened(c, r, O_RDWR), 0, b"overwritten")],
    "lock": [lambda c, r, x: c._lock(opened(c, r, O_RDWR), 1, 0, 0, 0, 1, "t")],
    "getlock": [lambda c, r, x: c._getlock(opened(c, r, O_RDWR), 1, 0, 0, 1, "t")],
    "fsync": [lambda c, r, x: c._fsync(opened(c, r, O_RDWR), 0)],
    "xattrwalk": [lambda c, r, x: c._xattrwalk(x, c.fid(), "user.a"), lambda c, r, x: c._xattrwalk(x, c.fid(), "")],
    "xattrcreate": [lambda c, r, x: set_xattr(c, deep(c, r, "f")), lambda c, r, x: set_xattr(c, x)],
    "clunk": [lambda c, r, x: c._clunk(x)],
}
NO_NAME = {"version", "auth", "attach", "flush"}  # attach: see below


def dup(c, fid):
    return c.walk(fid)


def deep(c, r, name):
    return c.walk(r, "x", name)


def opened(c, r, flags):
    f = c.walk(r, "x", "f")
    c.lopen(f, flags)
    return f


def opened_dir(c, r):
    f = c.walk(r, "x")
    c.lopen(f, O_RDONLY)
    return f


def set_xattr(c, fid):
    c.xattrcreate(fid, "user.planted", 3, 0)
    c.write(fid, 0, b"abc")
    return c._clunk(fid)


def attack(s, d, seconds):
    """Runs every row again and again, for this time and until each has succeeded, if it ever does. Returns how often each
    has, and what was read or named that is not ours."""
    wins, leaks = {name: 0 for name in ATTACKS}, []
    began = time.monotonic()
    while (spent := time.monotonic() - began) < seconds or (spent < 60 and min(wins.values()) == 0):
        c = s.conn()
        put(d + "/kept", b"kept", 0o666)
        os.makedirs(d + "/dir", exist_ok=True)
        os.chmod(d + "/dir", 0o777)
        put(d + "/dir/in", b"in", 0o666)
        put(d + "/dir/moving", b"moving", 0o666)
        c.keep, c.dir, c.moving = c.walk(0, "kept"), c.walk(0, "dir"), c.walk(0, "dir", "moving")
        for name, rows in ATTACKS.items():
            for row in rows:
                try:
                    x = c.walk(0, "x")
                    tag = row(c, 0, x)
                    body = c.wait(tag)
                    wins[name] += 1
                    if b"secret" in body:
                        leaks.append((name, body))
                except Error:
                    pass
                if name == "rename" and os.path.lexists(d + "/dir/x"):
                    os.rename(d + "/dir/x", d + ("/y" if os.path.lexists(d + "/x") else "/x"))
        c.close()
        restore(d)
    return wins, leaks


def restore(d):
    """Puts back inside what the attacks took away; x and y are where they are."""
    for name in ("x", "y"):
        p = f"{d}/{name}"
        try:
            fd = os.open(p, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            here = f"/proc/self/fd/{fd}"
            for extra in ("new", "fifo", "hard", "moved"):
                try:
                    os.unlink(f"{here}/{extra}")
                except OSError:
                    pass
            shutil.rmtree(here + "/newdir", ignore_errors=True)
            fill(here)
        finally:
            os.close(fd)
    for name in ("hard", "stolen"):
        try:
            os.unlink(f"{d}/{name}")
        except OSError:
            pass


def swap_race(seconds, **server):
    missing = set(T) - set(ATTACKS) - NO_NAME
    check(not missing, f"requests without an attack: {missing}")
    outside = make_outside()
    d = make_inside(outside)
    before = picture(outside)
    with P9d("-e", f"x={d}", "--log", "debug", **server) as s:
        contained = "\"..\" is checked" not in s.output()
        p = swapper(d + "/x", d + "/y")
        try:
            wins, leaks = attack(s, d, seconds)
        finally:
            swaps = int(p.communicate(b"\n")[0] or 0)
        s.alive()
    check(swaps > 1000, f"only {swaps} swaps")
    check(not leaks, f"bytes from outside: {leaks[:3]}")
    after = picture(outside)
    changed = [k for k in set(before) | set(after) if before.get(k) != after.get(k)]
    check(not changed, f"outside has changed: {[(k, before.get(k), after.get(k)) for k in changed[:3]]}")
    never = [name for name, n in wins.items() if n == 0]
    check(not never, f"these never hit the directory, so they show nothing: {never}")
    return contained


@suite.test
def race_symlink_swap():
    check(swap_race(SECONDS), "p9d is root here and has made no mount of its own")


@suite.test
def race_symlink_swap_without_cap_sys_admin():
    check(not swap_race(SECONDS / 2, before=NO_ADMIN), "a mount of its own without CAP_SYS_ADMIN")


@suite.test
def race_symlink_swap_as_an_ordinary_user():
    swap_race(SECONDS / 2, before=ORDINARY, where=fresh("sock", 0o777))


@suite.test
def race_aname_through_a_swapped_name():
    outside = make_outside()
    d = make_inside(outside)
    with P9d("-e", f"x={d}") as s:
        p = swapper(d + "/x", d + "/y")
        inside = {os.stat(d).st_ino}
        wins = 0
        try:
            began = time.monotonic()
            while (spent := time.monotonic() - began) < 0.7 or (spent < 60 and not wins):
                c = s.conn()
                try:
                    c.attach(1, "x/x/sub", 0)
                    inside.add(c.getattr(1).path)
                    wins += 1
                except Error as e:
                    check(e.code == errno.ENOENT, e)
                c.close()
        finally:
            p.communicate(b"\n")
        bad = {os.stat(outside).st_ino, os.stat(outside + "/sub").st_ino} & inside
        check(not bad and wins, f"{wins} attached; outside: {bad}")


def moved_out(contained, **server):
    """A held directory is moved out of the export on the host."""
    outside, d = fresh("outside"), fresh("export")
    put(outside + "/secret", b"secret")
    os.makedirs(d + "/a/b/c")
    os.chmod(d + "/a/b", 0o777)
    put(d + "/a/b/f", b"inside", 0o666)
    with P9d("-e", f"x={d}", "--log", "debug", **server) as s:
        equal("\"..\" is checked" not in s.output(), contained, "a mount of its own")
        c = s.conn()
        a, b, deep_c = c.walk(0, "a"), c.walk(0, "a", "b"), c.walk(0, "a", "b", "c")
        f = c.open(0, "a", "b", "f", flags=O_RDWR)
        os.rename(d + "/a/b", outside + "/b")
        for fid, names in ((b, ("..",)), (b, ("..", "secret")), (b, ("..", "..")), (deep_c, ("..", "..")),
                           (deep_c, ("..", "..", "secret")), (deep_c, ("..", "..", "..", "..", "etc"))):
            denied((errno.ENOENT, errno.ESTALE, errno.EXDEV), lambda fid=fid, names=names: c.walk(fid, *names))
        denied((errno.ENOENT, errno.ESTALE), lambda: c.walk(deep_c, "..", "..", "..", newfid=deep_c))
        for names in (("..",), ("..", ".."), ("..",) * 16):  # from inside, the root is the end
            equal(c.getattr(c.walk(a, *names)).path, c.getattr(0).path)
        equal(c.read(f, 0, 10), b"inside", "an open file goes on")
        c.write(f, 0, b"INSIDE")
        n = c.fid()
        c.walk(b, newfid=n)
        got = c.outcome(c._lcreate(n, "made", O_RDWR, 0o600, NONUNAME))
        check(got in (0, errno.ESTALE, errno.ENOENT), f"create in it: {got}")
        equal(sorted(os.listdir(outside)), ["b", "secret"], "beside it")
        directory = c.open(b)
        names = {e[0]: e for e in c.entries(directory, 0, 4000)}
        check(b"secret" not in names)
        os.rename(outside + "/b", d + "/a/b2")
        equal(c.getattr(c.walk(deep_c, "..", "..")).path, c.getattr(a).path, "back in the export, \"..\" works again")


@suite.test
def race_directory_moved_out():
    moved_out(True)


@suite.test
def race_directory_moved_out_without_cap_sys_admin():
    moved_out(False, before=NO_ADMIN)


@suite.test
def race_directory_moved_out_as_an_ordinary_user():
    moved_out(False, before=ORDINARY, where=fresh("sock", 0o777))


@suite.test
def race_directory_moved_out_to_far_below():
    """Where the way up is checked by hand it has an end; what lies beyond is not taken for the inside."""
    outside, d = fresh("outside", 0o755), fresh("export", 0o777)
    os.makedirs(d + "/a/b")
    with P9d("-e", f"x={d}", before=ORDINARY, where=fresh("sock", 0o777)) as s:
        c = s.conn()
        b = c.walk(0, "a", "b")
        at = os.open(outside, os.O_RDONLY)
        try:
            for _ in range(4200):
                os.mkdir("d", dir_fd=at)
                below = os.open("d", os.O_RDONLY, dir_fd=at)
                os.close(at)
                at = below
            os.mkdir("secret", dir_fd=at)
            os.rename(d + "/a", "a", dst_dir_fd=at)
            denied((errno.ENOENT, errno.ESTALE), lambda: c.walk(b, "..", ".."))
            denied((errno.ENOENT, errno.ESTALE), lambda: c.walk(b, "..", "..", "secret"))
        finally:
            os.close(at)
            subprocess.run(["rm", "-rf", outside], check=True)


@suite.test
def race_renamed_directory_keeps_its_fids():
    d = fresh("export")
    os.makedirs(d + "/a/b")
    put(d + "/a/b/f", b"data")
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        b, f = c.walk(0, "a", "b"), c.walk(0, "a", "b", "f")
        os.rename(d + "/a", d + "/z")
        c.walk(b, "f")
        c.mkdir(b, "new", 0o755, NONUNAME)
        check(os.path.isdir(d + "/z/b/new"))
        c.rename(f, b, "g")
        check(os.path.exists(d + "/z/b/g"))
        c.remove(f)
        check(not os.path.exists(d + "/z/b/g"))
        f = c.walk(c.create(b, "h"))
        os.rename(d + "/z/b/h", d + "/z/b/other")
        put(d + "/z/b/h", b"not ours")
        denied(errno.ESTALE, lambda: c.remove(f))
        check(os.path.exists(d + "/z/b/h"), "Tremove took another file of the same name")


@suite.test
def race_xattr_that_grows_and_shrinks():
    """The size that Rxattrwalk tells and the bytes that are read are one value's."""
    d = fresh("export")
    path = put(d + "/f")
    values = [bytes([n % 251 + 1]) * n for n in (1, 10, 100, 1000, 3000)]
    try:
        os.setxattr(path, "user.a", values[0])
    except OSError as e:
        raise Skip(f"no user attributes here: {e}") from None
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for v in values:
                os.setxattr(path, "user.a", v)
    t = threading.Thread(target=change)
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        f = c.walk(0, "f")
        t.start()
        try:
            seen = set()
            began = time.monotonic()
            while (spent := time.monotonic() - began) < 0.5 or (spent < 60 and len(seen) < 2):
                new = c.fid()
                size = int.from_bytes(c.wait(c.ask("xattrwalk", f, new, "user.a")), "little")
                value = c.read(new, 0, 60000)
                check(len(value) == size and value in values, f"{size} bytes said, {len(value)} came")
                seen.add(size)
                c.clunk(new)
        finally:
            stop.set()
            t.join()


@suite.test
def race_exports_do_not_mix():
    """Links and renames between two exports of one file system, and with the fallback too."""
    for before in ((), NO_ADMIN):
        one, two = fresh("one"), fresh("two")
        put(one + "/f", b"x")
        with P9d("-e", f"one={one}", "-e", f"two={two}", before=before) as s:
            c = s.conn("one")
            c.attach(9, "two")
            f = c.walk(0, "f")
            denied(errno.EXDEV, lambda: c.link(9, f, "l"))
            denied(errno.EXDEV, lambda: c.rename(f, 9, "l"))
            denied(errno.EXDEV, lambda: c.renameat(0, "f", 9, "l"))
            equal(os.listdir(two), [])


@suite.test
def race_proc_is_not_exported():
    if not os.path.ismount("/proc"):
        raise Skip("no /proc")
    for before in ((), NO_ADMIN):
        P9d("-e", "/proc", before=before, ready=False).refuses("/proc", "procfs")
    d = fresh("export")
    os.mkdir(d + "/proc")
    put(d + "/file")
    if libc.mount(b"proc", os.fsencode(d + "/proc"), b"proc", 0, None) < 0:
        raise Skip("no procfs can be mounted here")
    libc.mount(b"/proc/uptime", os.fsencode(d + "/file"), None, 4096, None)  # MS_BIND
    try:
        for before in ((), NO_ADMIN):
            with P9d("-e", f"x={d}", before=before) as s:
                c = s.conn()
                denied(errno.EACCES, lambda: c.walk(0, "proc"))
                denied((errno.EACCES, errno.ENOENT), lambda: c.walk(0, "proc", "self"))
                denied(errno.EACCES, lambda: c.attach(9, "x/proc"))
                denied(errno.EACCES, lambda: c.open(0, "file"))
                denied(errno.EACCES, lambda: c.create(0, "file"))
                check(b"proc" in [e[0] for e in c.entries(c.open(0), 0, 4000)])
    finally:
        libc.umount2(os.fsencode(d + "/file"), 2)
        libc.umount2(os.fsencode(d + "/proc"), 2)
