# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of p9 mount share: a p9d, a mount of it, programs that use the mount, and the end of both.

A mount runs in the foreground, so that its exit code and what a sanitizer says come to light.
"""
import contextlib
import ctypes
import os
import re
import signal
import socket  # noqa: F401
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import suite as lib  # noqa: E402
from suite import Skip, check, equal, run, until  # noqa: E402,F401

BUILD = os.path.join(lib.ROOT, "build")
# a sanitizer keeps what was freed for a while: not so much that it looks like a leak
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"}
libc = ctypes.CDLL(None, use_errno=True)
TOP = ""
_count = [0]


def start(directory, build):
    """Where everything happens, and what is tested."""
    global TOP, BUILD  # pylint: disable=global-statement
    TOP, BUILD = directory, os.path.join(lib.ROOT, build)


def program(name):
    return os.path.join(BUILD, name)


def fresh(name, owner=0):
    _count[0] += 1
    path = os.path.join(TOP, f"{name}{_count[0]}")
    os.mkdir(path)
    os.chmod(path, 0o755)
    os.chown(path, owner, owner)
    return path


def report(text):
    """What a sanitizer has said, or ""."""
    m = re.search(r"(ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer)(?:.*\n?){0,25}", text)
    return m.group(0) if m else ""


class Process:
    """A program in the background with its output in a file."""

    def __init__(self, command, name):
        _count[0] += 1
        self.log = os.path.join(TOP, f"{name}{_count[0]}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, env=ENVIRONMENT)
        self.pid = self.process.pid

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, seconds=15, codes=(0,)):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            where = self.where_it_is()
            self.process.kill()
            raise AssertionError(f"{self.log}: it does not end within {seconds} s; {where}: "
                                 f"{self.output()[-1500:]}") from None
        said = report(self.output())
        check(not said, said)
        check(codes is None or code in codes, f"exit code {code}: {self.output()[-1500:]}")

    def where_it_is(self):
        """For a process that hangs: in which call of the kernel."""
        text = ""
        for name in ("wchan", "syscall", "stack"):
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/{name}", encoding="ascii") as f:
                text += f"{name} {f.read().strip()} "
        return text

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
            self.process.wait(30)

    def rss(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s*(\d+)", f.read()).group(1)) * 1024

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Server(Process):
    """p9d over a fresh directory, self.export."""

    def __init__(self, *args, owner=0, export=None, other=None):
        _count[0] += 1
        self.export = export or fresh("export", owner)
        self.socket = os.path.join(TOP, f"s{_count[0]}")
        self.addr = f"unix:{self.socket}"
        command = [*other, self.socket, self.export] if other else \
            [program("p9d"), "-l", self.addr, "--socket-mode", "0666", *args, self.export]
        super().__init__(command, "server")
        until(lambda: self.process.poll() is not None or lib.connects(self.socket), 20, "no server")
        check(self.process.poll() is None, self.output())

    def fids(self):
        """How many fids its clients hold, by SIGUSR1."""
        at = os.path.getsize(self.log)
        self.signal(signal.SIGUSR1)
        m = until(lambda: re.search(r"; (\d+) fids", self.output()[at:]), 5, "SIGUSR1 prints nothing")
        return int(m.group(1))

    def stop(self):
        self.signal(signal.SIGTERM)
        self.end()


def mounted(path):
    """The line of /proc/self/mounts for a path, or None."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        for line in f:
            if line.split()[1] == path:
                return line
    return None


def elsewhere(path):
    """Processes in whose mount namespaces something is still mounted at path: a program that has taken a namespace of
    its own while the mount was there keeps it alive."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/mounts", encoding="utf-8", errors="replace") as f:
            if any(line.split()[1] == path for line in f):
                found.append(int(pid))
    return found


class Mount(Process):
    """p9 mount of a server, at self.dir."""

    def __init__(self, server, options="", user=None, where=None, wait=True):
        self.server = server
        self.dir = where or fresh("mnt", user or 0)
        before = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        more = ["-o", options] if options else []
        super().__init__([*before, program("p9"), "-s", server.addr, "mount", "-f", *more, self.dir], "mount")
        if wait:
            until(lambda: self.process.poll() is not None or mounted(self.dir), 20, "it does not mount")
            check(self.process.poll() is None, self.output())

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def umount(self):
        run(program("p9"), "umount", self.dir, timeout=20)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            until(lambda: not elsewhere(self.dir), 60, f"still mounted for {elsewhere(self.dir)}")
        self.end()

    def drop(self):
        """Whatever state it is in: away with it."""
        self.kill()
        libc.umount2(os.fsencode(self.dir), 2)


@contextlib.contextmanager
def served(options="", server=(), owner=0, user=None, **more):
    """A server and a mount of it, ended in order, with every fid given back."""
    s = Server(*server, owner=owner, **more)
    m = None
    try:
        m = Mount(s, options.replace("EXPORT", s.export), user)
        yield m
        m.umount()
        if s.process.poll() is None:
            until(lambda: "other" in more or s.fids() == 0, 5, "fids stay")
            s.signal(signal.SIGTERM)
            s.end(codes=None if "other" in more else (0,))
    finally:
        if m:
            m.drop()
        s.kill()


def python(code, *args, wait=True, **options):
    """Runs a piece of Python in a process of its own. Returns what it prints; with wait=False, the process."""
    command = [sys.executable, "-c", "import os, sys, fcntl, signal, time, errno, mmap\n" + code, *map(str, args)]
    if not wait:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    out, _ = run(*command, timeout=60)
    return out.decode()


@contextlib.contextmanager
def fails(*numbers):
    """The block must raise an OSError with one of these numbers."""
    try:
        yield
    except OSError as e:
        check(e.errno in numbers, f"{e}, want {numbers}")
        return
    raise AssertionError(f"no error, want {numbers}")


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("2\n")


def took(function):
    begin = time.monotonic()
    function()
    return time.monotonic() - begin
