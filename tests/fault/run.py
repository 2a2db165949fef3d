#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Fault sweep: the n-th allocation and the n-th system call of p9d fail, for every n, over one conversation (talk.py).

One run is one test. In each the right reply or the right errno must come, the server must live, and after the
disconnect there must be no descriptor, connection or fid that was not there before; what was created must belong to
whom it should. The faults are made by shim.c, loaded into p9d.

  alloc       the n-th malloc, calloc, realloc, pthread_create, getpwuid_r has no memory; a new server for each n
  EIO, ...    this errno from the n-th system call
  short       every file read, write and getdents64 moves a few bytes only
  descriptors RLIMIT_NOFILE=64 and a full table of descriptors: no spinning, and service goes on afterwards

usage: tests/fault/run.py [--build DIR | --p9d PATH] [--only NAME,...] [--from N] [--verbose]
"""
import argparse
import ctypes
import mmap
import multiprocessing
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
from talk import Talk, Wrong, make_tree  # noqa: E402
from wire import NOFID, Link, Lost  # noqa: E402

ERRNO = {"ENOMEM": 12, "EIO": 5, "ENOSPC": 28, "EMFILE": 24, "EINTR": 4, "EACCES": 13}
MODES = {"off": 0, "alloc": 1, "call": 2, "short": 3, "storm": 4}
# Where a fault may end the connection: there is no request, or no way to answer one.
ON_LINK = {"read", "writev", "sendfile", "sendfile64", "accept4", "epoll_ctl", "getsockopt", "setsockopt"}
MOST = 3000
CPU_SHARE = 0.2


class Control:
    """The page that shim.c maps."""

    def __init__(self, path):
        with open(path, "wb") as f:
            f.write(bytes(4096))
        self.file = open(path, "r+b")
        self.page = mmap.mmap(self.file.fileno(), 4096)

    def arm(self, mode, n=0, err=0):
        struct.pack_into("<IIIIII", self.page, 0, 0, n, err, 0, 0, 0)
        self.page[24:64] = bytes(40)
        struct.pack_into("<I", self.page, 0, MODES[mode])

    def disarm(self):
        struct.pack_into("<I", self.page, 0, 0)

    def struck(self):
        return struct.unpack_from("<I", self.page, 16)[0] != 0

    def count(self):
        return struct.unpack_from("<I", self.page, 12)[0]

    def what(self):
        fd, caller = struct.unpack_from("<iQ", self.page, 20)
        name = self.page[32:64].split(b"\0")[0].decode()
        return name, fd, caller


class Server:
    """A p9d under the shim."""

    def __init__(self, p9d, work, options=(), limit=None):
        self.p9d, self.work, self.options, self.limit = p9d, work, options, limit
        self.sock, self.log = os.path.join(work, "s"), os.path.join(work, "log")
        self.top = os.path.join(work, "export")
        self.root = os.path.join(self.top, "t")
        os.makedirs(self.top, exist_ok=True)
        os.chmod(work, 0o755)
        self.control = Control(os.path.join(work, "control"))
        self.process = None
        self.base = 0

    def start(self):
        shutil.rmtree(self.root, ignore_errors=True)
        make_tree(self.root)
        env = {**os.environ, "LD_PRELOAD": os.path.join(self.work, "..", "shim.so"),
               "P9_FAULT_CTL": os.path.join(self.work, "control")}
        self.control.disarm()
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, self.limit))) if self.limit else None
        with open(self.log, "wb") as log:
            # --poll 0: looks are system calls, and as many as there is time for
            self.process = subprocess.Popen(
                [self.p9d, "--loops", "1", "--poll", "0", "--log", "error", "--lock-wait", "5", "-l", "unix:" + self.sock,
                 "-e", "main=" + self.root + ",squash=none,checks=server", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, preexec_fn=limit)
        deadline = time.monotonic() + 60
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise Wrong(f"p9d does not start: {self.output()[-500:]}")
            time.sleep(0.005)
        self.base = self.settled()

    def answers(self):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.sock)
                return True
            except OSError:
                return False

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stats(self):
        """Connections and fids, as SIGUSR1 prints them."""
        at = os.path.getsize(self.log)
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with open(self.log, "rb") as f:
                f.seek(at)
                m = re.search(rb"p9d: (\d+) connections.*?(\d+) fids; \d+ threads\n", f.read())
            if m:
                return int(m.group(1)), int(m.group(2))
            if self.process.poll() is not None:
                raise Wrong(f"p9d ended with {self.process.returncode}: {self.output()[-1500:]}")
            time.sleep(0.002)
        raise Wrong("SIGUSR1 prints nothing: the server hangs")

    def settled(self):
        """Waits for no connection and no fid; returns the number of descriptors then."""
        deadline = time.monotonic() + 60
        while True:
            got = self.stats()
            if got == (0, 0):
                return self.descriptors()
            if time.monotonic() > deadline:
                raise Wrong(f"left after the disconnect: {got[0]} connections, {got[1]} fids")
            time.sleep(0.003)

    def check_quiet(self):
        if self.process.poll() is not None:
            raise Wrong(f"p9d ended with {self.process.returncode}: {self.output()[-1500:]}")
        n = self.settled()
        deadline = time.monotonic() + 30
        while n > self.base and time.monotonic() < deadline:
            time.sleep(0.01)
            n = self.descriptors()
        if n > self.base:
            raise Wrong(f"{n} descriptors, {self.base} before")

    def stop(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Wrong("p9d does not end on SIGTERM") from None
        finally:
            output, self.process = self.output(), None
        if code != 0:
            raise Wrong(f"p9d ended with {code}: {output[-1500:]}")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None


def pick_user():
    """A user whose gid is not his uid, when we are root: then a group that was guessed shows."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for entry in pwd.getpwall():
        if entry.pw_uid not in (0, entry.pw_gid):
            return entry.pw_uid, entry.pw_gid
    return 1000, 1000


