# SPDX-License-Identifier: BSD-2-Clause
"""The n-th allocation, and the n-th system call, of the p9d that comes fails, and of the one that goes, for every n: then it
takes over, or says why not and the old one goes on. The faults are made by tests/fault/shim.c."""
import errno
import importlib.util
import os
import subprocess

import common
from common import Skip, check, equal, fresh, suite, until
from handover import ENV, Line
from k_state import DATA, tree
from ninep import BLOCK, O_RDWR, SUCCESS, UNLCK, WRLCK

FAULT = os.path.join(common.lib.ROOT, "tests", "fault")


def control_class():
    spec = importlib.util.spec_from_file_location("fault_run", os.path.join(FAULT, "run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Control


def shim():
    if common.sanitized():
        raise Skip("sanitizers have allocators of their own")
    path = os.path.join(common.TOP, "shim.so")
    if not os.path.exists(path):
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", path, os.path.join(FAULT, "shim.c")],
                       check=True)
    return path


class Shimmed:
    """A line of p9d in which faults can be made; every one has a page of its own that says which."""

    def __init__(self):
        self.shim, self.make = shim(), control_class()
        self.line = None
        self.old = self.new = None

    def env(self):
        path = os.path.join(fresh("ctl"), "page")
        control = self.make(path)
        ENV.update(LD_PRELOAD=self.shim, P9_FAULT_CTL=path)
        return control

    def __enter__(self):
        self.old = self.env()
        try:
            self.line = Line("-e", f"x={tree()}", "--loops", "1")
        except BaseException:
            self.forget()
            raise
        return self

    @staticmethod
    def forget():
        for name in ("LD_PRELOAD", "P9_FAULT_CTL"):
            ENV.pop(name, None)

    def __exit__(self, kind, *_):
        self.forget()
        self.line.kill() if kind else self.line.stop()  # pylint: disable=expression-not-assigned

    def attempt(self, arm):
        """One that wants to take over while arm(old, new) has made a fault. Returns whether it did."""
        self.new = self.env()
        arm(self.old, self.new)
        s, new = self.line, self.line.next()
        until(lambda: new.process.poll() is not None or "sharing" in new.output(), 30, "neither takes over nor ends")
        self.old.disarm()
        self.new.disarm()
        if new.process.poll() is None:
            equal(s.process.wait(10), 0, "the one that went")
            s.become(new)
            self.old = self.new
            return True
        check(new.process.returncode in (1, 2), new.process.returncode, new.output())
        s.alive()
        return False


class Clients:
    """One that holds a lock and has half an extended attribute, and one that waits for the lock."""

    def __init__(self, s):
        self.a, self.b = s.conn("x"), s.conn("x")
        self.fa, self.fb = (c.open(0, "f", flags=O_RDWR) for c in (self.a, self.b))
        equal(self.a.lock(self.fa, WRLCK, 0, 10), SUCCESS)
        self.waits = self.b._lock(self.fb, WRLCK, BLOCK, 0, 10, 2, "w")
        self.xattr = self.a.walk(0, "f")
        self.a.xattrcreate(self.xattr, "user.x", 4, 0)

    def look(self):
        equal(self.a.read(self.fa, 5, 100), DATA[5:105])
        equal(self.b.getattr(self.fb).size, len(DATA))
        check(not self.b.answered(self.waits), "a lock was lost on the way")

    def end(self):
        self.look()
        equal(self.a.lock(self.fa, UNLCK, 0, 10), SUCCESS)
        equal(self.b.wait(self.waits)[0], SUCCESS)
        self.a.write(self.xattr, 0, b"abcd")
        self.a.clunk(self.xattr)
        self.close()

    def close(self):
        self.a.close()
        self.b.close()


def sweep(mode, err, whose):
    with Shimmed() as f:
        clients, struck = Clients(f.line), {False: 0, True: 0}
        quiet = n = 0
        while quiet < 8 and n < 2500:  # so many in a row that were not reached: that was all
            n += 1 if n < 60 or whose == "old" else 2
            page = []

            def arm(old, new, n=n, page=page):
                page.append(old if whose == "old" else new)
                page[0].arm(mode, n, err)
            taken = f.attempt(arm)
            hit = page[0].struck()
            quiet = 0 if hit else quiet + 1
            struck[taken] += hit
            if taken and hit and whose == "new":
                # it may have struck when it served already, and then a client hears of it, as at any other time
                clients.close()
                until(lambda: f.line.stats()[0] == 0, 10, "connections are left")
                clients = Clients(f.line)
            else:
                check(taken or hit, f"{mode} {n}: refused for nothing: {f.line.output()[-1000:]}")
                clients.look()
        check(quiet >= 8, f"there is no end of it: {n}")
        check(struck[False] > 3, f"of {n}, {struck[False]} were refused: nothing was hit")
        clients.end()


@suite.test
def fault_allocations_of_the_one_that_comes():
    sweep("alloc", errno.ENOMEM, "new")


@suite.test
def fault_allocations_of_the_one_that_goes():
    sweep("alloc", errno.ENOMEM, "old")


@suite.test
def fault_system_calls_of_the_one_that_comes():
    sweep("call", errno.EIO, "new")
