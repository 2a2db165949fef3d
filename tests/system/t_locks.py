# SPDX-License-Identifier: BSD-2-Clause
"""Byte-range locks: against a model, against processes of the host, waiting, cancelled, expired, with every way to let go."""
import errno
import fcntl
import os
import random
import struct
import time

from common import P9d, check, equal, fresh, put, quickly, suite, until
from ninep import BLOCK, BLOCKED, O_RDONLY, O_RDWR, RDLCK, SUCCESS, UNLCK, WRLCK

F_OFD_GETLK, F_OFD_SETLK = 36, 37
SPACE = 64  # bytes that the model knows


def export():
    d = fresh()
    put(d + "/f", bytes(1000))
    return d


def host_lock(fd, kind, start, length, command=F_OFD_SETLK):
    """An open-file-description lock (or F_SETLK: a POSIX one) of this process. False when somebody is in the way."""
    types = {RDLCK: fcntl.F_RDLCK, WRLCK: fcntl.F_WRLCK, UNLCK: fcntl.F_UNLCK}
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", types[kind], os.SEEK_SET, start, length, 0))
        return True
    except OSError as e:
        check(e.errno in (errno.EAGAIN, errno.EACCES), e)
        return False


class Model:
    """Who holds what, byte by byte: owner -> kind. The last byte stands for all behind the space."""

    def __init__(self):
        self.bytes = [{} for _ in range(SPACE + 1)]

    @staticmethod
    def span(start, length):
        return range(start, start + length if length else SPACE + 1)

    def blocked(self, owner, kind, start, length):
        return any(o != owner and WRLCK in (k, kind) for at in self.span(start, length) for o, k in self.bytes[at].items())

    def set(self, owner, kind, start, length):
        if kind != UNLCK and self.blocked(owner, kind, start, length):
            return BLOCKED
        for at in self.span(start, length):
            if kind == UNLCK:
                self.bytes[at].pop(owner, None)
            else:
                self.bytes[at][owner] = kind
        return SUCCESS


@suite.test
def lock_random_ranges_as_the_model_has_them():
    """Two clients with two owners each, and a process of the host; every answer, and Tgetlock at times."""
    d, rnd = export(), random.Random(9)
    with P9d("-e", f"x={d}") as s:
        model, conns = Model(), [s.conn(), s.conn()]
        fids = [[c.open(0, "f", flags=O_RDWR) for _ in range(2)] for c in conns]
        host = os.open(d + "/f", os.O_RDWR)
        for step in range(10000):
            kind = rnd.choice((RDLCK, WRLCK, UNLCK, UNLCK))
            start = rnd.randrange(SPACE)
            length = rnd.choice((0, *range(1, min(12, SPACE - start) + 1)))
            who = rnd.randrange(5)
            if who == 4:
                want = model.set("host", kind, start, length)
                equal(host_lock(host, kind, start, length), want == SUCCESS, f"step {step}, host")
                continue
            c, proc = conns[who % 2], 100 + who // 2
            fid = fids[who % 2][rnd.randrange(2)]  # two fids of one owner do not conflict
            if step % 7 == 0 and kind != UNLCK:
                want = model.blocked(who, kind, start, length)
                got = c.getlock(fid, kind, start, length, proc)
                equal(got[0] != UNLCK, want, f"step {step}: Tgetlock {kind} {start}+{length} by {who}: {got}")
            else:
                want = model.set(who, kind, start, length)
                equal(c.lock(fid, kind, start, length, proc), want, f"step {step}: {kind} {start}+{length} by {who}")
        # what the kernel thinks, at every byte
        probe = os.open(d + "/f", os.O_RDWR)
        for at in range(SPACE + 1):
            others = [k for k in model.bytes[at].values()]
            for kind in (RDLCK, WRLCK):
                want = not any(WRLCK in (k, kind) for k in others)
                equal(host_lock(probe, kind, at, 1), want, f"byte {at} at the end")
            host_lock(probe, UNLCK, 0, 0)
        os.close(probe)
        for c in conns:
            c.close()
        until(lambda: s.stats()[0] == 0)
        host_lock(host, UNLCK, 0, 0)
        check(host_lock(host, WRLCK, 0, 0), "locks outlive their connection")
        os.close(host)


