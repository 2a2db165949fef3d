# SPDX-License-Identifier: BSD-2-Clause
"""The checks of one mount, as root and as an ordinary user. Runs in the guest as
root; every check has a process and a directory of its own and a time limit.
Prints "ok LABEL/WHO: NAME" or "not ok LABEL/WHO: NAME: reason"."""
import argparse
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import time
import traceback

LIMIT = 240  # seconds for one check
COUNT = 300  # entries of a directory made by the guest, for which emulation is slow
FLOCK = "hhqqi4x"
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
OTHER_USER = 1  # Debian's "daemon"
GROUP, FOREIGN_GROUP = 2000, 3000
libc = ctypes.CDLL(None, use_errno=True)
checks = []


class Skip(Exception):
    pass


def check(*conditions, who="root user", cache="none mmap loose", needs=""):
    """Registers a check: for whom, under which cache options, and what else it needs."""
    def register(function):
        checks.append((function, who.split(), cache.split(), needs.split()))
        return function
    return register(conditions[0]) if conditions else register


def eq(got, want, what):
    if got != want:
        show = (lambda v: oct(v)) if what.endswith("mode") and isinstance(got, int) else repr
        raise AssertionError("%s: expected %.200s, got %.200s" % (what, show(want), show(got)))


def true(value, what):
    if not value:
        raise AssertionError(what)


def fails(number, function, *args, **options):
    """The call must fail with this errno (or one of several)."""
    wanted = number if isinstance(number, tuple) else (number,)
    name = "%s%.120s" % (getattr(function, "__name__", "call"), ascii(args))
    try:
        function(*args, **options)
    except OSError as error:
        if error.errno not in wanted:
            raise AssertionError("%s: expected %s, got %s" % (
                name, "/".join(errno.errorcode[n] for n in wanted), errno.errorcode.get(error.errno)))
        return
    raise AssertionError("%s: expected %s, but it succeeded" % (name, errno.errorcode[wanted[0]]))


def write(path, data=b"", flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o666):
    fd = os.open(path, flags, mode)
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])
    if ctx.cache == "loose":
        os.fsync(fd)
    os.close(fd)


def read(path):
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def run(*argv, **options):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    text = done.stdout.decode(errors="replace")
    true(done.returncode == 0, "%s: status %d: %s" % (" ".join(argv)[:80], done.returncode, text.strip()[-300:]))
    return text


