# SPDX-License-Identifier: BSD-2-Clause
"""What the suites share: the programs under test, p9d started in every way, its /proc figures, a hanging file system."""
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import suite as lib  # noqa: E402
from suite import Skip, check, connects, equal, free_port, until  # noqa: E402,F401
from ninep import Closed, Conn, Error, Late  # noqa: E402,F401

HERE = os.path.dirname(os.path.abspath(__file__))
P9D, P9, SLOW = "p9d", "p9", False
suite = lib.Suite("system")
TOP = suite.directory
libc = ctypes.CDLL(None, use_errno=True)
_count = [0]


def fresh(name="dir", mode=0o755):
    """A new directory that everybody may pass through."""
    _count[0] += 1
    path = os.path.join(TOP, f"{name}-{_count[0]}")
    os.mkdir(path)
    os.chmod(path, mode)
    return path


def put(path, data=b"", mode=0o644, owner=None):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    if owner:
        os.chown(path, *owner)
        os.chmod(path, mode)
    return path


def sanitized():
    """Whether p9d was built with a sanitizer: it is slower, and larger."""
    with open(P9D, "rb") as f:
        program = f.read()
    return b"__asan_init" in program or b"__tsan_init" in program


class P9d:
    """A p9d. args: its options but for the listener; before: a command that runs it (setpriv ...); where: the directory
    of its socket."""

    def __init__(self, *args, before=(), listen=None, env=None, ready=True, codes=(0,), where=None, **popen):
        _count[0] += 1
        self.log = os.path.join(TOP, f"s{_count[0]}.log")
        self.socket = os.path.join(where or TOP, f"s{_count[0]}")
        self.codes = codes
        listen = ["-l", f"unix:{self.socket}"] if listen is None else listen
        self.command = [*map(str, before), P9D, *listen, *map(str, args)]
        with open(self.log, "wb") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True, **popen}
            self.process = subprocess.Popen(self.command, env={**os.environ, **(env or {})}, **options)
        self.pid = self.process.pid
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise

    def wait_ready(self):
        quiet = "--log" in self.command  # says nothing when it is ready

        def there():
            return connects(self.socket) if quiet else "sharing" in self.output()
        until(lambda: self.process.poll() is not None or there(), 20, "p9d does not start")
        check(self.process.poll() is None, f"p9d ended with {self.process.returncode}: {self.output()[-2000:]}")

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def conn(self, aname="", uid=0, uname="", msize=65536, **options):
        c = Conn(self.socket, msize, **options)
        c.attach(0, aname, uid, uname)
        return c

    # ---- /proc ----
    def status(self, key):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return re.search(rf"^{key}:\s*(.*)$", f.read(), re.M).group(1)

    def rss(self):
        return int(self.status("VmRSS").split()[0]) * 1024

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, seconds):
        """Share of one processor that p9d takes over a time in which nobody asks it anything."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - began)

    def stats(self):
        """(connections, fids, whole text) from SIGUSR1."""
        at = os.path.getsize(self.log)
        self.process.send_signal(signal.SIGUSR1)

        def look():
            return re.search(r"(\d+) connections, .*?; (\d+) fids.*\n(?:.*\n)*", self.output()[at:])
        m = until(look, 5, "SIGUSR1 prints nothing")
        return int(m.group(1)), int(m.group(2)), m.group(0)

    # ---- the end ----
    def alive(self):
        check(self.process.poll() is None, f"p9d ended with {self.process.returncode}: {self.output()[-3000:]}")

    def stop(self, seconds=10, sig=signal.SIGTERM):
        """Ends it; returns how long that took. A crash, or a sanitizer's report, is an error."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"p9d does not end within {seconds} s of signal {sig}") from None
        out = self.output()
        report = re.search(r"(ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer)(?:.*\n){0,25}", out)
        check(not report, report and report.group(0))
        check(code in self.codes, f"p9d ended with {code}: {out[-2000:]}")
        return time.monotonic() - began

    def refuses(self, *words, code=None):
        """Waits for the end of a p9d that cannot start; its message must have all the words."""
        self.process.wait(10)
        out = self.output()
        check(self.process.returncode in ((1, 2) if code is None else (code,)), self.process.returncode, out)
        for word in words:
            check(word in out, f"the message has no \"{word}\": {out}")
        check("Sanitizer" not in out and "runtime error" not in out, out[-3000:])
        return out

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel is left to it
            self.process.wait(2)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.kill()
            out = self.output()
            if "Sanitizer" in out or "runtime error" in out:
                at = max(out.find("ERROR: "), out.find("runtime error"), 0)
                print(out[at:at + 2500])


class HangFs:
    """fusefs.py on a mount point. hang("READ", ...) shuts its gate for these operations, go() opens it."""

    def __init__(self, where=None):
        self.where = where or fresh("hang")
        self.gate = os.path.join(TOP, f"gate{_count[0]}")
        _count[0] += 1
        if not os.path.exists("/dev/fuse"):
            raise Skip("no /dev/fuse")
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "fusefs.py"), self.gate, self.where],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.process.stdout.readline() != b"mounted\n":
            raise Skip("FUSE does not mount: " + self.process.stderr.read().decode().strip())

    def hang(self, *kinds):
        with open(self.gate + "~", "w", encoding="ascii") as f:
            f.write(" ".join(kinds))
        os.rename(self.gate + "~", self.gate)
        time.sleep(0.03)  # it looks every 5 ms

    def go(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.gate)
        time.sleep(0.02)

    def close(self):
        self.go()
        libc.umount2(os.fsencode(self.where), 2)
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def quickly(what, seconds=1.0):
    """Runs what() and checks that it took less than the bound."""
    began = time.monotonic()
    result = what()
    took = time.monotonic() - began
    check(took < seconds, f"took {took:.3f} s, bound {seconds:g} s")
    return result


def as_user(uid, gid, function):
    """Runs function() in a child with these ids and no other groups; raises when it raised there."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, message = 0, b""
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            function()
        except BaseException as e:  # pylint: disable=broad-except
            code, message = 1, f"{type(e).__name__}: {e}".encode()
        os.write(w, message[:4000])
        os._exit(code)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        message = f.read().decode()
    status = os.waitpid(pid, 0)[1]
    check(status == 0, f"as uid {uid}: {message}")


def denied(code, function):
    """Checks that the server answers with this errno (or one of them)."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        function()
    except Error as e:
        check(e.code in codes, f"got {e}, want one of {[os.strerror(c) for c in codes]}")
        return
    raise AssertionError(f"it was allowed; want {[os.strerror(c) for c in codes]}")
