# SPDX-License-Identifier: BSD-2-Clause
"""What the mount's tests share: a p9d with a mount of it, children that must come to an end, programs to run.

Rule of all of them: nothing may hang. Whatever touches a mount runs in a child process with a time limit; one that cannot
even be killed is a failure, and the kernel's side of the mount is torn down so that the tests can go on.
"""
import contextlib
import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "system"))
import common  # noqa: E402
from common import P9d, Skip, check, equal, fresh, put, until  # noqa: E402,F401

suite = common.suite
suite.name = "mount"
TOP = suite.directory
USER = 65534
MNT_FORCE, MNT_DETACH = 1, 2
OPT = None  # the options of run.py
libc = ctypes.CDLL(None, use_errno=True)
_count = [0]


def size(quick, usual, full):
    """How much: by --quick, none, --full."""
    return full if OPT.full else quick if OPT.quick else usual


def mounted(where):
    """The type of the file system mounted there, or None. Does not touch it."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            fields = line.split(" ")
            if fields[4] == where:
                found = fields[fields.index("-") + 1]
    return found


def state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def abort(where):
    """The last resort: the kernel drops every request of the mount."""
    libc.umount2(os.fsencode(where), MNT_FORCE | MNT_DETACH)


class Stuck(AssertionError):
    pass


class Child:
    """function() in a process of its own. result() waits for it: its value, or its exception as an AssertionError."""

    def __init__(self, function, user=None):
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.reader)
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            try:
                if user is not None:
                    os.setgroups([])
                    os.setgid(user)
                    os.setuid(user)
                value = (True, function())
            except BaseException as e:  # pylint: disable=broad-except
                value = (False, f"{type(e).__name__}: {e}")
            try:
                with os.fdopen(writer, "wb") as f:
                    f.write(pickle.dumps(value))
            finally:
                os._exit(0)
        os.close(writer)
        self.status = None

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None

    def kill(self, sig=signal.SIGKILL, seconds=5.0):
        """Kills it; how long that took. One that does not die hangs in the kernel."""
        began = time.monotonic()
        if self.ended():
            return 0.0
        os.kill(self.pid, sig)
        while not self.ended():
            if time.monotonic() - began > seconds:
                raise Stuck(f"a process does not die of signal {sig} within {seconds:g} s; its state is {state(self.pid)}")
            time.sleep(0.01)
        return time.monotonic() - began

    def result(self, seconds):
        ready, _, _ = select.select([self.reader], [], [], seconds)
        if not ready:
            self.kill()
            raise Stuck(f"a process was not through after {seconds:g} s")
        with os.fdopen(self.reader, "rb") as f:
            data = f.read()
        until(self.ended, 10, "a child does not end")
        check(data, f"a child ended with status {self.status}")
        fine, value = pickle.loads(data)
        check(fine, value)
        return value


def child(function, seconds=60.0, user=None):
    return Child(function, user).result(seconds)


def outcome(function, *args):
    """The value, or the errno's name."""
    import errno
    try:
        return function(*args)
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


class Mount:
    """`p9 mount -f` of an address. At the end it must unmount, and end with `codes`; a sanitizer's report is a failure."""

    def __init__(self, address, options="", where=None, user=None, aname=None, ready=True, codes=(0,), seconds=20.0,
                 extra=()):
        _count[0] += 1
        self.where = where or fresh("mnt")
        self.log = os.path.join(TOP, f"m{_count[0]}.log")
        self.codes, self.options = codes, options
        before = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user is not None else []
        if user is not None:
            os.chown(self.where, user, user)
        self.command = [*before, common.P9, "-s", address, *(["-a", aname] if aname is not None else []), *extra, "mount", "-f",
                        *(["-o", options] if options else []), self.where]
        if OPT.instead:  # another file system in p9's place, to test the tests
            beneath = OPT.beneath_of(address)
            self.command = [*before, *OPT.instead.split(), beneath, self.where]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, env=OPT.env)
        self.pid = self.process.pid
        if ready:
            self.wait_ready(seconds)

    def wait_ready(self, seconds=20.0):
        until(lambda: self.process.poll() is not None or mounted(self.where), seconds, "p9 mount does not mount")
        check(self.process.poll() is None, f"p9 mount ended with {self.process.returncode}: {self.output()[-2000:]}")

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def path(self, *names):
        return os.path.join(self.where, *names)

    def rss(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))

    def healthy(self):
        """It has not crashed: it runs, or has ended by itself with a code."""
        code = self.process.poll()
        out = self.output()
        at = max(out.find("ERROR: "), out.find("runtime error"), out.find("WARNING: ThreadSanitizer"))
        check(at < 0, out[at:at + 3000])
        check(code is None or 0 <= code < 3, f"p9 mount ended with {code}: {out[-2000:]}")

    def umount(self, seconds=10.0):
        """With `p9 umount`, as a user would. How long it took."""
        began = time.monotonic()
        command = ["umount", self.where] if OPT.instead else [common.P9, "umount", self.where]
        got = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             timeout=seconds, check=False)
        check(got.returncode == 0, f"p9 umount: exit code {got.returncode}: {got.stdout.decode(errors='replace')}")
        check(not mounted(self.where), "p9 umount was content, and it is still mounted")
        return time.monotonic() - began

    def finish(self, seconds=10.0):
        """Unmounts, and waits for the end of the process."""
        if mounted(self.where):
            self.umount(seconds)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Stuck(f"p9 mount does not end within {seconds:g} s of its umount") from None
        self.healthy()
        check(self.codes is None or code in self.codes, f"p9 mount ended with {code}: {self.output()[-2000:]}")

    def destroy(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        if mounted(self.where):
            abort(self.where)
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        if self.process.poll() is None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        while mounted(self.where) and libc.umount2(os.fsencode(self.where), MNT_DETACH) == 0:
            pass

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.finish()
            else:
                out = self.output().strip()
                if out:
                    print("    p9 mount says: " + out[-1500:].replace("\n", "\n    "))
        finally:
            self.destroy()


class Pair:
    """A p9d that exports a directory, and a mount of it. p9d's log tells what it refuses."""

    def __init__(self, options="", directory=None, user=None, server=(), **more):
        self.beneath = directory or fresh("beneath")
        self.local = fresh("local")
        if user is not None:
            for path in (self.beneath, self.local):
                os.chown(path, user, user)
        before = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user is not None else []
        where = fresh("sock") if user is not None else None
        if where:
            os.chown(where, user, user)
        self.server = P9d("-e", f"x={self.beneath}", *server, before=before, where=where)
        OPT.exports[f"unix:{self.server.socket}"] = self.beneath
        try:
            self.mount = Mount(f"unix:{self.server.socket}", options, user=user, **more)
        except BaseException:
            self.server.kill()
            raise
        self.where = self.mount.where

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        try:
            self.mount.__exit__(kind, *rest)
        finally:
            self.server.__exit__(kind, *rest)


def program(*command, seconds=120, cwd=None, user=None, env=None, codes=(0,)):
    """Runs a program on a mount; its output. Killed, with all its children, when it takes too long."""
    command = [str(c) for c in command]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True, env={**os.environ, "LC_ALL": "C", **(env or {})})
    try:
        out = process.communicate(timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
        raise Stuck(f"{' '.join(command)[:200]}: not through after {seconds} s") from None
    check(process.returncode in codes, f"{' '.join(command)[:200]}: exit code {process.returncode}: {out[-2500:]}")
    return out