class Agent:
    """The other process on the server's machine; see agent.py."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)))
        self.file = self.sock.makefile("rb")

    def send(self, op, **fields):
        self.sock.sendall(json.dumps(dict(fields, op=op)).encode() + b"\n")

    def answer(self, op):
        reply = json.loads(self.file.readline() or b'{"errno": 5}')
        if "errno" in reply:
            raise OSError(reply["errno"], os.strerror(reply["errno"]) + " (on the host: %s)" % op)
        return reply["value"]

    def __getattr__(self, op):
        def call(path=None, **fields):
            if path is not None:
                fields["path"] = ctx.host_path(path)
            self.send(op, **fields)
            return self.answer(op)
        return call


class Context:
    def __init__(self, args):
        self.args = args
        self.cache = args.cache
        self.client_checks = args.checks == "client"
        self.p9d = args.p9d == 1
        self.uid, self.gid, self.groups = (1000, 1000, [GROUP]) if self.client_checks else (65534, 65534, [GROUP])
        self.base = None  # the running identity's directory, relative to the mount
        self.dir = None   # the running check's directory below it
        self.user = False
        self._agent = None

    @property
    def agent(self):
        if self._agent is None:
            self._agent = Agent(self.args.agent)
        return self._agent

    def host_path(self, path):
        return os.path.join(self.dir, path)

    @property
    def other(self):
        """The same directory through another mount, that is another connection."""
        return os.path.join(self.args.other, self.dir)


def become(uid, gid, groups=()):
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


class Child:
    """A process that runs a function; with talk, over pipes: say() and hear()."""

    def __init__(self, function, identity=None):
        self.from_child, child_out = os.pipe()
        child_in, self.to_child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.from_child)
                os.close(self.to_child)
                if identity:
                    become(*identity)
                function(lambda text: os.write(child_out, text.encode() + b"\n"), lambda: os.read(child_in, 100))
                status = 0
            except BaseException as error:  # pylint: disable=broad-except
                os.write(child_out, ("!" + reason(error)).replace("\n", " ").encode() + b"\n")
            finally:
                os._exit(status)
        os.close(child_out)
        os.close(child_in)
        self.rest = b""

    def hear(self):
        while b"\n" not in self.rest:
            data = os.read(self.from_child, 4096)
            if not data:
                raise AssertionError("the child process ended without a word")
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        if line.startswith(b"!"):
            raise AssertionError("in the child process: " + line[1:].decode())
        return line.decode()

    def say(self):
        os.write(self.to_child, b"x")

    def end(self):
        os.close(self.to_child)
        _, status = os.waitpid(self.pid, 0)
        tail = self.rest
        while True:
            data = os.read(self.from_child, 4096)
            if not data:
                break
            tail += data
        os.close(self.from_child)
        at = tail.find(b"!")
        if at >= 0:
            raise AssertionError("in the child process: " + tail[at + 1:].decode(errors="replace").strip())
        eq(status, 0, "status of the child process")


def as_other(function, uid=OTHER_USER, gid=OTHER_USER, groups=()):
    Child(lambda say, hear: function(), (uid, gid, groups)).end()


def lock(fd, type, start=0, length=0, wait=False, ofd=False):
    command = (OFD_SETLKW if ofd else fcntl.F_SETLKW) if wait else (OFD_SETLK if ofd else fcntl.F_SETLK)
    fcntl.fcntl(fd, command, struct.pack(FLOCK, type, 0, start, length, 0))


def getlock(fd, type, start=0, length=0, ofd=False):
    packed = fcntl.fcntl(fd, OFD_GETLK if ofd else fcntl.F_GETLK, struct.pack(FLOCK, type, 0, start, length, 0))
    type, _, start, length, pid = struct.unpack(FLOCK, packed)
    return type, start, length, pid


R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
BUSY = (errno.EAGAIN, errno.EACCES)


# --- contents ------------------------------------------------------------------
@check
def create_and_read_back():
    data = random.Random(1).randbytes(300001)
    os.umask(0o027)
    write("f", data, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    st = os.stat("f")
    eq(stat.S_IMODE(st.st_mode), 0o640, "mode")
    eq((st.st_uid, st.st_gid), (os.getuid(), os.getgid()), "owner")
    eq(st.st_size, len(data), "size")
    eq(st.st_nlink, 1, "links")
    true(read("f") == data, "the data read back differs")
    true(ctx.agent.read("f").encode("latin1") == data, "the data on the host differs")
    fails(errno.EEXIST, os.open, "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    # Without permission to write in the mode, the creator still has his descriptor.
    fd = os.open("readonly", os.O_RDWR | os.O_CREAT, 0o444)
    os.write(fd, b"abc")
    eq(os.pread(fd, 10, 0), b"abc", "data of a file created 0444")
    os.close(fd)


@check
def append():
    write("f", b"one")
    fd = os.open("f", os.O_WRONLY | os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"two")
    os.write(fd, b"three")
    os.close(fd)
    eq(read("f"), b"onetwothree", "contents")


@check
def truncate():
    write("f", b"x" * 10000)
    os.truncate("f", 5000)
    eq(os.stat("f").st_size, 5000, "size after truncate")
    fd = os.open("f", os.O_RDWR)
    os.ftruncate(fd, 9000)
    eq(os.fstat(fd).st_size, 9000, "size after ftruncate")
    eq(os.pread(fd, 9000, 0), b"x" * 5000 + b"\0" * 4000, "contents")
    os.ftruncate(fd, 0)
    eq(os.pread(fd, 10, 0), b"", "contents after ftruncate 0")
    os.close(fd)
    write("f", b"abc")
    write("f", b"", os.O_WRONLY | os.O_TRUNC)
    eq(os.stat("f").st_size, 0, "size after O_TRUNC")
    os.mkdir("d")
    fails(errno.EISDIR, os.truncate, "d", 0)


@check
def sparse():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"end", 3 << 30)
    os.pwrite(fd, b"mid", 1 << 30)
    os.fsync(fd)
    st = os.fstat(fd)
    eq(st.st_size, (3 << 30) + 3, "size")
    blocks = ctx.agent.stat("f")["blocks"] if ctx.cache == "loose" else st.st_blocks
    true(blocks < 1000, "a sparse file has %d blocks" % blocks)
    eq(os.pread(fd, 4096, 2 << 30), b"\0" * 4096, "contents of the hole")
    eq(os.pread(fd, 10, 3 << 30), b"end", "contents of the end")
    eq(os.pread(fd, 3, 1 << 30), b"mid", "contents of the middle")
    os.close(fd)


@check
def odd_sizes_and_offsets():
    rng = random.Random(2)
    want = bytearray(3 << 20)
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, len(want))
    for _ in range(24):
        size = rng.choice([1, 511, 4095, 4097, 65535, 131073, 700001])
        at = rng.randrange(len(want) - size)
        data = rng.randbytes(size)
        eq(os.pwrite(fd, data, at), size, "bytes written")
        want[at:at + size] = data
    true(os.pread(fd, len(want), 0) == want, "one large read differs")
    for at in range(0, len(want), 99991 * 3):
        true(os.pread(fd, 99991, at) == want[at:at + 99991], "a read at %d differs" % at)
    if ctx.cache == "loose":
        os.fsync(fd)
    os.close(fd)
    true(ctx.agent.read("f").encode("latin1") == want, "the data on the host differs")


@check(cache="none")
def direct_io():
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    page = mmap.mmap(-1, 65536)
    page.write(b"direct! " * 8192)
    eq(os.pwrite(fd, page, 4096), 65536, "bytes written")
    eq(os.preadv(fd, [page], 0), 65536, "bytes read")
    eq(page[:4096] + page[4096:4104], b"\0" * 4096 + b"direct! ", "contents")
    os.close(fd)


@check
def fsync():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 5000)
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    eq(len(ctx.agent.read("f")), 5000, "size on the host")
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


@check
def mmap_private_and_exec():
    write("f", b"0123456789" * 1000)
    with open("f", "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as memory:
        eq(memory[5000:5010], b"0123456789", "mapped contents")
    shutil.copy("/bin/true", "program")
    os.chmod("program", 0o755)
    run("./program")


@check(cache="mmap loose")
def mmap_shared():
    write("f", b"a" * 20000)
    fd = os.open("f", os.O_RDWR)
    memory = mmap.mmap(fd, 20000)
    memory[4090:4100] = b"0123456789"
    memory.flush()
    eq(ctx.agent.read("f")[4088:4102], "aa0123456789aa", "contents on the host after msync")

    def child(say, _hear):
        memory[8000:8003] = b"two"
        say("done")
    process = Child(child)
    process.hear()
    process.end()
    eq(memory[8000:8003], b"two", "another process' write to shared memory")
    memory[19999] = ord("Z")
    memory.close()
    os.fsync(fd)
    os.close(fd)
    text = ctx.agent.read("f")
    eq((text[8000:8003], text[19999], len(text)), ("two", "Z", 20000), "contents on the host after munmap")
    eq(read("f")[19990:], b"a" * 9 + b"Z", "contents read again")


# --- names ---------------------------------------------------------------------
@check
def rename_over_open_file():
    write("old", b"old contents")
    write("new", b"new contents")
    fd = os.open("old", os.O_RDWR)
    os.rename("new", "old")
    eq(os.pread(fd, 100, 0), b"old contents", "contents through the open descriptor")
    os.pwrite(fd, b"OLD", 0)
    eq(os.pread(fd, 100, 0), b"OLD contents", "contents written through it")
    eq(read("old"), b"new contents", "contents by name")
    eq(os.fstat(fd).st_size, 12, "size through the open descriptor")
    os.close(fd)
    fails(errno.ENOENT, os.stat, "new")


@check
def rename_rules():
    os.mkdir("a")
    os.mkdir("b")
    write("a/f", b"f")
    write("g", b"g")
    fails((errno.ENOTEMPTY, errno.EEXIST), os.rename, "b", "a")
    fails(errno.EISDIR, os.rename, "g", "b")
    fails(errno.ENOTDIR, os.rename, "b", "g")
    fails(errno.EINVAL, os.rename, "a", "a/sub")
    fails(errno.ENOENT, os.rename, "missing", "h")
    fd = os.open("a/f", os.O_RDWR)
    os.rename("a", "b")
    eq(os.listdir("b"), ["f"], "the moved directory")
    os.rename("b/f", "h")
    os.write(fd, b"F")
    os.close(fd)
    eq(read("h"), b"F", "contents through a descriptor from before two renames")
    os.mkdir("b/c")
    os.rename("b/c", "c")
    eq(sorted(os.listdir(".")), ["b", "c", "g", "h"], "listing")


@check
def unlink_while_open():
    fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, b"before")
    os.unlink("f")
    fails(errno.ENOENT, os.stat, "f")
    failed = []

    def step(name, function):
        try:
            function()
        except (OSError, AssertionError) as error:
            failed.append("%s: %s" % (name, error))
    step("read", lambda: eq(os.pread(fd, 100, 0), b"before", "contents"))
    step("write", lambda: eq(os.pwrite(fd, b"after!", 0), 6, "bytes written"))
    step("read", lambda: eq(os.pread(fd, 100, 0), b"after!", "contents"))
    step("fstat", lambda: eq(os.fstat(fd).st_size, 6, "size"))
    if ctx.cache != "loose":
        step("fstat", lambda: eq(os.fstat(fd).st_nlink, 0, "links"))
    step("ftruncate", lambda: os.ftruncate(fd, 3))
    step("fstat", lambda: eq(os.fstat(fd).st_size, 3, "size after ftruncate"))
    step("fchmod", lambda: os.fchmod(fd, 0o600))
    step("fstat", lambda: eq(stat.S_IMODE(os.fstat(fd).st_mode), 0o600, "mode"))
    step("futimens", lambda: os.utime(fd, (5, 7)))
    step("fstat", lambda: eq(os.fstat(fd).st_mtime, 7, "mtime"))
    step("fsetxattr", lambda: os.setxattr(fd, "user.x", b"value"))
    step("fgetxattr", lambda: eq(os.getxattr(fd, "user.x"), b"value", "xattr"))
    step("fsync", lambda: os.fsync(fd))
    if not ctx.user:
        step("fchown", lambda: os.fchown(fd, 5, 6))
        step("fstat", lambda: eq((os.fstat(fd).st_uid, os.fstat(fd).st_gid), (5, 6), "owner"))
    os.close(fd)
    true(not failed, "; ".join(failed))


@check
def remove_open_directory():
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir("d")
    os.fstat(fd)
    eq(os.listdir(fd), [], "listing")
    fails(errno.ENOENT, os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)


@check
def hard_links():
    write("a", b"data")
    os.link("a", "b")
    a, b = os.stat("a"), os.stat("b")
    eq((a.st_ino, a.st_dev), (b.st_ino, b.st_dev), "inode")
    eq(ctx.agent.stat("a")["nlink"], 2, "links on the host")
    if ctx.cache != "loose":
        eq((a.st_nlink, b.st_nlink), (2, 2), "links")
    write("b", b"DATA", os.O_WRONLY)
    eq(read("a"), b"DATA", "contents through the other name")
    os.unlink("a")
    eq(read("b"), b"DATA", "contents after the first name is gone")
    os.mkdir("d")
    fails(errno.EPERM, os.link, "d", "e")
    fails(errno.EEXIST, os.link, "b", "d")


@check
def symbolic_links():
    write("file", b"data")
    os.symlink("file", "relative")
    os.symlink(os.path.abspath("file"), "absolute")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.symlink("x/" * 1500 + "y", "long")
    eq(read("relative") + read("absolute"), b"datadata", "contents through links")
    eq(os.readlink("long"), "x/" * 1500 + "y", "a target of 3001 bytes")
    eq(os.lstat("dangling").st_size, 7, "size of a link")
    fails(errno.ENOENT, read, "dangling")
    fails(errno.ELOOP, read, "loop")
    fails(errno.ELOOP, os.open, "relative", os.O_RDONLY | os.O_NOFOLLOW)
    os.utime("dangling", (1, 2), follow_symlinks=False)
    eq(os.lstat("dangling").st_mtime, 2, "mtime of a link")
    # Not followed on the server: it is the guest's /etc/hostname that this means.
    os.symlink("/proc/version", "outside")
    eq(read("outside"), read("/proc/version"), "an absolute link out of the export")
    os.unlink("relative")
    eq(read("file"), b"data", "contents after its link is removed")


@check
def errors():
    os.mkdir("d")
    write("f")
    write("d/g")
    fails(errno.ENOENT, os.open, "missing", os.O_RDONLY)
    fails(errno.ENOENT, os.open, "missing/f", os.O_CREAT | os.O_WRONLY)
    fails(errno.EEXIST, os.mkdir, "d")
    fails(errno.ENOTEMPTY, os.rmdir, "d")
    fails(errno.EISDIR, os.unlink, "d")
    fails(errno.ENOTDIR, os.rmdir, "f")
    fails(errno.EISDIR, os.open, "d", os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, "f/x", os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, "f", os.O_RDONLY | os.O_DIRECTORY)
    fails(errno.EEXIST, os.symlink, "x", "f")


@check
def long_and_strange_names():
    longest = "n" * 255
    write(longest, b"long")
    eq(read(longest), b"long", "contents")
    fails(errno.ENAMETOOLONG, os.open, "n" * 256, os.O_CREAT | os.O_WRONLY)
    fails(errno.ENAMETOOLONG, os.mkdir, "n" * 256)
    names = {b" ", b"...", b"-rf", b"new\nline", "\u00e4\u4e16\U0001f427".encode(), b"\xff\xfe not UTF-8",
             bytes(c for c in range(1, 128) if c != 47), bytes(range(128, 256)), b"\\", b"*", b"n" * 255}
    for name in names:
        write(name, name)
    eq(set(os.listdir(b".")), names, "listing")
    for name in names:
        eq(read(name), name, "contents")
    os.mkdir("d" * 255)
    os.rename(longest, "d" * 255 + "/" + "m" * 255)
    eq(os.listdir("d" * 255), ["m" * 255], "listing of a 255 byte directory")
    for name in names - {b"n" * 255}:
        os.unlink(name)


@check
def paths_near_path_max():
    name = "p" * 200
    depth = 24
    for _ in range(depth):
        os.mkdir(name)
        os.chdir(name)
    write("bottom", b"at %d bytes" % (depth * 201))
    eq(read("bottom"), b"at %d bytes" % (depth * 201), "contents below %d bytes" % (depth * 201))
    os.rename("bottom", "bottom2")
    os.mkdir("d")
    os.rename("bottom2", "d/bottom")
    eq(os.stat("d/bottom").st_size, 13, "size")
    # The longest path that one call takes: 4095 bytes.
    os.chdir(os.path.join(ctx.args.mount, ctx.dir))
    path = (name + "/") * 20
    path += "f" * (4095 - len(path))
    write(path, b"4095")
    eq(read(path), b"4095", "contents of a path of 4095 bytes")
    fails(errno.ENAMETOOLONG, os.stat, path + "f")
    os.unlink(path)
    for _ in range(depth):
        os.chdir(name)
    os.unlink("d/bottom")
    os.rmdir("d")
    for _ in range(depth):
        os.chdir("..")
        os.rmdir(name)
    eq(os.listdir("."), [], "what is left")


@check(who="root")
def deep_walk_by_another_user():
    path = "/".join("level%d" % i for i in range(40))
    os.makedirs(path)
    write(path + "/f", b"deep")
    as_other(lambda: eq(read(path + "/f"), b"deep", "contents"))

    def inside():
        os.chdir(path)
        eq(read("f"), b"deep", "contents")
    as_other(inside)


# --- attributes ------------------------------------------------------------------
@check
def chmod():
    write("f")
    os.mkdir("d")
    for mode in 0o0, 0o400, 0o755, 0o4711, 0o2755, 0o6777, 0o1644, 0o7777:
        os.chmod("f", mode)
        eq(mode_of("f"), mode, "file's mode")
        eq(ctx.agent.stat("f")["mode"] & 0o7777, mode, "file's mode on the host")
    for mode in 0o700, 0o1777, 0o2775, 0o3771:
        os.chmod("d", mode)
        eq(mode_of("d"), mode, "directory's mode")
    fd = os.open("d", os.O_RDONLY)
    os.fchmod(fd, 0o750)
    eq(stat.S_IMODE(os.fstat(fd).st_mode), 0o750, "directory's mode")
    os.close(fd)


@check(who="root")
def chown():
    write("f")
    os.mkdir("d")
    os.symlink("f", "l")
    for path in "f", "d", "l":
        os.lchown(path, 12345, 54321)
        st = os.lstat(path)
        eq((st.st_uid, st.st_gid), (12345, 54321), "owner of " + path)
        st = ctx.agent.stat(path)
        eq((st["uid"], st["gid"]), (12345, 54321), "owner on the host of " + path)
    os.chown("f", -1, 7)
    eq((os.stat("f").st_uid, os.stat("f").st_gid), (12345, 7), "owner")
    os.chmod("f", 0o6755)
    os.chown("f", 8, -1)
    eq(mode_of("f"), 0o755, "after chown, mode")


@check(who="user")
def chown_by_ordinary_user():
    write("f")
    os.chown("f", os.getuid(), os.getgid())
    fails(errno.EPERM, os.chown, "f", OTHER_USER, -1)
    fails(errno.EPERM, os.chown, "f", -1, FOREIGN_GROUP)
    fails(errno.EPERM, os.chown, "f", -1, 0)
    if ctx.client_checks:
        # The guest knows that the user is in GROUP, the host does not.
        os.chown("f", -1, GROUP)
        eq(os.stat("f").st_gid, GROUP, "group")
        os.chown("f", -1, os.getgid())
        os.chmod("f", 0o6755)
        os.chown("f", -1, GROUP)
        eq(mode_of("f"), 0o755, "after chgrp, mode")
    elif ctx.p9d:
        fails(errno.EPERM, os.chown, "f", -1, GROUP)


@check(who="user", needs="client")
def set_group_id_by_member_only():
    write("mine")
    os.chown("mine", -1, GROUP)
    os.chmod("mine", 0o2755)
    eq(mode_of("mine"), 0o2755, "with the user in the group, mode")


@check(who="root")
def permissions():
    write("secret", b"x")
    os.chmod("secret", 0o600)
    write("shared", b"x")
    os.chown("shared", 0, GROUP)
    os.chmod("shared", 0o660)
    os.mkdir("closed", 0o700)
    write("closed/f", b"x")
    os.chmod(".", 0o755)

    def stranger():
        fails(errno.EACCES, os.open, "secret", os.O_RDONLY)
        fails(errno.EACCES, os.open, "shared", os.O_RDONLY)
        fails(errno.EACCES, os.open, "closed/f", os.O_RDONLY)
        fails(errno.EACCES, os.listdir, "closed")
        fails(errno.EACCES, os.open, "new", os.O_CREAT | os.O_WRONLY)
        fails(errno.EACCES, os.mkdir, "new")
        fails(errno.EACCES, os.unlink, "secret")
        fails(errno.EPERM, os.chmod, "secret", 0o777)
        fails(errno.EPERM, os.utime, "secret", ns=(1, 1))
        fails(errno.EACCES, os.truncate, "secret", 0)
        fails(errno.EACCES, os.rename, "secret", "public")
    as_other(stranger)

    def member():
        if ctx.client_checks:
            write("shared", b"member", os.O_RDWR)
        else:
            fails(errno.EACCES, os.open, "shared", os.O_RDWR)
    if ctx.client_checks or ctx.p9d:
        as_other(member, groups=[GROUP])
    eq(read("secret"), b"x", "contents")


@check
def utimens():
    def times(path="f"):
        return os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns

    def near(got, want, what):
        """Linux' 9P client cuts the times it sets to whole seconds (seen with 6.1)."""
        if got != tuple(ns // 10**9 * 10**9 for ns in want):
            eq(got, want, what)
    write("f")
    for want in (1234567890123456789, 987654321987654321), (4102444800000000001, 4102444800999999999), (0, 1):
        os.utime("f", ns=want)
        near(times(), want, "times")
        st = ctx.agent.stat("f")
        near((st["atime"], st["mtime"]), want, "times on the host")
    if ctx.cache != "loose":
        want = (1234567890123456789, 987654321987654321)
        ctx.agent.utime("f", times=want)
        eq(times(), want, "times set on the host, with nanoseconds")
        # UTIME_OMIT for the first
        libc.utimensat(-100, b"f", struct.pack("4q", 0, 0x3ffffffe, 77, 0), 0)
        eq(times(), (want[0], 77000000000), "times after UTIME_OMIT")
    os.utime("f")
    true(abs(os.stat("f").st_mtime - time.time()) < 20, "UTIME_NOW is not now: %s" % os.stat("f").st_mtime)
    before = os.stat("f")
    time.sleep(0.02)
    write("f", b"changed", os.O_WRONLY)
    true(os.stat("f").st_mtime_ns > before.st_mtime_ns or ctx.cache == "loose", "mtime did not move with a write")
    os.mkdir("d")
    os.utime("d", (1, 2))
    eq(os.stat("d").st_mtime, 2, "directory's mtime")
    write("d/f")
    true(os.stat("d").st_mtime > 2 or ctx.cache == "loose", "a directory's mtime did not move with a create")


@check(who="root", cache="none mmap")
def privilege_bits_clear_on_write():
    user = (ctx.uid, ctx.gid, ctx.groups)

    def prepare(mode):
        write("f", b"x" * 10)
        os.chown("f", ctx.uid, ctx.gid)
        os.chmod("f", mode)
        eq(mode_of("f"), mode, "before, mode")

    def by_write():
        fd = os.open("f", os.O_WRONLY)
        os.write(fd, b"y")
        eq(stat.S_IMODE(os.fstat(fd).st_mode), 0o755, "through the descriptor, after write by its owner, mode")
        os.close(fd)

    def by_ftruncate():
        fd = os.open("f", os.O_WRONLY)
        os.ftruncate(fd, 3)
        os.close(fd)
    os.chmod(".", 0o755)
    prepare(0o6755)
    as_other(by_write, *user)
    eq(mode_of("f"), 0o755, "after write by its owner, mode")
    eq(ctx.agent.stat("f")["mode"] & 0o7777, 0o755, "on the host after write by its owner, mode")
    prepare(0o6755)
    as_other(by_ftruncate, *user)
    eq(mode_of("f"), 0o755, "after ftruncate by its owner, mode")
    prepare(0o6755)
    as_other(lambda: os.truncate("f", 3), *user)
    eq(mode_of("f"), 0o755, "after truncate by its owner, mode")
    prepare(0o4777)
    as_other(lambda: write("f", b"z", os.O_WRONLY))
    eq(mode_of("f"), 0o777, "after write by a stranger, mode")
    # File capabilities go too.
    prepare(0o755)
    ctx.agent.setxattr("f", name="security.capability",
                       value=struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0).decode("latin1"))
    as_other(lambda: write("f", b"z", os.O_WRONLY), *user)
    fails(errno.ENODATA, ctx.agent.getxattr, "f", name="security.capability")


