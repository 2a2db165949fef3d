# SPDX-License-Identifier: BSD-2-Clause
"""What the test scripts in Python share: a list of tests, servers that are started and ended, temporary trees.

A test is a function that takes nothing and raises when it fails; Skip when it cannot run here.
"""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Skip(Exception):
    pass


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what) or "not so")


def equal(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what + ': ' if what else ''}got {short(got)}, want {short(want)}")


def short(value, most=300):
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(value)} long)"


def own_signals():
    """What whoever started us ignores (nohup, a shell's background) is not ignored by the programs that are tested."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


own_signals()
LEAST = 30.0  # nothing that is waited for comes later than that, but on a hang


def until(condition, seconds=30.0, what="it did not happen"):
    """Waits for a condition; raises when it has not come by then. The time is for a hang: machines can be slow."""
    seconds = max(seconds, LEAST)
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} within {seconds:g} s")
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connects(address):
    """Whether something accepts at (host, port) or at a socket's path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as s:
        try:
            s.connect(address)
            return True
        except OSError:
            return False


class Server:
    """A server in the foreground, ready when it accepts at all its addresses. Its output is in self.log."""

    def __init__(self, command, addresses, directory, stop=signal.SIGTERM, codes=(0,)):
        self.command, self.stop_signal, self.codes = command, stop, codes
        self.log = os.path.join(directory, f"server-{os.path.basename(command[0])}-{time.monotonic_ns()}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        for address in addresses:
            until(lambda: self.process.poll() is not None or connects(address), 20, f"no server at {address}")
        if self.process.poll() is not None:
            raise AssertionError(f"{' '.join(command)} ended with {self.process.returncode}:\n{self.output()}")

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self, seconds=60):
        """Ends the server; raises when it does not end by itself in time, or says that it was not well (a sanitizer's
        report comes as its exit code)."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{self.command[0]} does not end within {seconds} s") from None
        if code not in self.codes:
            raise AssertionError(f"{self.command[0]} ended with {code}:\n{self.output()[-4000:]}")


def run(*command, timeout=60, data=None, code=0, env=None):
    """Runs a program; raises unless it exits with `code` (None: any). Returns (stdout, stderr) as bytes."""
    got = subprocess.run([str(c) for c in command], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         stdin=subprocess.DEVNULL if data is None else None, timeout=timeout, check=False,
                         env={**os.environ, **(env or {})})
    if code is not None and got.returncode != code:
        raise AssertionError(f"{' '.join(str(c) for c in command)}: exit code {got.returncode}, want {code}: "
                             f"{got.stderr.decode(errors='replace')[-1500:]}")
    return got.stdout, got.stderr


class Suite:
    def __init__(self, name):
        self.name, self.tests = name, []
        self.directory = tempfile.mkdtemp(prefix=f"p9-{name}-")
        os.chmod(self.directory, 0o755)

    def test(self, function):
        """Decorator: adds a test; its name is the function's."""
        self.tests.append((function.__name__.replace("_", " "), function))
        return function

    def run(self, only=""):
        passed = failed = skipped = 0
        try:
            for name, function in self.tests:
                if only not in name:
                    continue
                try:
                    function()
                    passed += 1
                    print(f"ok      {name}")
                except Skip as e:
                    skipped += 1
                    print(f"skip    {name}: {e}")
                except Exception as e:  # pylint: disable=broad-except
                    failed += 1
                    print(f"FAILED  {name}: {e}")
                    if not isinstance(e, AssertionError):
                        traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        tail = f", {skipped} skipped" if skipped else ""
        print(f"{self.name}: {passed} passed, {failed} failed{tail}")
        return 1 if failed or not passed else 0
