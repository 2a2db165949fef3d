#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Tests of p9 over vhost-user: every kind of command with p9d's device, ends of the link, and devices that lie.

usage: tests/front/run.py [--p9 PATH] [--p9d PATH] [--only TEXT]
"""
import argparse
import fcntl
import hashlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
sys.dont_write_bytecode = True
import backend  # noqa: E402
from suite import ROOT, Skip, check, equal, until  # noqa: E402

TOP = tempfile.mkdtemp(prefix="p9front-")
TESTS = []
RSTAT, RLERROR = 25, 7
EPOLL_WAIT = {"x86_64": ("232", "281"), "aarch64": ("22",)}  # epoll_wait, epoll_pwait


def test(function):
    TESTS.append(function)
    return function


def p9(address, *args, data=None, seconds=40):
    r = subprocess.run([OPT.p9, "-s", address, *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=seconds)
    check(r.returncode >= 0, f"p9 {args} ended by signal {-r.returncode}", r.stderr[-2000:])
    check(b"Sanitizer" not in r.stderr and b"runtime error" not in r.stderr, r.stderr[-3000:].decode())
    return r


def good(address, *args, **more):
    r = p9(address, *args, **more)
    check(r.returncode == 0, args, r.returncode, r.stderr[-600:].decode())
    return r.stdout


class P9d:
    count = 0

    def __init__(self, *more, options=""):
        P9d.count += 1
        self.tree, self.path = f"{TOP}/tree{P9d.count}", f"{TOP}/v{P9d.count}"
        os.makedirs(self.tree, exist_ok=True)
        self.address = "vhost-user:" + self.path
        self.options, self.more = options, more
        self.start()

    def start(self):
        self.log = open(self.path + ".log", "ab")
        self.process = subprocess.Popen([OPT.p9d, "-l", f"vhost-user:{self.path},tag=t{self.options}",
                                         "-e", f"x={self.tree},squash=none", *self.more],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(lambda: os.path.exists(self.path) and b"sharing" in open(self.path + ".log", "rb").read(), 20, "p9d")

    def said(self):
        return open(self.path + ".log", errors="replace").read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def restart(self):
        self.kill()
        os.unlink(self.path)
        open(self.path + ".log", "wb").close()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)
        code = self.process.wait(20)
        text = self.said()
        if kind is None:
            check(code in (0, -signal.SIGKILL), "p9d ended with", code)
            check("Sanitizer" not in text and "runtime error" not in text, text[-3000:])


# ---- with p9d ----
@test
def files_go_there_and_come_back():
    with P9d() as d:
        data = os.urandom(30_000_001)
        open(TOP + "/data", "wb").write(data)
        for msize in ("4096", "65536", "1048576"):
            good(d.address, "-m", msize, "put", TOP + "/data", f"copy{msize}")
            equal(hashlib.sha1(open(f"{d.tree}/copy{msize}", "rb").read()).hexdigest(), hashlib.sha1(data).hexdigest(), msize)
            equal(good(d.address, "-m", msize, "cat", f"copy{msize}") == data, True, "cat " + msize)


@test
def trees_names_and_attributes():
    with P9d() as d:
        for i in range(300):
            os.makedirs(f"{d.tree}/t/d{i % 7}", exist_ok=True)
            open(f"{d.tree}/t/d{i % 7}/f{i}", "w").write(str(i))
        os.symlink("x" * 4000, f"{d.tree}/t/long")
        good(d.address, "get", "-r", "t", TOP + "/got")
        subprocess.run(["diff", "-r", "--no-dereference", f"{d.tree}/t", TOP + "/got"], check=True)
        equal(len(good(d.address, "ls", "t/d0").split()), 43)
        equal(good(d.address, "readlink", "t/long").strip(), b"x" * 4000)
        good(d.address, "mkdir", "new")
        good(d.address, "mv", "t/d1", "new/moved")
        good(d.address, "rm", "-r", "t")
        equal(sorted(os.listdir(d.tree)), ["new"])


@test
def several_queues():
    with P9d(options=",queues=4") as d:
        open(d.tree + "/f", "wb").write(bytes(range(256)) * 20000)
        for n in (1, 3, 4):
            equal(len(good(f"{d.address},queues={n}", "cat", "f")), 5120000)
        r = p9(f"{d.address},queues=5", "ls")
        check(r.returncode == 3 or r.returncode, r.returncode)
        check(b"the device has 4 queues, not 5 (EINVAL)" in r.stderr, r.stderr)


@test
def a_tag_can_be_asked_for():
    with P9d() as d:
        good(d.address + ",tag=t", "ls")
        check(b'the device\'s tag is "t", not "other" (ENODEV)' in p9(d.address + ",tag=other", "ls").stderr)


@test
def conform():
    with P9d() as d:
        r = p9(d.address, "conform", seconds=500)
        check(r.returncode == 0, r.stdout[-1500:].decode(), r.stderr[-500:].decode())


@test
def bench():
    with P9d() as d:
        for load in "getattr walk small create read write randread randwrite readdir".split():
            for depth in ("1", "32"):
                good(d.address, "bench", "-q", depth, "-t", "0.2", "-z", "8", "-n", "200", load)
        good(d.address, "bench", "-c", "3", "-q", "4", "-t", "0.2", "small")


@test
def mount():
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    with P9d() as d:
        where = TOP + "/mnt"
        os.makedirs(where, exist_ok=True)
        good(d.address, "mount", where)
        try:
            data = os.urandom(9_000_000)
            open(where + "/big", "wb").write(data)
            equal(open(d.tree + "/big", "rb").read() == data, True)
            for i in range(200):
                open(f"{where}/f{i}", "w").write(str(i))
            equal(sorted(os.listdir(where)), sorted(os.listdir(d.tree)))
            equal(open(where + "/big", "rb").read() == data, True)
            d.restart()
            try:
                os.stat(where + "/f1000")
                raise AssertionError("the server is dead, the mount does not say so")
            except OSError as e:
                check(not isinstance(e, FileNotFoundError), e)
            subprocess.run(["umount", where], check=True)
            good(d.address, "mount", where)   # and the device that is back can be mounted at once
            equal(open(where + "/big", "rb").read() == data, True)
        finally:
            subprocess.run(["umount", "-l", where], check=True)


@test
def p9d_is_killed_in_mid_request():
    with P9d() as d:
        open(d.tree + "/f", "wb").truncate(1 << 36)
        r = subprocess.Popen([OPT.p9, "-s", d.address, "cat", "f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        r.stdout.read(1 << 20)
        d.kill()
        _, err = r.communicate(timeout=30)
        equal(r.returncode, 1, err[-500:])
        equal(err.count(b"the device closed the connection (ECONNRESET)"), 1, err)
        d.restart()
        good(d.address, "ls")   # a new dial works


@test
def nobody_is_there():
    r = p9(f"vhost-user:{TOP}/nobody", "ls")
    check(b"No such file or directory (ENOENT)" in r.stderr and b"tag=share DIR" in r.stderr, r.stderr)


# ---- a device that comes back ----
class Again:
    """A client that looks for a device it has lost (again.c). Called with a line, it returns the answer."""

    def __init__(self, address, ms=20000):
        self.process = subprocess.Popen([os.path.join(os.path.dirname(OPT.p9), "tests", "front", "again"), address, str(ms)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        bufsize=1)
        equal(self.answer(), "ok 0", "dial")

    def answer(self):
        check(select.select([self.process.stdout], [], [], 60)[0], "no answer in a minute")
        line = self.process.stdout.readline()
        check(line, "it ended", line or self.process.wait(20), line or self.process.stderr.read()[-3000:])
        return line.rstrip("\n")

    def __call__(self, line):
        self.begin(line)
        return self.answer()

    def begin(self, line):
        self.process.stdin.write(line + "\n")

    def waits(self):
        """For the device (epoll_wait), not for us (read)."""
        with open(f"/proc/{self.process.pid}/syscall") as f:
            return f.read().split()[0] in EPOLL_WAIT.get(os.uname().machine, "")

    def holds(self):
        """Descriptors, mappings of memory that is shared with a device."""
        proc = f"/proc/{self.process.pid}"
        with open(proc + "/maps") as f:
            return len(os.listdir(proc + "/fd")), f.read().count("memfd:")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.stdin.close()
        if kind:
            self.process.kill()
        code, err = self.process.wait(60), self.process.stderr.read()
        check(kind or (code == 0 and not err), code, err[-3000:])


@test
def fifty_restarts_leave_nothing_behind():
    with P9d() as d, Again(d.address) as c:
        open(d.tree + "/f", "w").write("0123456789")
        equal(c("open f"), "ok 0")
        for i in range(50):
            d.restart()
            equal(c("stat f"), "ok 10", f"round {i}")
            equal(c("read 4 6"), "ok 6 456789", f"round {i}")
            if i == 3:
                held = c.holds()
        equal(c.holds(), held)
        equal(held[1], 1)


@test
def what_a_killed_device_had_taken_is_in_its_books():
    for many in (1, 2):
        with P9d(options=f",queues={many}") as d, Again(f"{d.address},queues={many}") as c:
            with open(d.tree + "/f", "w") as f:
                f.write("0123456789")
                f.flush()
                fcntl.lockf(f, fcntl.LOCK_EX, 4, 0)
                equal(c("open f"), "ok 0")
                equal(c("lock 6 2"), "ok 0")
                equal(c("wait 0 4"), "ok 0")    # the device has taken it and cannot answer
                equal(c("stat f"), "ok 10")     # now it has, for sure
                d.restart()
                equal(c("read 0 4"), "ok 4 0123")
                check("1 request of a device before this one" in d.said(), d.said())
                fcntl.lockf(f, fcntl.LOCK_UN, 4, 0)
                equal(c("answer"), "ok ")       # by the second device, to the repetition
                for start in (0, 6):            # both are held, the first because it was taken again
                    try:
                        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, start)
                        raise AssertionError("the lock is not there")
                    except OSError:
                        pass


@test
def what_the_ring_still_holds_is_not_done_by_the_next_device():
    with P9d() as d, Again(d.address) as c:
        open(d.tree + "/f", "w").write("0123456789")
        equal(c("open f"), "ok 0")
        equal(c("stat f"), "ok 10")
        for i in range(8):
            d.freeze()
            c.begin("write 0 abc")
            until(c.waits, 10, "the request is on its way")
            d.restart()
            equal("EIO" in c.answer(), True, f"round {i}")     # it may have been done; it was not, and nobody did it now
            equal(c("read 0 3"), "ok 3 012")
        equal(os.listdir(d.tree), ["f"])


@test
def the_file_is_another():
    with P9d() as d, Again(d.address) as c:
        open(d.tree + "/f", "w").write("old")
        equal(c("open f"), "ok 0")
        d.kill()
        os.rename(d.tree + "/f", d.tree + "/g")
        open(d.tree + "/f", "w").write("new")
        d.restart()
        check("ESTALE" in c("read 0 3"))
        equal(c("open f"), "ok 0")
        equal(c("read 0 3"), "ok 3 new")


@test
def a_device_that_hangs_is_waited_for():
    """It could still write to our memory: nobody else gets that until it has let go."""
    with P9d() as d, Again(d.address, 60000) as c:
        open(d.tree + "/f", "w").write("0123456789")
        equal(c("open f"), "ok 0")
        d.freeze()
        c.begin("stat f")
        until(c.waits, 10, "the request is on its way")
        d.process.send_signal(signal.SIGCONT)
        equal(c.answer(), "ok 10")


# ---- devices that lie ----
def lie(words, answer=None, **how):
    """p9 stat against such a device ends by itself, with these words."""
    P9d.count += 1
    path = f"{TOP}/b{P9d.count}"
    device = backend.Device(path, answer or (lambda *_: None), **how)
    began = time.monotonic()
    r = p9("vhost-user:" + path, "stat", "a")
    device.close()
    check(r.returncode != 0, "it believed", r.stdout)
    check(words in r.stderr.decode(), f"{r.stderr.decode()!r} does not say {words!r}")
    return time.monotonic() - began


def tag(request):
    return struct.unpack("<H", request[5:7])[0]


@test
def an_honest_answer_of_the_same_device():
    lie("Permission denied (EACCES)", lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13)))


LIES = {
    "longer than its room": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), length=1 << 20),
    "an answer of 11 bytes that says it has 12": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), size=12),
    "an answer of 10 bytes that says it has 11":
        lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), length=10, size=11),
    "an answer of 3 bytes": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), length=3),
    "an answer to no request": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), head=9),
    "more answers than requests": lambda d, q, p: d.used_entry(p[0], 11, step=1000),
    "tag that is not in flight": lambda d, q, p: d.give(p, RLERROR, 77, struct.pack("<I", 13)),
    "closed the connection": lambda d, q, p: d.sock.shutdown(2),
    "found fault with one": lambda d, q, p: os.write(d.fds[backend.SET_ERR], struct.pack("=Q", 1)),
    "speaks without being asked": lambda d, q, p: d.sock.send(b"hello"),
}


@test
def lies_in_the_ring():
    for words, answer in LIES.items():
        lie(words, answer)
    lie("an answer to no request", lambda d, q, p: d.used_entry(0xFFFFFFFF, 11))
    lie("an answer to no request", lambda d, q, p: d.used_entry(d.num, 11))

    def twice(d, q, p):
        d.used_entry(p[0], 0)   # "flushed": without an answer
        d.used_entry(p[0], 11)
    lie("more answers than requests", twice)


@test
def a_device_that_scribbles_over_everything():
    def scribble(d, q, p):
        d.write(d.desc, b"\xff" * 16 * d.num)
        d.write(d.avail, b"\xff" * (6 + 2 * d.num))
        d.give(p, RLERROR, tag(q), struct.pack("<I", 13))
    lie("Permission denied (EACCES)", scribble)


@test
def lies_in_the_control_conversation():
    def on(what, reply):
        def control(d, request, flags, payload):
            if request == what:
                reply(d, request)
            return request == what
        return control
    shut = lambda d, r: d.sock.shutdown(2)  # noqa: E731
    for request in (1, 15, 17, 24, 2, 5, 8, 9, 10, 12, 13, 14, 18):
        lie("the device closed the connection (ECONNRESET)", control=on(request, shut))
    lie("came no answer, but message 2", control=on(1, lambda d, r: d.reply(2, bytes(8))))
    lie("came no answer", control=on(1, lambda d, r: d.reply(1, bytes(8), flags=1)))
    lie("has 4 bytes", control=on(1, lambda d, r: d.reply(1, bytes(4))))
    lie("has 100000 bytes", control=on(1, lambda d, r: d.sock.send(struct.pack("=III", 1, 5, 100000))))
    lie("the device refuses message 5", control=on(5, lambda d, r: d.reply(5, b"\1" + bytes(7))))
    lie("is no 9P device", features=backend.FEATURES & ~1)
    lie("older than VIRTIO 1.0", features=backend.FEATURES & ~(1 << 32))
    lie("has 0 queues", control=on(17, lambda d, r: d.reply(17, bytes(8))))


@test
def devices_with_fewer_features():
    answer = lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13))  # noqa: E731
    for less in (1 << 28, 1 << 29, 1 << 28 | 1 << 29, 1 << 30):
        lie("Permission denied (EACCES)", answer, features=backend.FEATURES & ~less)
    lie("Permission denied (EACCES)", answer, protocol=0)


class Liar:
    """A device that answers Tgetattr and Tstatfs honestly, until it is told to do something else."""

    def __init__(self, **how):
        P9d.count += 1
        self.path = f"{TOP}/b{P9d.count}"
        how.setdefault("protocol", backend.MQ | backend.REPLY_ACK | backend.CONFIG | backend.INFLIGHT)
        self.lie = None
        self.device = backend.Device(self.path, self.answer, **how)

    def answer(self, d, request, place):
        if self.lie and self.lie(d, request, place):
            return
        kind = request[4]
        if kind == 110:     # Twalk: of no names, or of one
            n, = struct.unpack("<H", request[15:17])
            d.give(place, 111, tag(request), struct.pack("<H", n) + (b"\0" + bytes(12)) * n)
        elif kind == 24:    # Tgetattr
            d.give(place, 25, tag(request), struct.pack("<Q13xIIIQQQQQ", 0x7FF, 0o100644, 0, 0, 1, 0, 7, 4096, 8) + bytes(80))
        elif kind == 120:
            d.give(place, 121, tag(request), b"")
        else:
            d.give(place, RLERROR, tag(request), struct.pack("<I", 95))

    def dies_next(self):
        """With the next request in its hands."""
        def die(d, *_):
            self.lie = None
            d.sock.shutdown(socket.SHUT_RDWR)
            return True
        self.lie = die

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.device.close()


@test
def the_same_device_is_found_again():
    with Liar() as l, Again("vhost-user:" + l.path) as c:
        for i in range(3):
            equal(c("stat a"), "ok 7")
            l.dies_next()
            equal(c("stat a"), "ok 7")
            equal(l.device.links, 2 + i)
        equal(len(set(l.device.books)), 1, l.device.books)      # each got the first one's books
        equal(len(l.device.books), 4)


@test
def old_answers_are_not_taken_for_new_ones():
    """The new device answers the old one's request, by its old tag, and otherwise than the new request of that tag."""
    with Liar() as l, Again("vhost-user:" + l.path) as c:
        l.dies_next()
        equal(c("stat a"), "ok 7")
        old = next(i for i, r in enumerate(l.device.requests) if r[4] == 110)
        equal(l.device.requests[old], l.device.requests[old + 1])       # died with it in hand, and was given it again
        check(all(r[4] != 100 for r in l.device.requests[1:old + 1]))

        def die(d, q, p):
            d.sock.shutdown(socket.SHUT_RDWR)
            l.lie = refuse
            return True

        def refuse(d, q, p):
            l.lie = None
            d.give(p, RLERROR, tag(q), struct.pack("<I", 13))
            return True
        l.lie = die
        equal(c("stat a"), "ok 7")      # EACCES was said to the request of the link that was lost