@check(who="root")
def sticky_directory():
    user = (ctx.uid, ctx.gid, ctx.groups)
    os.chmod(".", 0o755)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    as_other(lambda: write("sticky/f", b"mine"), *user)

    def stranger():
        fails(errno.EPERM, os.rename, "sticky/f", "sticky/g")
        fails(errno.EPERM, os.unlink, "sticky/f")
        write("sticky/own", b"x")
        fails(errno.EPERM, os.rename, "sticky/own", "sticky/f")
    as_other(stranger)
    as_other(lambda: os.rename("sticky/f", "sticky/g"), *user)
    # The owner of a sticky directory may remove what others made in it.
    os.chown("sticky", ctx.uid, ctx.gid)
    as_other(lambda: os.rename("sticky/own", "sticky/taken"), *user)
    as_other(lambda: os.unlink("sticky/taken"), *user)


@check(who="root")
def group_inheritance():
    os.mkdir("sgid")
    os.chown("sgid", ctx.uid, FOREIGN_GROUP)
    os.chmod("sgid", 0o2777)
    os.chmod(".", 0o755)

    def make():
        os.umask(0o022)
        write("sgid/f")
        os.mkdir("sgid/d")
        os.mkdir("sgid/d/e")
        os.symlink("x", "sgid/l")
        os.mkfifo("sgid/p")
    as_other(make, ctx.uid, ctx.gid, ctx.groups)
    for name in "f", "d", "d/e", "l", "p":
        st = os.lstat("sgid/" + name)
        eq((st.st_uid, st.st_gid), (ctx.uid, FOREIGN_GROUP), "owner of " + name)
    eq(mode_of("sgid/d"), 0o2755, "directory's mode")
    eq(mode_of("sgid/d/e"), 0o2755, "directory's directory's mode")
    eq(mode_of("sgid/f"), 0o644, "file's mode")
    os.mkdir("plain")
    os.chown("plain", ctx.uid, FOREIGN_GROUP)
    os.chmod("plain", 0o777)
    as_other(lambda: write("plain/f"), ctx.uid, ctx.gid, ctx.groups)
    eq(os.stat("plain/f").st_gid, ctx.gid, "group in a directory without the bit")