@suite.test
def lock_holds_against_processes_of_the_host():
    d = export()
    with P9d("-e", f"x={d}") as s, open(d + "/f", "r+b") as ofd, open(d + "/f", "r+b") as posix:
        c = s.conn()
        f = c.open(0, "f", flags=O_RDWR)
        equal(c.lock(f, WRLCK, 10, 10), SUCCESS)
        check(not host_lock(ofd.fileno(), RDLCK, 0, 0), "an OFD lock was granted over ours")
        check(not host_lock(posix.fileno(), WRLCK, 15, 1, fcntl.F_SETLK), "a POSIX lock was granted over ours")
        check(host_lock(posix.fileno(), WRLCK, 20, 5, fcntl.F_SETLK))
        equal(c.lock(f, WRLCK, 20, 1), BLOCKED)
        got = c.getlock(f, WRLCK, 20, 1)
        equal((got[:3], got[3]), ((WRLCK, 20, 5), os.getpid()), "a process of the host is named")
        host_lock(posix.fileno(), UNLCK, 0, 0, fcntl.F_SETLK)
        check(host_lock(ofd.fileno(), WRLCK, 30, 1))
        equal(c.lock(f, RDLCK, 30, 1), BLOCKED)
        equal(c.lock(f, UNLCK, 0, 0), SUCCESS)
        check(host_lock(ofd.fileno(), WRLCK, 0, 0), "a released lock holds on")


@suite.test
def lock_holder_is_named():
    d = export()
    with P9d("-e", f"x={d}") as s:
        a, b = s.conn(), s.conn()
        fa, fb = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR)
        equal(a.lock(fa, RDLCK, 5, 10, 77, "client-a"), SUCCESS)
        equal(b.getlock(fb, WRLCK, 0, 0, 5, "client-b"), (RDLCK, 5, 10, 77, "client-a"))
        equal(b.getlock(fb, RDLCK, 0, 0, 5, "client-b")[0], UNLCK)
        equal(a.getlock(fa, WRLCK, 0, 0, 77, "client-a")[0], UNLCK, "one's own lock is not in the way")
        equal(a.getlock(fa, WRLCK, 0, 0, 78, "client-a")[3], 77, "another process of the same client")
        long = "x" * 3000
        equal(a.lock(fa, WRLCK, 100, 1, 1, long), SUCCESS)
        equal(b.getlock(fb, WRLCK, 100, 1)[4], long)


def waiting(s, d):
    """(holder, its fid, waiter, tag that waits, its fid)"""
    a, b = s.conn(), s.conn()
    fa, fb = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR)
    equal(a.lock(fa, WRLCK, 0, 10), SUCCESS)
    tag = b._lock(fb, WRLCK, BLOCK, 5, 10, 2, "w")
    time.sleep(0.15)
    check(not b.answered(tag), "a blocking lock was answered at once")
    return a, fa, b, tag, fb


@suite.test
def lock_waits_until_it_is_let_go():
    d = export()
    releases = {
        "unlock": lambda a, f: a.lock(f, UNLCK, 0, 0), "unlock of a part": lambda a, f: a.lock(f, UNLCK, 5, 5),
        "clunk": lambda a, f: a.clunk(f), "disconnect": lambda a, f: a.close(), "Tversion": lambda a, f: a.version(65536),
        "unlock by another fid": lambda a, f: a.lock(a.open(0, "f", flags=O_RDWR), UNLCK, 0, 0)}
    with P9d("-e", f"x={d}") as s:
        for how, release in releases.items():
            a, fa, b, tag, fb = waiting(s, d)
            release(a, fa)
            equal(b.wait(tag)[0], SUCCESS, how)
            b.getattr(fb)
            a.close()
            b.close()
        with open(d + "/f", "r+b") as host:
            until(lambda: host_lock(host.fileno(), WRLCK, 0, 0))
            b = s.conn()
            tag = b._lock(b.open(0, "f", flags=O_RDWR), WRLCK, BLOCK, 0, 0, 1, "w")
            time.sleep(0.1)
            check(not b.answered(tag))
            host_lock(host.fileno(), UNLCK, 0, 0)
            equal(b.wait(tag)[0], SUCCESS, "let go by a process of the host")