@test
def without_books_the_rings_begin_anew():
    with Liar(protocol=backend.MQ | backend.REPLY_ACK | backend.CONFIG) as l, Again("vhost-user:" + l.path) as c:
        for i in range(3):
            l.dies_next()
            equal(c("stat a"), "ok 7", f"round {i}")
        equal(l.device.books, [])


@test
def books_that_were_cut_are_not_used():
    with Liar() as l, Again("vhost-user:" + l.path) as c:
        l.dies_next()
        os.ftruncate(l.device.memfd, 5)
        equal(c("stat a"), "ok 7")
        equal(len(set(l.device.books)), 2, "the second has books of its own")


@test
def books_that_are_refused_are_not_shown_again():
    with Liar() as l, Again("vhost-user:" + l.path) as c:
        refused = []

        def control(d, request, flags, payload):
            if request == backend.SET_INFLIGHT and d.links == 2:
                d.reply(request, b"\1" + bytes(7))
                refused.append(1)
                return True
            return False
        l.device.control = control
        l.dies_next()
        equal(c("stat a"), "ok 7")
        equal(refused, [1])
        equal(len(set(l.device.books)), 2)


@test
def other_features():
    for features in (backend.FEATURES & ~(1 << 28), backend.FEATURES & ~(1 << 29), backend.FEATURES & ~(3 << 28)):
        with Liar() as l, Again("vhost-user:" + l.path) as c:
            l.dies_next()
            l.device.features = features
            equal(c("stat a"), "ok 7", hex(features))
            l.dies_next()
            l.device.features = backend.FEATURES
            equal(c("stat a"), "ok 7", hex(features))