@check
def extended_attributes():
    write("f")
    os.mkdir("d")
    for path in "f", "d":
        os.setxattr(path, "user.one", b"1")
        os.setxattr(path, "user.large", b"L" * 2000)
        eq(os.getxattr(path, "user.one"), b"1", "value")
        eq(os.getxattr(path, "user.large"), b"L" * 2000, "large value")
        names = {n for n in os.listxattr(path) if n.startswith("user.")}
        eq(names, {"user.one", "user.large"}, "list")
        fails(errno.EEXIST, os.setxattr, path, "user.one", b"2", os.XATTR_CREATE)
        fails(errno.ENODATA, os.setxattr, path, "user.two", b"2", os.XATTR_REPLACE)
        os.setxattr(path, "user.one", b"11", os.XATTR_REPLACE)
        eq(os.getxattr(path, "user.one"), b"11", "replaced value")
        os.removexattr(path, "user.one")
        fails(errno.ENODATA, os.getxattr, path, "user.one")
        fails(errno.ENODATA, os.removexattr, path, "user.one")
    eq(ctx.agent.getxattr("f", name="user.large"), "L" * 2000, "value on the host")
    os.setxattr("f", "user.bytes", bytes(range(256)))
    eq(os.getxattr("f", "user.bytes"), bytes(range(256)), "value of all bytes")
    fails(errno.EOPNOTSUPP, os.setxattr, "f", "nonsense.x", b"")
    os.symlink("f", "l")
    fails(errno.EPERM, os.setxattr, "l", "user.x", b"1", follow_symlinks=False)
    if not ctx.user and ctx.p9d:
        # These belong to the host's administrator, unless the export says otherwise.
        fails((errno.EOPNOTSUPP, errno.EPERM), os.setxattr, "f", "trusted.x", b"t")