@suite.test
def lock_waits_without_a_thread():
    d = export()
    with P9d("-e", f"x={d}", "--workers", "4") as s:
        a, fa, b, tag, fb = waiting(s, d)
        more = [b._lock(fb, WRLCK, BLOCK, 0, 1, 1000 + i, "w") for i in range(63)]
        for _ in range(20):
            quickly(lambda: b.getattr(fb))
        over = b._lock(fb, WRLCK, BLOCK, 0, 1, 5000, "w")
        equal(b.wait(over)[0], BLOCKED, "one more than may wait")
        check(int(s.status("Threads")) < 16, f"{s.status('Threads')} threads")
        a.lock(fa, UNLCK, 0, 0)
        equal(b.wait(tag)[0], SUCCESS)
        # all 63 want byte 0: each lets go when it has it
        left = set(more)
        deadline = time.monotonic() + 60
        while left and time.monotonic() < deadline:
            b.settle(0.02)
            for t in [t for t in left if b.got.get(t)]:
                equal(b.wait(t)[0], SUCCESS)
                left.remove(t)
                b.lock(fb, UNLCK, 0, 1, 1000 + more.index(t), "w")
        check(not left, f"{len(left)} that wait were forgotten")


@suite.test
def lock_flush_ends_the_waiting():
    d = export()
    with P9d("-e", f"x={d}") as s:
        a, fa, b, tag, fb = waiting(s, d)
        quickly(lambda: b.flush(tag))
        a.lock(fa, UNLCK, 0, 0)
        b.settle(0.1)
        check(tag not in b.order, "a flushed lock was answered")
        equal(a.lock(fa, WRLCK, 0, 0), SUCCESS, "a flushed lock was taken all the same")


@suite.test
def lock_clunk_of_a_waiting_fid():
    d = export()
    with P9d("-e", f"x={d}") as s:
        a, fa, b, tag, fb = waiting(s, d)
        b.clunk(fb)
        equal(b.outcome(tag), errno.EBADF)
        equal(a.lock(fa, UNLCK, 0, 0), SUCCESS)


@suite.test
def lock_clunk_in_the_middle_of_a_retry():
    """A blocking lock, releases that make it try again, and its clunk, as close together as it goes."""
    d = export()
    with P9d("-e", f"x={d}") as s:
        a, b = s.conn(), s.conn()
        fa, fb = a.open(0, "f", flags=O_RDWR), a.open(0, "f", flags=O_RDWR)
        equal(a.lock(fa, WRLCK, 0, 10, 9), SUCCESS)
        for i in range(400):
            f = b.open(0, "f", flags=O_RDWR)
            t = b._lock(f, WRLCK, BLOCK, 0, 10, 1, "t")
            for _ in range(i % 7):
                a.lock(fb, UNLCK, 100, 1, 9)
            k = b._clunk(f)
            check(b.outcome(t) in (errno.EBADF, 0))
            equal(b.outcome(k), 0)
        s.alive()


@suite.test
def lock_wait_runs_out():
    d = export()
    with P9d("-e", f"x={d}", "--lock-wait", "1") as s:
        began = time.monotonic()
        a, _, b, tag, fb = waiting(s, d)
        equal(b.wait(tag)[0], BLOCKED)
        check(0.9 < time.monotonic() - began < 2.5, f"after {time.monotonic() - began:.2f} s")
        a.close()
        until(lambda: b.lock(fb, WRLCK, 0, 0) == SUCCESS)


@suite.test
def lock_wait_runs_out_while_others_come_and_go():
    d = export()
    with P9d("-e", f"x={d}", "--lock-wait", "1", "--loops", "1") as s, open(d + "/f", "r+b") as host:
        check(host_lock(host.fileno(), WRLCK, 0, 0))
        a, b = s.conn(), s.conn()
        fa, fb = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR)
        began = time.monotonic()
        tag = a._lock(fa, WRLCK, BLOCK, 0, 5, 1, "t")
        while not a.answered(tag) and time.monotonic() - began < 4:
            b.flush(b._lock(fb, WRLCK, BLOCK, 0, 5, 2, "t"))
            time.sleep(0.01)
        took = time.monotonic() - began
        check(took < 2, f"a lock that waits for 1 s was answered after {took:.1f} s")


