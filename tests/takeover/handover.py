# SPDX-License-Identifier: BSD-2-Clause
"""What these tests share: a p9d that another takes over from, again and again, in a runtime directory of its own."""
import os
import threading
import time

import common
from common import P9d, check, equal, fresh, until

RUNTIME = fresh("run", 0o700)
ENV = {}  # more of it, for a test


class Line(P9d):
    """A p9d whose place others take. `listen` and `args` are kept for them; .over() starts the next, and this object is
    that one from then on: its process, pid and log."""

    def __init__(self, *args, listen=None, **popen):
        args = args if "--control" in args else (*args, "--control", RUNTIME)
        # who waits for a lock waits for longer than a test that sanitizers slow down
        args = args if "--lock-wait" in args else (*args, "--lock-wait", "3600")
        self.args, self.options, self.generation = args, popen, 0
        super().__init__(*args, listen=listen, env=ENV, **popen)
        self.listen = listen if listen is not None else ["-l", f"unix:{self.socket}"]

    def next(self, *instead, listen=None, option=None, ready=False, control=RUNTIME, **popen):
        """A p9d that wants to take over from this one; other options when `instead` has any."""
        option = f"--takeover={self.pid}" if option is None else option
        instead = (*instead, "--control", control) if instead else ()
        return P9d(*(instead or self.args), option, listen=self.listen if listen is None else listen, env=ENV, ready=ready,
                   **{**self.options, **popen})

    def become(self, new):
        self.process, self.pid, self.log, self.command = new.process, new.pid, new.log, new.command
        self.generation += 1

    def over(self, *instead, **how):
        """Hands over, and checks that the old one has ended as it should."""
        new, old, log = self.next(*instead, **how), self.process, self.log
        try:
            until(lambda: new.process.poll() is not None or "sharing" in new.output(), 30, "nobody takes over")
            check(new.process.poll() is None, "it did not take over: " + new.output()[-1500:] + self.output()[-1500:])
            equal(old.wait(10), 0, "exit code of the one that went")
        except BaseException:
            new.kill()
            raise
        with open(log, encoding="utf-8", errors="replace") as f:
            out = f.read()
        check("Sanitizer" not in out and "runtime error" not in out, out[-3000:])
        check("took" in new.output(), new.output())
        self.become(new)
        return self

    def private(self):
        return os.path.join(RUNTIME, f"p9d-{self.pid}.ctl")


class Again:
    """While it is entered, somebody else takes over every `seconds`."""

    def __init__(self, line, seconds=1.0):
        self.line, self.seconds, self.done, self.error, self.count = line, seconds, threading.Event(), None, 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.done.wait(self.seconds):
                self.line.over()
                self.count += 1
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.done.set()
        self.thread.join()
        if self.error and kind is None:
            raise self.error
        if kind is None:
            check(self.count >= 1, "nobody took over meanwhile: the load was too short")


def every(seconds):
    """The time between two hand-overs, longer for programs that sanitizers slow down."""
    return seconds * (2 if common.sanitized() else 1)


def wait_a_moment(seconds):
    """For what must not happen."""
    time.sleep(seconds)