@check
def extended_attributes_of_length_0():
    # The client sends a removal in the same way, but with XATTR_REPLACE.
    write("f")
    os.setxattr("f", "user.empty", b"")
    eq(os.getxattr("f", "user.empty"), b"", "value")
    eq([n for n in os.listxattr("f") if n.startswith("user.")], ["user.empty"], "list")
    os.removexattr("f", "user.empty")
    fails(errno.ENODATA, os.getxattr, "f", "user.empty")


@check(who="root", needs="acl")
def posix_acl():
    def entries(path, *more):
        return run("getfacl", "-ncE", *more, path).split()
    os.chmod(".", 0o755)
    write("f", b"data")
    os.chmod("f", 0o640)
    run("setfacl", "-m", "u:%d:rw,g:%d:r" % (OTHER_USER, GROUP), "f")
    eq(entries("f"), ["user::rw-", "user:%d:rw-" % OTHER_USER, "group::r--", "group:%d:r--" % GROUP,
                      "mask::rw-", "other::---"], "entries")
    eq(mode_of("f"), 0o660, "file's mode")
    true(len(ctx.agent.getxattr("f", name="system.posix_acl_access")) > 40, "no ACL on the host")
    as_other(lambda: write("f", b"DATA", os.O_WRONLY))
    as_other(lambda: fails(errno.EACCES, os.open, "f", os.O_RDONLY), 2, 2)
    os.chmod("f", 0o600)
    eq([e for e in entries("f") if e.startswith("mask")], ["mask::---"], "mask after chmod")
    as_other(lambda: fails(errno.EACCES, os.open, "f", os.O_RDONLY))
    os.chmod("f", 0o640)
    run("setfacl", "-b", "f")
    eq(entries("f"), ["user::rw-", "group::r--", "other::---"], "entries after removal")
    fails(errno.ENODATA, ctx.agent.getxattr, "f", name="system.posix_acl_access")
    os.mkdir("d", 0o755)
    run("setfacl", "-d", "-m", "u:%d:rwx" % OTHER_USER, "d")
    eq(entries("d", "-d"), ["user::rwx", "user:%d:rwx" % OTHER_USER, "group::r-x", "mask::rwx", "other::r-x"],
       "default entries")
    os.umask(0o077)
    write("d/f", b"x")
    eq(entries("d/f")[1], "user:%d:rwx" % OTHER_USER, "inherited entry")
    eq(mode_of("d/f"), 0o664, "with a default ACL, mode")
    os.mkdir("d/e")
    eq(entries("d/e", "-d")[1], "user:%d:rwx" % OTHER_USER, "inherited default entry")
    run("setfacl", "-k", "d")
    eq(entries("d", "-d"), [], "default entries after removal")


@check
def statfs():
    here, there = os.statvfs("."), ctx.agent.statvfs(".")
    total = there["blocks"] * there["frsize"]
    true(abs(here.f_blocks * here.f_frsize - total) <= total / 1000, "bytes in all: expected %d, got %d" % (
        total, here.f_blocks * here.f_frsize))
    eq(here.f_files, there["files"], "inodes")
    eq(here.f_namemax, there["namemax"], "longest name")
    true(abs(here.f_bfree * here.f_frsize - there["bfree"] * there["frsize"]) < 1 << 30, "free bytes differ by 1 GiB")
    eq(len(run("df", "-k", ".").splitlines()), 2, "lines of df")


@check
def size_and_blocks():
    write("f", b"x" * 123457)
    fd = os.open("f", os.O_RDONLY)
    os.fsync(fd)
    st, host = os.fstat(fd), ctx.agent.stat("f")
    os.close(fd)
    eq(st.st_size, host["size"], "size")
    true(st.st_blocks in (host["blocks"], 0) or abs(st.st_blocks - host["blocks"]) < 300,
         "blocks: %d here, %d there" % (st.st_blocks, host["blocks"]))


# --- directories -----------------------------------------------------------------
@check
def directory_made_and_removed_here():
    names = {"entry %04d" % i for i in range(COUNT)}
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    listed = os.listdir(".")
    eq(len(listed), COUNT, "entries")
    eq(set(listed), names, "listing")
    with os.scandir(".") as entries:
        eq(sum(entry.is_file() for entry in entries), COUNT, "regular files by d_type")
    # Removing while listing, as rm -r does: nothing may be skipped.
    with os.scandir(".") as entries:
        for entry in entries:
            os.unlink(entry.name)
    eq(os.listdir("."), [], "left over")


@check
def directory_of_20000():
    names = {"entry %05d" % i for i in range(20000)}
    if ctx.args.long:
        for name in names:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        eq(ctx.agent.count("."), 20000, "entries on the host")
    else:
        ctx.agent.make(".", names=sorted(names))
    listed = os.listdir(".")
    eq(len(listed), 20000, "entries")
    eq(set(listed), names, "listing")
    eq(int(run("sh", "-c", "ls -f | wc -l")), 20002, "lines of ls -f")
    os.rename("entry 19999", "renamed")
    os.unlink("entry 10000")
    eq(os.path.exists("entry 19999"), False, "the old name")
    eq(set(os.listdir(".")), (names | {"renamed"}) - {"entry 19999", "entry 10000"}, "listing after a rename")
    ctx.agent.empty(".")