def check_owners(root, uid, gid):
    """What the user made is the user's, with the user's group; what was there before is as it was."""
    made = {"new", "back", "dir", "sym", "pipe", "dir2", "linked", "moved"}
    for where, dirs, files in os.walk(root):
        for name in dirs + files:
            st = os.lstat(os.path.join(where, name))
            if name in made and (st.st_uid, st.st_gid) != (uid, gid):
                raise Wrong(f"{name} was created as {st.st_uid}:{st.st_gid}, want {uid}:{gid}")


def one_run(server, errno, mode, n):
    """Returns None when nothing failed any more; else what failed. Raises Wrong."""
    uid, gid = pick_user()
    control = server.control
    shutil.rmtree(server.root + ".old", ignore_errors=True)
    for name in os.listdir(server.root):
        path = os.path.join(server.root, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    fill(server.root)
    control.arm(mode, n, errno)

    def allowed():
        name = control.what()[0]
        if name in ("setfsuid", "setfsgid"):
            return {1}
        if name.startswith("getpw"):
            return {errno, 5, 12}
        if mode == "call" and errno == ERRNO["EINTR"]:
            return set()  # a call that a signal interrupted is made again: nobody sees it
        return {errno, 37} if mode == "alloc" and "lock" in talk.where else {errno}

    talk = Talk(server.sock, control.struck, allowed, (uid, gid))
    try:
        talk.run()
    except Lost as e:
        if not control.struck() or not (mode == "alloc" or control.what()[0] in ON_LINK):
            raise Wrong(f"connection lost at {talk.where}: {e}") from None
    except (TimeoutError, socket.timeout):
        raise Wrong(f"no reply at {talk.where}") from None
    finally:
        struck = control.struck()
        control.disarm()
    server.check_quiet()
    check_owners(server.root, uid, gid)
    return control.what() if struck else None


def fill(root):
    """make_tree in a directory that is there."""
    temporary = root + ".new"
    shutil.rmtree(temporary, ignore_errors=True)
    make_tree(temporary)
    for name in os.listdir(temporary):
        os.rename(os.path.join(temporary, name), os.path.join(root, name))
    os.rmdir(temporary)


def source_of(p9d, caller):
    if not caller:
        return ""
    got = subprocess.run(["addr2line", "-fs", "-e", p9d, hex(caller - 1)], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, check=False)
    return " in " + " ".join(got.stdout.split())


def sweep(args):
    """One lane: a list of (n, message) of those that failed, and the number of runs."""
    name, p9d, work, first, verbose = args
    fresh = name == "alloc"
    mode, errno = ("alloc", 12) if fresh else ("call", ERRNO[name])
    server = Server(p9d, work)
    failed, n, lines = [], first, []
    for n in (0, *range(first, first + MOST)):  # 0: without a fault
        what = None
        try:
            if server.process is None:
                server.start()
            what = one_run(server, errno, mode, n)
            if fresh or (n and what is None):
                server.stop()
            message = None
        except (Wrong, OSError) as e:
            message = str(e)
            server.control.disarm()
            what = server.control.what()
            server.kill()
        if message:
            failed.append((n, f"{what[0]} (descriptor {what[1]}){source_of(p9d, what[2])}: {message}"))
            if n == 0 or len(failed) >= 60:
                break
        elif verbose and what:
            lines.append(f"  {name} {n}: {what[0]}{source_of(p9d, what[2])}")
        if n and what is None:
            break
    else:
        failed.append((n, f"faults do not come to an end in {MOST} runs"))
    server.kill()
    return name, max(n - first + 1, len(failed)), failed, lines


# ---- short transfers ----
def short(p9d, work, size):
    server = Server(p9d, work)
    server.start()
    server.control.arm("short", size)
    uid, gid = pick_user()
    talk = Talk(server.sock, lambda: False, set, (uid, gid))
    try:
        talk.run()
        server.control.disarm()
        server.check_quiet()
        check_owners(server.root, uid, gid)
        server.stop()
    except (Lost, TimeoutError, socket.timeout) as e:
        raise Wrong(f"at {talk.where}: {e}") from None
    finally:
        server.kill()


# ---- descriptors ----
def works(server):
    """A new connection can attach and read."""
    link = Link(server.sock)
    try:
        link.send("version", 0xFFFF, "Is", 8192, "9P2000.L")
        link.receive()
        link.send("attach", 1, "IIssI", 0, NOFID, "", "main", os.geteuid())
        kind, _, body = link.receive()
        if kind != 105:
            raise Wrong(f"attach: {body!r}")
        link.send("walk", 1, "IIn", 0, 1, ["f"])
        kind, _, body = link.receive()
        if kind != 111:
            raise Wrong(f"walk: {body!r}")
    except Lost as e:
        raise Wrong(f"no service: {e}") from None
    finally:
        link.close()


def cpu_during(server, seconds):
    before, begin = server.cpu(), time.monotonic()
    time.sleep(seconds)
    share = (server.cpu() - before) / (time.monotonic() - begin)
    if share > CPU_SHARE:
        raise Wrong(f"{share:.0%} of a processor is used while nothing can be done")


def many_connections(p9d, work):
    """More connections than descriptors: those beyond are turned away, nothing spins, service goes on."""
    server = Server(p9d, work, limit=64)
    server.start()
    try:
        socks = []
        for _ in range(120):
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            try:
                s.connect(server.sock)
            except OSError:
                pass
            socks.append(s)
        cpu_during(server, 2)
        for s in socks:
            s.close()
        server.check_quiet()
        works(server)
        server.check_quiet()
        server.stop()
    finally:
        server.kill()


def many_fids(p9d, work):
    """Fids until there are no descriptors, while connections come and go: an errno for each, and all comes back."""
    server = Server(p9d, work, limit=64)
    server.start()
    try:
        link = Link(server.sock)
        link.send("version", 0xFFFF, "Is", 8192, "9P2000.L")
        link.receive()
        link.send("attach", 1, "IIssI", 0, NOFID, "", "main", os.geteuid())
        link.receive()
        refused = 0
        for fid in range(1, 100):
            link.send("walk", 1, "IIn", 0, fid, ["f"])
            kind, _, body = link.receive()
            if kind != 111:
                refused += 1
                if struct.unpack("<I", body)[0] not in (23, 24):
                    raise Wrong(f"walk: errno {struct.unpack('<I', body)[0]}")
            if fid % 10 == 0:
                s = socket.socket(socket.AF_UNIX)
                s.setblocking(False)
                try:
                    s.connect(server.sock)
                except OSError:
                    pass
                s.close()
        if not refused:
            raise Wrong("100 fids with 64 descriptors")
        others = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for s in others:
            s.setblocking(False)
            try:
                s.connect(server.sock)
            except OSError:
                pass
        cpu_during(server, 2)
        for fid in range(1, 100):
            link.send("clunk", 1, "I", fid)
            link.receive()
        link.send("walk", 1, "IIn", 0, 1, ["f"])
        if link.receive()[0] != 111:
            raise Wrong("no walk after the clunks")
        link.close()
        for s in others:
            s.close()
        server.check_quiet()
        works(server)
        server.check_quiet()
        server.stop()
    except Lost as e:
        raise Wrong(f"connection lost: {e}") from None
    finally:
        server.kill()


def table_full(p9d, work):
    """No descriptor for anybody on the host (ENFILE), with connections waiting; then they are back."""
    server = Server(p9d, work)
    server.start()
    try:
        socks = []
        server.control.arm("storm", 0, 23)
        for _ in range(5):
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            s.connect(server.sock)
            socks.append(s)
        cpu_during(server, 2)
        server.control.disarm()
        deadline = time.monotonic() + 60
        while True:
            try:
                works(server)
                break
            except (Wrong, TimeoutError, socket.timeout):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        for s in socks:
            s.close()
        server.check_quiet()
        server.stop()
    finally:
        server.kill()


SINGLE = {
    "short-1": lambda p9d, work: short(p9d, work, 1),
    "short-7": lambda p9d, work: short(p9d, work, 7),
    "short-1000": lambda p9d, work: short(p9d, work, 1000),
    "descriptors-connections": many_connections,
    "descriptors-fids": many_fids,
    "descriptors-table": table_full,
}


def single(args):
    name, p9d, work, _, _ = args
    try:
        SINGLE[name](p9d, work)
        return name, 1, [], []
    except (Wrong, OSError) as e:
        return name, 1, [(1, str(e))], []


def lane(args):
    os.makedirs(args[2])
    begin = time.monotonic()
    got = (single if args[0] in SINGLE else sweep)(args)
    return (*got, time.monotonic() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--p9d")
    parser.add_argument("--p9", help="not needed; taken so that all tests have the same options")
    parser.add_argument("--only", default="")
    parser.add_argument("--from", dest="first", type=int, default=1, help="begin with this n")
    parser.add_argument("--verbose", action="store_true", help="say what failed in every run")
    args = parser.parse_args()
    p9d = os.path.abspath(args.p9d or os.path.join(args.build, "p9d"))
    names = ["alloc", "EIO", "EINTR", "EMFILE", "ENOSPC", "EACCES", *SINGLE]
    names = [n for n in names if not args.only or n in args.only.split(",")]
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    top = tempfile.mkdtemp(prefix="p9-fault-", dir=base)
    os.chmod(top, 0o755)
    passed = failed = 0
    try:
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
                        os.path.join(top, "shim.so"), os.path.join(HERE, "shim.c")], check=True)
        jobs = [(n, p9d, os.path.join(top, n), args.first, args.verbose) for n in names]
        with multiprocessing.Pool(2) as pool:
            for name, runs, bad, lines, seconds in pool.imap_unordered(lane, jobs):
                passed, failed = passed + runs - len(bad), failed + len(bad)
                print("\n".join(lines + [f"{'ok    ' if not bad else 'FAILED'} {name:<24} {seconds:5.1f} s  {runs} runs"]))
                for n, message in bad:
                    print(f"    {name} {n}: {message}")
                sys.stdout.flush()
    finally:
        shutil.rmtree(top, ignore_errors=True)
    print(f"fault: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