def never_again(words, change, ms=1500):
    with Liar() as l, Again("vhost-user:" + l.path, ms) as c:
        l.dies_next()
        change(l.device)
        got = c("stat a")
        check(got.startswith("error") and words in got, f"{got!r} does not say {words!r}")


@test
def lies_of_a_device_that_is_back():
    def control(what, do):
        def change(d):
            d.control = lambda d, request, flags, payload: d.links > 1 and request == what and (do(d), True)[1]
        return change
    no = lambda request: control(request, lambda d: d.reply(request, b"\1" + bytes(7)))  # noqa: E731
    never_again('tag is "other", not "tag"', lambda d: setattr(d, "tag", b"other"))
    never_again("the device refuses message 8", no(backend.SET_NUM))        # rings as long as ours were
    never_again("the device refuses message 5", no(backend.SET_MEM_TABLE))
    never_again("is no 9P device", lambda d: setattr(d, "features", backend.FEATURES & ~1))
    never_again("came no answer, but message 2", control(1, lambda d: d.reply(2, bytes(8))))
    never_again("has 0 queues", control(17, lambda d: d.reply(17, bytes(8))))
    never_again("did not answer for 3 s", control(1, lambda d: None), 5000)


@test
def lies_in_the_ring_of_a_device_that_is_back():
    def first(do):
        """With the first request of the second link, which is an old one."""
        def lie(d, q, p):
            if d.links < 2:
                d.sock.shutdown(socket.SHUT_RDWR)
                return True
            do(d, q, p)
            return True
        return lie
    for words, do in (("more answers than requests", lambda d, q, p: d.used_entry(p[0], 11, step=1000)),
                      ("an answer to no request", lambda d, q, p: d.used_entry(9, 11)),
                      ("longer than its room", lambda d, q, p: d.used_entry(p[0], 1 << 20))):
        with Liar() as l, Again("vhost-user:" + l.path, 5000) as c:
            l.lie = first(do)
            got = c("stat a")
            check(got.startswith("error") and words in got, f"{got!r} does not say {words!r}")


@test
def a_device_that_never_answers():
    took = lie("did not answer for 10 s", control=lambda d, r, f, p: r == 1)
    check(9 < took < 30, took)


def main():
    global OPT
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--p9", default=os.path.join(ROOT, "build", "p9"))
    ap.add_argument("--p9d", default=os.path.join(ROOT, "build", "p9d"))
    ap.add_argument("--only", default="")
    OPT = ap.parse_args()
    passed = failed = skipped = 0
    for t in TESTS:
        name = t.__name__.replace("_", " ")
        if OPT.only not in name:
            continue
        try:
            t()
            passed += 1
            print("ok     ", name, flush=True)
        except Skip as e:
            skipped += 1
            print("skipped", name, "-", e, flush=True)
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            print("FAILED ", name, "-", e, flush=True)
    shutil.rmtree(TOP, ignore_errors=True)
    print(f"front: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