@check(who="root", cache="none mmap")
def listing_while_others_create_and_remove():
    os.mkdir("d")
    names = {"stay%04d" % i for i in range(600)}
    ctx.agent.make("d", names=sorted(names))
    second = Agent(ctx.args.agent)
    second.send("churn", path=ctx.host_path("d"), count=6000)
    for _ in range(12):
        listed = [name for name in os.listdir("d") if name.startswith("stay")]
        eq(len(listed), len(set(listed)), "number of different names")
        eq(set(listed), names, "untouched names")
    second.answer("churn")


@check(cache="none mmap")
def rename_of_a_directory_on_the_host():
    os.makedirs("d/sub")
    write("d/sub/f", b"data")
    write("d/sub/held", b"held")
    fd = os.open("d/sub/held", os.O_RDWR)
    os.chdir("d/sub")
    os.stat("f")
    ctx.agent.rename(old=ctx.host_path("d"), new=ctx.host_path("moved"))
    write("new", b"made inside")
    eq(ctx.agent.read("moved/sub/new"), "made inside", "contents on the host")
    eq(read("f"), b"data", "contents by name")
    eq(sorted(os.listdir(".")), ["f", "held", "new"], "listing")
    eq(os.pread(fd, 10, 0), b"held", "contents through a descriptor")
    os.ftruncate(fd, 2)
    os.mkdir("dir")
    os.rename("f", "dir/g")
    eq(ctx.agent.read("moved/sub/dir/g"), "data", "contents on the host")
    eq(ctx.agent.stat("moved/sub/held")["size"], 2, "size on the host")
    os.close(fd)


@check(cache="none mmap")
def changes_on_the_host_are_seen():
    write("f", b"one")
    ctx.agent.write("f", data="from the host")
    eq(read("f"), b"from the host", "contents")
    eq(os.stat("f").st_size, 13, "size")
    ctx.agent.chmod("f", mode=0o600)
    eq(mode_of("f"), 0o600, "mode")
    ctx.agent.rename(old=ctx.host_path("f"), new=ctx.host_path("g"))
    fails(errno.ENOENT, os.stat, "f")
    true(os.path.exists("g"), "the new name is not there")
    ctx.agent.unlink("g")
    fails(errno.ENOENT, os.stat, "g")
    ctx.agent.write("g", data="again")
    eq(os.listdir("."), ["g"], "listing")


@check(needs="other", cache="none mmap")
def two_mounts():
    write("f", b"through one")
    eq(read(ctx.other + "/f"), b"through one", "contents through the other mount")
    fd = os.open("f", os.O_RDWR)
    os.rename(ctx.other + "/f", ctx.other + "/g")
    os.pwrite(fd, b"THROUGH", 0)
    eq(read(ctx.other + "/g"), b"THROUGH one", "contents after a rename through the other mount")
    os.unlink(ctx.other + "/g")
    eq(os.pread(fd, 100, 0), b"THROUGH one", "contents after an unlink through the other mount")
    eq(os.fstat(fd).st_nlink, 0, "links")
    os.close(fd)


# --- special files -----------------------------------------------------------------
@check
def fifos():
    os.mkfifo("p", 0o644)
    true(stat.S_ISFIFO(os.stat("p").st_mode), "not a FIFO here")
    eq(ctx.agent.kind("p"), "p", "kind on the host")

    def writer(_say, _hear):
        fd = os.open("p", os.O_WRONLY)
        os.write(fd, b"through the pipe")
        os.close(fd)
    process = Child(writer)
    fd = os.open("p", os.O_RDONLY)
    data = b""
    while True:
        more = os.read(fd, 100)
        if not more:
            break
        data += more
    os.close(fd)
    process.end()
    eq(data, b"through the pipe", "data")
    os.unlink("p")


@check
def unix_sockets():
    server = socket.socket(socket.AF_UNIX)
    server.bind("s")
    server.listen()
    true(stat.S_ISSOCK(os.stat("s").st_mode), "not a socket here")
    eq(ctx.agent.kind("s"), "s", "kind on the host")

    def client(_say, _hear):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("s")
            sock.sendall(b"hello")
    process = Child(client)
    connection, _ = server.accept()
    eq(connection.recv(100), b"hello", "data")
    process.end()
    os.unlink("s")


