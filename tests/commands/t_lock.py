# SPDX-License-Identifier: BSD-2-Clause
"""lock: one at a time, waiting, giving up, and what becomes of the command."""
import os
import signal
import threading
import time

import common
from common import check, equal, fresh, lines, p9, shared, spawn, suite, until, write
from peers import TLOCK, Relay


def held(path):
    """Whether somebody has the lock."""
    return p9("lock", "-n", path, "true", code=None)[1] != b""


def holder(path, *options, address=common.ADDRESS, seconds=20):
    p = spawn("lock", *options, path, "sh", "-c", f"echo in; exec sleep {seconds}", address=address, start_new_session=True)
    equal(p.stdout.readline(), b"in\n")
    return p


def waiter(path, *command):
    """A `p9 lock` that has sent its request for a lock that another has."""
    asked = threading.Event()

    def judge(kind, frame):
        if kind == TLOCK:
            asked.set()
        return frame
    where = os.path.join(fresh("r"), "s")
    Relay(where, common.SOCKET, request=judge)
    p = spawn("lock", path, *command, address=f"unix:{where}")
    check(asked.wait(60), "it does not ask for the lock")
    return p


def end(p):
    os.killpg(p.pid, signal.SIGTERM)
    p.communicate(timeout=60)


@suite.test
def lock_runs_a_command():
    remote, local = shared()
    equal(p9("lock", f"{remote}/l", "echo", "x", "--help")[0], b"x --help\n")
    check(os.path.exists(f"{local}/l"))
    p9("lock", f"{remote}/l", "sh", "-c", "exit 7", code=7)
    p9("lock", f"{remote}/l", "sh", "-c", "kill -9 $$", code=137)
    p9("lock", f"{remote}/l", "/nowhere/command", code=127)
    p9("lock", f"{remote}/l", "/etc/passwd", code=126)
    p9("lock", f"{remote}/no/dir", "true", code=1)
    p9("lock", f"{remote}/l", code=2)
    p9("lock", "--range", "x", f"{remote}/l", "true", code=2)


@suite.test
def lock_keeps_others_out():
    remote, _ = shared()
    path = f"{remote}/l"
    p = holder(path)
    _, err = p9("lock", "-n", path, "true", code=1)
    check(b"locked by" in err, err)
    begin = time.monotonic()
    p9("lock", "-w", "0.5", path, "true", code=1)
    check(time.monotonic() - begin >= 0.5)
    p9("lock", "-n", "-s", path, "true", code=1)
    end(p)
    p9("lock", "-n", path, "true")


@suite.test
def lock_waits_its_turn():
    remote, local = shared()
    path = f"{remote}/l"
    p = holder(path)
    waiting = waiter(path, "sh", "-c", f"echo got > {local}/got")
    check(not os.path.exists(f"{local}/got"))
    end(p)
    equal(waiting.wait(60), 0)
    check(os.path.exists(f"{local}/got"))


@suite.test
def lock_shared_and_ranges():
    remote, _ = shared()
    path = f"{remote}/l"
    p = holder(path, "-s") if os.path.exists(common.SHARE + path) else None
    if p is None:
        p9("touch", path)
        p = holder(path, "-s")
    p9("lock", "-n", "-s", path, "true")
    p9("lock", "-n", "-x", path, "true", code=1)
    end(p)
    p = holder(path, "--range", "100:50")
    p9("lock", "-n", "--range", "0:100", path, "true")
    p9("lock", "-n", "--range", "150", path, "true")
    p9("lock", "-n", "--range", "149:1", path, "true", code=1)
    p9("lock", "-n", path, "true", code=1)
    end(p)


@suite.test
def lock_interrupted_while_it_waits():
    remote, _ = shared()
    path = f"{remote}/l"
    p = holder(path)
    waiting = waiter(path, "touch", common.SHARE + remote + "/never")
    waiting.send_signal(signal.SIGINT)
    equal(waiting.wait(60), 1)
    check(b"EINTR" in waiting.stderr.read())
    end(p)
    p9("lock", "-n", path, "true")
    check(not os.path.exists(common.SHARE + remote + "/never"))


@suite.test
def lock_passes_sigterm_on():
    remote, _ = shared()
    p = spawn("lock", f"{remote}/l", "sh", "-c", "trap 'echo told; exit 9' TERM; echo in; while :; do sleep 0.05; done")
    equal(p.stdout.readline(), b"in\n")
    p.send_signal(signal.SIGTERM)
    equal(p.stdout.readline(), b"told\n")
    equal(p.wait(60), 9)


@suite.test
def lock_lost_with_the_link():
    """The command is told by SIGTERM, the user by a line."""
    remote, _ = shared()
    where = os.path.join(fresh("r"), "s")
    between = Relay(where, common.SOCKET)
    p = spawn("lock", f"{remote}/l", "sh", "-c", "trap 'echo told; exit 0' TERM; echo in; while :; do sleep 0.05; done",
              address=f"unix:{where}")
    equal(p.stdout.readline(), b"in\n")
    between.close()
    out, err = p.communicate(timeout=60)
    equal((out, p.returncode), (b"told\n", 1))
    check(len(lines(err)) == 1 and b"lost" in err, err)
    until(lambda: not held(f"{remote}/l"), 30, "the lock is still held")


@suite.test
def lock_outlives_signals():
    """However often ^C comes: the command decides, and has the lock until it ends."""
    for number, told in ((signal.SIGINT, 0), (signal.SIGQUIT, 0), (signal.SIGTERM, 3), (signal.SIGHUP, 3)):
        remote, local = shared()
        path = f"{remote}/l"
        p = spawn("lock", path, "sh", "-c", f"trap 'echo told' INT QUIT TERM HUP; echo in; "
                  f"while [ ! -e {local}/end ]; do sleep 0.05; done; exit 9")
        equal(p.stdout.readline(), b"in\n")
        for _ in range(3):
            p.send_signal(number)
            if told:
                equal(p.stdout.readline(), b"told\n")
            check(held(path), number, "and the lock is gone")
        write(f"{local}/end")
        out, _ = p.communicate(timeout=60)
        equal((out, p.returncode), (b"", 9), number)
        check(not held(path), "it is still held")


@suite.test
def lock_of_a_caller_that_ignores_signals():
    """SIGCHLD ignored must not hide the exit code; what else is ignored the command ignores, too."""
    remote, _ = shared()

    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    p = spawn("lock", f"{remote}/l", "sh", "-c", "kill -HUP $$; exit 7", preexec_fn=ignore)
    p.communicate(timeout=60)
    equal(p.returncode, 7)