@suite.test
def lock_rules():
    d = export()
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        rw, ro = c.open(0, "f", flags=O_RDWR), c.open(0, "f", flags=O_RDONLY)
        cases = {
            "write lock on a read-only fid": ((ro, WRLCK, 0, 0, 1), errno.EBADF),
            "range past the end of numbers": ((rw, WRLCK, 2**63 - 1, 2, 1), errno.EINVAL),
            "start past it": ((rw, WRLCK, 2**63, 1, 1), errno.EINVAL),
            "unknown type": ((rw, 3, 0, 1, 1), errno.EINVAL)}
        for what, (args, want) in cases.items():
            equal(c.outcome(c._lock(args[0], args[1], 0, *args[2:], "t")), want, what)
        equal(c.outcome(c._lock(rw, WRLCK, 4, 0, 1, 1, "t")), errno.EINVAL, "unknown flag")
        equal(c.outcome(c._lock(c.walk(0, "f"), WRLCK, 0, 0, 1, 1, "t")), errno.EBADF, "not open")
        equal(c.lock(rw, WRLCK, 2**63 - 1, 1), SUCCESS)
        n, code = 0, 0
        while n < 5000 and not code:
            tags = [c._lock(rw, RDLCK, 0, 2 * (n + i), 1, 7, "t") for i in range(200)]
            codes = [c.outcome(t) for t in tags]
            code, n = max(codes), n + 200
        equal(code, errno.ENOLCK, "thousands of ranges")
        c.clunk(rw)
        equal(c.lock(ro, RDLCK, 0, 0, 8), SUCCESS)


@suite.test
def lock_ranges_that_unlocks_make_are_counted():
    """One lock, cut in pieces by unlocks; and owners whose names are as long as a message allows."""
    d = export()
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        fid = c.open(0, "f", flags=O_RDWR)
        equal(c.lock(fid, WRLCK, 0, 0), SUCCESS)
        n, code = 0, 0
        while n < 8000 and not code:
            codes = [c.outcome(t) for t in [c._lock(fid, UNLCK, 0, 2 * (n + i) + 1, 1, 1, "t") for i in range(200)]]
            code, n = max(codes), n + 200
        equal((code, n < 4500), (errno.ENOLCK, True), f"after {n} unlocks")
        equal(c.lock(fid, UNLCK, 0, 0), SUCCESS, "all at once can be let go")
        codes = [c.outcome(c._lock(fid, RDLCK, 0, 0, 1, i, "x" * 60000)) for i in range(40)]
        check(codes[0] == 0 and codes[-1] == errno.ENOLCK, codes)
        equal(c.lock(fid, UNLCK, 0, 0, 0, "x" * 60000), SUCCESS)
        equal(c.lock(fid, RDLCK, 0, 0, 99, "x" * 60000), SUCCESS, "what was let go is there again")
        c.clunk(fid)
        fid = c.open(0, "f", flags=O_RDWR)
        equal(c.lock(fid, WRLCK, 0, 0), SUCCESS)


@suite.test
def lock_owners_of_one_fid_that_cannot_be_opened_again():
    """They share the fid's description, in which the kernel sees no conflict."""
    d = export()
    os.chown(d + "/f", 1000, 1000)
    with P9d("-e", f"x={d},checks=server") as s:
        c = s.conn(uid=1000)
        fid = c.open(0, "f", flags=O_RDWR)
        os.chmod(d + "/f", 0)
        equal(c.lock(fid, WRLCK, 0, 10, proc=1), SUCCESS)
        equal(c.lock(fid, WRLCK, 5, 10, proc=2), BLOCKED)
        equal(c.lock(fid, RDLCK, 9, 1, proc=2), BLOCKED)
        equal(c.lock(fid, WRLCK, 10, 10, proc=2), SUCCESS)
        equal(c.getlock(fid, WRLCK, 0, 0, proc=2)[:4], (WRLCK, 0, 10, 1))
        equal(c.lock(fid, UNLCK, 0, 10, proc=1), SUCCESS)
        equal(c.lock(fid, WRLCK, 5, 3, proc=2), SUCCESS)
        c.close()