@check(who="root")
def device_nodes_are_refused():
    if not ctx.p9d:
        raise Skip
    fails(errno.EPERM, os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    fails(errno.EPERM, os.mknod, "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    os.mknod("regular", stat.S_IFREG | 0o640)
    eq(os.stat("regular").st_size, 0, "size")


# --- locks ---------------------------------------------------------------------------
@check(cache="none mmap")
def locks_of_two_processes():
    write("f", b"x" * 100)

    def child(say, hear):
        fd = os.open("f", os.O_RDWR)
        hear()
        fails(BUSY, lock, fd, W, 0, 10)
        fails(BUSY, lock, fd, R, 5, 10)
        eq(getlock(fd, W, 0, 0)[:3], (W, 0, 10), "the lock in the way")
        eq(getlock(fd, W, 0, 0)[3], os.getppid(), "its holder")
        lock(fd, W, 10, 10)
        lock(fd, R, 30, 10)
        say("locked")
        hear()
        lock(fd, W, 0, 10)
        say("locked")
        hear()
    process = Child(child)
    fd = os.open("f", os.O_RDWR)
    lock(fd, W, 0, 10)
    process.say()
    eq(process.hear(), "locked", "answer")
    fails(BUSY, lock, fd, W, 5, 10)
    lock(fd, R, 30, 10)
    eq(getlock(fd, W, 15, 1)[:3], (W, 10, 10), "the lock in the way")
    lock(fd, U, 0, 10)
    process.say()
    eq(process.hear(), "locked", "answer")
    fails(BUSY, lock, fd, R, 0, 10)
    process.say()
    process.end()
    lock(fd, W, 0, 0)  # all of it: the other's end released his
    # A second descriptor of one process does not conflict; closing it releases, as POSIX has it.
    second = os.open("f", os.O_RDWR)
    lock(second, W, 0, 0)
    os.close(second)
    as_child = Child(lambda say, hear: lock(os.open("f", os.O_RDWR), W, 0, 0))
    as_child.end()
    os.close(fd)


@check(needs="other", cache="none mmap")
def locks_of_two_mounts():
    write("f", b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    lock(fd, W, 10, 10)

    def child(say, hear):
        other = os.open(ctx.other + "/f", os.O_RDWR)
        fails(BUSY, lock, other, W, 15, 1)
        eq(getlock(other, W)[:3], (W, 10, 10), "the lock in the way")
        lock(other, R, 0, 10)
        say("wait")
        lock(other, W, 10, 10, wait=True)
        say("granted")
        hear()
    process = Child(child)
    eq(process.hear(), "wait", "answer")
    fails(BUSY, lock, fd, W, 0, 5)
    lock(fd, R, 0, 5)
    time.sleep(0.5)
    began = time.monotonic()
    lock(fd, U, 10, 10)
    eq(process.hear(), "granted", "answer")
    true(time.monotonic() - began < 15, "granted only after %.1f s" % (time.monotonic() - began))
    fails(BUSY, lock, fd, W, 10, 1)
    process.say()
    process.end()
    lock(fd, W, 0, 0)
    os.close(fd)


@check(cache="none mmap")
def locks_of_guest_and_host():
    write("f", b"x" * 100)
    os.chmod("f", 0o666)
    fd = os.open("f", os.O_RDWR)
    for kind in "posix", "ofd":
        eq(ctx.agent.getlock("f", kind=kind, type="w"), None, "a lock seen on the host (%s)" % kind)
        lock(fd, W, 20, 5)
        eq(ctx.agent.getlock("f", kind=kind, type="w"), ["w", 20, 5], "our lock seen on the host (%s)" % kind)
        fails(errno.EAGAIN, ctx.agent.lock, "f", kind=kind, type="r", start=24, len=1)
        ctx.agent.lock("f", kind=kind, type="w", start=0, len=10)
        fails(BUSY, lock, fd, R, 5, 1)
        eq(getlock(fd, R)[:3], (W, 0, 10), "the host's lock seen here (%s)" % kind)
        ctx.agent.unlock()
        lock(fd, W, 0, 10)
        lock(fd, U)
        ctx.agent.lock("f", kind=kind, type="r", start=0, len=10)
        lock(fd, R, 0, 10)
        fails(BUSY, lock, fd, W, 0, 10)
        lock(fd, U)
        ctx.agent.unlock()
    lock(fd, W)
    os.close(fd)
    eq(ctx.agent.getlock("f", kind="ofd", type="w"), None, "a lock left after close")


@check(cache="none mmap")
def blocking_lock_is_granted_on_release():
    write("f", b"x" * 100)
    os.chmod("f", 0o666)
    fd = os.open("f", os.O_RDWR)
    for kind in "posix", "ofd":
        ctx.agent.lock("f", kind=kind, type="w", unlock_after=1)
        began = time.monotonic()
        lock(fd, W, wait=True)
        waited = time.monotonic() - began
        true(0.3 < waited < 15, "held for 1 s on the host (%s), granted after %.1f s" % (kind, waited))
        lock(fd, U)
    lock(fd, W)

    def child(say, _hear):
        mine = os.open("f", os.O_RDWR)
        say("wait")
        lock(mine, W, wait=True)
        say("granted")
    process = Child(child)
    eq(process.hear(), "wait", "answer")
    time.sleep(0.3)
    began = time.monotonic()
    lock(fd, U)
    eq(process.hear(), "granted", "answer")
    true(time.monotonic() - began < 15, "granted in the guest only after %.1f s" % (time.monotonic() - began))
    process.end()
    os.close(fd)


@check(cache="none mmap")
def killed_waiter_leaves_no_lock():
    write("f", b"x" * 100)
    os.chmod("f", 0o666)
    ctx.agent.lock("f", kind="ofd", type="w")

    def child(say, _hear):
        mine = os.open("f", os.O_RDWR)
        say("wait")
        lock(mine, W, wait=True)
    process = Child(child)
    eq(process.hear(), "wait", "answer")
    time.sleep(0.7)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    true(time.monotonic() - began < 5, "ended only %.1f s after SIGKILL" % (time.monotonic() - began))
    ctx.agent.unlock()
    time.sleep(0.3)
    eq(ctx.agent.getlock("f", kind="ofd", type="w"), None, "a lock left behind")


@check(cache="none mmap")
def locks_of_open_file_descriptions():
    write("f", b"x" * 100)
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    lock(one, W, 0, 10, ofd=True)
    fails(BUSY, lock, two, W, 0, 10, ofd=True)
    lock(two, W, 10, 10, ofd=True)
    eq(getlock(two, W, 0, 10, ofd=True)[:3], (W, 0, 10), "the lock in the way")
    os.close(one)
    lock(two, W, 0, 10, ofd=True)
    os.close(two)


@check(cache="none mmap")
def flock():
    write("f")
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    fcntl.flock(one, fcntl.LOCK_SH)
    fcntl.flock(two, fcntl.LOCK_SH)
    fails(BUSY, fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(two, fcntl.LOCK_UN)
    fcntl.flock(one, fcntl.LOCK_EX)
    fails(BUSY, fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(one)
    fcntl.flock(two, fcntl.LOCK_EX)
    os.close(two)


@check(cache="none mmap")
def sqlite_of_two_processes():
    database = sqlite3.connect("db", timeout=60)
    database.execute("create table counter (n integer)")
    database.execute("insert into counter values (0)")
    database.commit()
    database.close()

    def count(say, _hear):
        mine = sqlite3.connect("db", timeout=60)
        mine.execute("pragma synchronous = off")
        for _ in range(8):
            with mine:
                mine.execute("begin immediate")
                (n,) = mine.execute("select n from counter").fetchone()
                mine.execute("update counter set n = ?", (n + 1,))
        mine.close()
        say("done")
    processes = [Child(count) for _ in range(2)]
    for process in processes:
        eq(process.hear(), "done", "answer")
        process.end()
    database = sqlite3.connect("db")
    eq(database.execute("select n from counter").fetchone(), (16,), "counter")
    eq(database.execute("pragma integrity_check").fetchone(), ("ok",), "integrity")


# --- races -----------------------------------------------------------------------------
@check(cache="none mmap")
def append_from_two_processes():
    write("f")
    os.chmod("f", 0o666)

    def appender(letter):
        def child(_say, hear):
            fd = os.open("f", os.O_WRONLY | os.O_APPEND)
            hear()
            for i in range(200):
                os.write(fd, b"%c%05d\n" % (letter, i))
        return child
    processes = [Child(appender(letter)) for letter in b"AB"]
    second = Agent(ctx.args.agent)
    for process in processes:
        process.say()
    second.send("append", path=ctx.host_path("f"), line="H00000\n", count=200)
    for process in processes:
        process.end()
    second.answer("append")
    lines = read("f").split(b"\n")
    eq(lines.pop(), b"", "the last line")
    for letter in b"AB":
        eq([line for line in lines if line[:1] == b"%c" % letter], [b"%c%05d" % (letter, i) for i in range(200)],
           "lines of one process")
    eq(len(lines), 600, "lines with the host's")


@check
def exclusive_create_race():
    rounds = 25

    def racer(say, hear):
        hear()
        won = 0
        for i in range(rounds):
            try:
                os.close(os.open("race%d" % i, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                won += 1
            except FileExistsError:
                pass
            try:
                os.mkdir("dir%d" % i)
                won += 1
            except FileExistsError:
                pass
        say(str(won))
    processes = [Child(racer) for _ in range(4)]
    for process in processes:
        process.say()
    won = sum(int(process.hear()) for process in processes)
    for process in processes:
        process.end()
    eq(won, 2 * rounds, "winners")


@check(cache="none mmap")
def rename_race():
    """A name that is replaced by rename all the time is always there, with whole contents."""
    write("target", b"A" * 1000)

    def replacer(_say, hear):
        hear()
        for i in range(150):
            write("temporary", b"%c" % (65 + i % 26) * 1000)
            os.rename("temporary", "target")
    process = Child(replacer)
    process.say()
    missing = 0
    for _ in range(150):
        try:
            data = read("target")
        except FileNotFoundError:
            missing += 1
            continue
        true(len(data) == 1000 and len(set(data)) == 1, "contents are torn: %d bytes" % len(data))
    process.end()
    eq(missing, 0, "times that the name was missing")


@check
def copy_of_a_tree():
    os.mkdir("source")
    names = [n for n in sorted(os.listdir("/etc")) if os.path.isfile("/etc/" + n)][:25] + ["passwd"]
    for name in names:
        if os.access("/etc/" + name, os.R_OK):
            shutil.copy("/etc/" + name, "source/" + name)
    os.symlink("passwd", "source/link")
    os.makedirs("source/a/b/c")
    write("source/a/b/c/f", b"x")
    run("cp", "-a", "source", "copy")
    run("diff", "-r", "source", "copy")
    run("tar", "-cf", "archive.tar", "copy")
    os.mkdir("unpacked")
    run("tar", "-xf", "archive.tar", "-C", "unpacked")
    run("diff", "-r", "source", "unpacked/copy")
    eq(int(os.stat("copy/passwd").st_mtime), int(os.stat("source/passwd").st_mtime), "mtime of a copy")
    run("rm", "-r", "source", "copy", "unpacked")


# --- other exports ---------------------------------------------------------------------
@check(who="root", needs="squash")
def root_is_squashed():
    ctx.agent.mkdir("open", mode=0o777)
    write("open/f", b"x")
    st = ctx.agent.stat("open/f")
    eq((st["uid"], st["gid"]), (65534, 65534), "owner on the host")
    ctx.agent.write("secret", data="x")
    ctx.agent.chmod("secret", mode=0o600)
    fails(errno.EACCES, os.open, "secret", os.O_RDONLY)
    fails((errno.EACCES, errno.EPERM), os.chown, "open/f", 0, 0)
    fails((errno.EACCES, errno.EPERM), os.chmod, "secret", 0o666)
    fails(errno.EACCES, os.mkdir, "d")


@check(who="root", needs="readonly")
def export_is_read_only():
    ctx.agent.write("f", data="data")
    eq(read("f"), b"data", "contents")
    eq(os.listdir("."), ["f"], "listing")
    fails(errno.EROFS, os.open, "f", os.O_WRONLY)
    fails(errno.EROFS, os.open, "f", os.O_RDONLY | os.O_TRUNC)
    fails(errno.EROFS, os.open, "new", os.O_CREAT | os.O_WRONLY)
    fails(errno.EROFS, os.mkdir, "d")
    fails(errno.EROFS, os.unlink, "f")
    fails(errno.EROFS, os.rename, "f", "g")
    fails(errno.EROFS, os.link, "f", "g")
    fails(errno.EROFS, os.symlink, "f", "g")
    fails(errno.EROFS, os.chmod, "f", 0o777)
    fails(errno.EROFS, os.chown, "f", 1, 1)
    fails(errno.EROFS, os.utime, "f")
    fails(errno.EROFS, os.truncate, "f", 0)
    fails(errno.EROFS, os.setxattr, "f", "user.x", b"1")
    fails(errno.EROFS, os.mkfifo, "p")
    eq(ctx.agent.stat("f")["size"], 4, "size on the host")


# --- running them ------------------------------------------------------------------------
def reason(error):
    if isinstance(error, AssertionError):
        return str(error)
    where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
    # The deepest line in a check itself, not in the helpers above.
    lines = [frame.lineno for frame in where if frame.lineno > FIRST_CHECK]
    return "%s: %s (line %s)" % (type(error).__name__, error, lines[-1] if lines else "?")


# What the other cache options cannot change, or what is too slow to repeat.
ONCE = (sparse, rename_rules, errors, long_and_strange_names, paths_near_path_max, deep_walk_by_another_user,
        statfs, size_and_blocks, directory_of_20000, directory_made_and_removed_here, fifos, unix_sockets, flock,
        device_nodes_are_refused, locks_of_open_file_descriptions, sqlite_of_two_processes,
        exclusive_create_race, rename_race, copy_of_a_tree, extended_attributes_of_length_0,
        listing_while_others_create_and_remove, blocking_lock_is_granted_on_release)
FIRST_CHECK = create_and_read_back.__code__.co_firstlineno


def run_one(function, name):
    """In a process of its own, which leads a group, so that all of it can be ended."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = ""
        try:
            os.close(out)
            os.setpgid(0, 0)
            os.umask(0o022)
            if ctx.user:
                become(ctx.uid, ctx.gid, ctx.groups)
            os.chdir(os.path.join(ctx.args.mount, ctx.dir))
            function()
            text = "ok"
        except Skip:
            text = "skip"
        except BaseException as error:  # pylint: disable=broad-except
            text = "!" + reason(error)
        finally:
            os.write(into, text.encode(errors="replace"))
            os._exit(0)
    os.close(into)
    began = time.monotonic()
    limit = LIMIT * 4 if ctx.args.long else LIMIT
    text = b""
    while True:
        ready, _, _ = select.select([out], [], [], max(0, began + limit - time.monotonic()))
        data = os.read(out, 65536) if ready else b""
        text += data
        if not data:
            break
    os.close(out)
    spent = time.monotonic() - began
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        print("not ok %s/%s: %s: cannot even be killed" % (ctx.args.label, "user" if ctx.user else "root", name))
        sys.exit(1)
    text = text.decode(errors="replace").replace("\n", "\\n")
    label = "%s/%s: %s" % (ctx.args.label, "user" if ctx.user else "root", name)
    if text == "ok":
        print("ok " + label + (" # %.1f s" % spent if spent > 1.5 else ""), flush=True)
    elif text != "skip":
        why = text[1:] or ("no end after %d seconds" % limit if spent >= limit else "its process was killed")
        print("not ok %s: %s%s" % (label, why, " (after %.0f s)" % spent if spent > 1.5 else ""), flush=True)


def main():
    args = ctx.args
    has = {"other": bool(args.other), "acl": args.acl, "squash": args.squash,
           "readonly": args.readonly, "client": ctx.client_checks}
    special = args.acl or args.squash or args.readonly
    for who in "root", "user":
        ctx.user = who == "user"
        ctx.dir = ctx.base = "%s-%s" % (args.label.replace("/", "-"), who)
        uid, gid = (ctx.uid, ctx.gid) if ctx.user else (0, 0)
        ctx.dir = ""
        ctx.agent.mkdir(ctx.base, mode=0o755, uid=uid, gid=gid)
        for function, whom, caches, needs in checks:
            name = function.__name__.replace("_", " ")
            if who not in whom or ctx.cache not in caches or not all(has[need] for need in needs):
                continue
            if args.long and ctx.user or args.short and function in ONCE:
                continue
            if args.only and args.only not in name:
                continue
            if special and not any(need in ("acl", "squash", "readonly") for need in needs):
                continue
            ctx.dir = ""
            path = ctx.base + "/" + function.__name__
            ctx.agent.mkdir(path, mode=0o755, uid=uid, gid=gid)
            ctx.dir = path
            run_one(function, name)
            if not args.readonly and not args.squash:
                remove(function.__name__, name)
        ctx.dir = ""
        ctx.agent.rmtree(ctx.base)


def remove(directory, name):
    """What a check left, removed through the mount (and if that fails, on the host)."""
    path = os.path.join(ctx.args.mount, ctx.base, directory)
    try:
        shutil.rmtree(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            print("not ok %s/%s: removing what '%s' left: %s" % (
                ctx.args.label, "user" if ctx.user else "root", name, error), flush=True)
        subprocess.run(["rm", "-rf", path], stderr=subprocess.DEVNULL, check=False)


parser = argparse.ArgumentParser()
for option in "mount", "real", "agent", "label":
    parser.add_argument("--" + option, required=True)
parser.add_argument("--p9d", type=int, default=1)
parser.add_argument("--other", default="", help="the same export mounted a second time")
parser.add_argument("--checks", choices=("client", "server"), required=True)
parser.add_argument("--cache", choices=("none", "mmap", "loose"), default="none")
parser.add_argument("--only", default="")
for option in "long", "short", "acl", "squash", "readonly":
    parser.add_argument("--" + option, action="store_true")
ctx = Context(parser.parse_args())
main()
