# SPDX-License-Identifier: BSD-2-Clause
"""Guests and monitors that mean harm: their queue or their link ends; p9d and the other devices live."""
import os
import random
import select
import struct
import time

import common
import frontend as vu
import ninep
from common import check, equal, suite, until
from ninep import Closed, Late, T
from setup import DATA, Device, quiet_for, works
from v_rings import read_message

GETATTR = ninep.frame(T["getattr"], 5, struct.pack("<IQ", 0, 0x3FFF))


def stopped(g, why=None, s=None):
    """The queue was stopped, the monitor told, nothing given back, and the link lives."""
    r = g.rings[0]
    check(select.select([r.err], [], [], 30)[0], f"err is not signalled: {why}")
    os.eventfd_read(r.err)
    g.monitor.u64(vu.GET_FEATURES)
    if s and why:
        until(lambda: why in s.output(), 5, f"the log has no \"{why}\": {s.output()[-600:]}")


class Abuse:
    """Descriptors written by hand, at the end of memory."""

    def __init__(self, s, **options):
        self.s = s
        self.g = s.guest(**options)
        self.mem, self.ring = self.g.mem, self.g.rings[0]
        self.t = self.mem.alloc(1 << 16, 4096)
        self.w = self.mem.alloc(1 << 16, 4096)
        self.table = self.mem.alloc(1 << 16, 4096)
        self.mem.write(self.t, GETATTR)
        self.n = len(GETATTR)

    def good(self):
        self.ring.put_desc(0, self.t, self.n, vu.NEXT, 1)
        self.ring.put_desc(1, self.w, 4096, vu.WRITE, 0)

    def go(self, head=0):
        self.ring.offer(head)
        self.ring.ring_bell()


def loop_of_two(a):
    a.ring.put_desc(0, a.t, a.n, vu.NEXT, 1)
    a.ring.put_desc(1, a.w, 16, vu.NEXT | vu.WRITE, 1)
    a.go()


def loop_of_one(a):
    a.ring.put_desc(0, a.t, 1, vu.NEXT, 0)
    a.go()


def loop_in_a_table(a):
    a.ring.put_desc(0, a.table, 64, vu.INDIRECT_DESC)
    a.ring.put_desc(0, a.t, a.n, vu.NEXT, 1, a.table)
    a.ring.put_desc(1, a.w, 16, vu.NEXT | vu.WRITE, 1, a.table)
    a.go()


def nested_table(a):
    a.ring.put_desc(0, a.table, 32, vu.INDIRECT_DESC)
    a.ring.put_desc(0, a.t, a.n, vu.NEXT, 1, a.table)
    a.ring.put_desc(1, a.table, 32, vu.INDIRECT_DESC, 0, a.table)
    a.go()


def table_with_next(a):
    a.good()
    a.ring.put_desc(0, a.table, 32, vu.INDIRECT_DESC | vu.NEXT, 1)
    a.go()


def table(n, addr=None):
    def act(a):
        a.ring.put_desc(0, a.t, a.n, vu.NEXT, 1, a.table)
        a.ring.put_desc(1, a.w, 4096, vu.WRITE, 0, a.table)
        a.ring.put_desc(0, a.table if addr is None else addr, n, vu.INDIRECT_DESC)
        a.go()
    return act


def table_next_outside(a):
    a.ring.put_desc(0, a.table, 32, vu.INDIRECT_DESC)
    a.ring.put_desc(0, a.t, a.n, vu.NEXT, 2, a.table)
    a.go()


def pieces(*descriptors):
    """(address or None for the message, length, flags)"""
    def act(a):
        for i, (addr, n, flags) in enumerate(descriptors):
            last = i == len(descriptors) - 1
            at = {None: a.t, "w": a.w}.get(addr, addr)
            a.ring.put_desc(i, at, n, flags | (0 if last else vu.NEXT), i + 1)
        a.go()
    return act


def head(n):
    def act(a):
        a.good()
        a.go(n)
    return act


def jump(n):
    def act(a):
        a.good()
        a.mem.put("<H", a.ring.avail + 2, (a.ring.idx + n) & 0xFFFF)
        a.ring.ring_bell()
    return act


def message(data, readable=None, writable=4096):
    def act(a):
        a.mem.write(a.t, data)
        a.ring.put_desc(0, a.t, len(data) if readable is None else readable, vu.NEXT, 1)
        a.ring.put_desc(1, a.w, writable, vu.WRITE)
        a.go()
    return act


N, W = len(GETATTR), vu.WRITE
OUTSIDE = vu.GUEST + (16 << 20)
CASES = {
    "a loop of one": loop_of_one, "a loop of two": loop_of_two, "a loop in a table": loop_in_a_table,
    "a nested table": nested_table, "a table with a next one": table_with_next, "a next one outside of its table":
    table_next_outside, "a table without length": table(0), "a table of 15 bytes": table(15), "a table of 33 bytes": table(33),
    "a table outside of memory": table(32, OUTSIDE), "a table that ends outside": table(32, OUTSIDE - 16),
    "a table that wraps": table(32, (1 << 64) - 16),
    "next outside of the ring": lambda a: (a.ring.put_desc(0, a.t, a.n, vu.NEXT, 128), a.go()),
    "an address outside": pieces((0, N, 0), ("w", 4096, W)), "room outside": pieces((None, N, 0), (OUTSIDE, 64, W)),
    "room that ends outside": pieces((None, N, 0), (OUTSIDE - 32, 64, W)),
    "an address that wraps": pieces(((1 << 64) - 8, 64, 0), ("w", 4096, W)),
    "a length that wraps": pieces((None, 0xFFFFFFFF, 0), ("w", 4096, W)), "the monitor's address":
    pieces((vu.USER, N, 0), ("w", 4096, W)), "no length": pieces((None, N, 0), (None, 0, 0), ("w", 4096, W)),
    "readable after writable": pieces((None, N, 0), ("w", 100, W), (None, 10, 0)), "only writable": pieces(("w", 4096, W)),
    "only readable": pieces((None, N, 0)), "10 bytes of room": pieces((None, N, 0), ("w", 10, W)),
    "6 bytes to read": pieces((None, 6, 0), ("w", 4096, W)), "a head at the size": head(128), "a head of 65535": head(0xFFFF),
    "an index that jumps": jump(129), "an index that jumps far": jump(30000), "an index that goes back": jump(-1),
    "size 0": message(struct.pack("<IBH", 0, 24, 1)), "size 6": message(struct.pack("<IBH", 6, 24, 1)),
    "size above what is there": message(struct.pack("<IBHIQ", 20, 24, 1, 0, 0)), "size 4 GiB":
    message(struct.pack("<IBHIQ", 0xFFFFFFFF, 24, 1, 0, 0)), "a Twrite that is shorter than its head":
    message(struct.pack("<IBH", 0xFFFFFFFF, 118, 1)), "an R message": message(ninep.frame(25, 5, bytes(153))),
    "a message above msize": message(ninep.frame(T["walk"], 5, bytes(60000)), 60007, 4096),
}


@suite.test
def hostile_rings_are_stopped():
    """Each on a device of its own, with others beside it; err is signalled, the log says why, nothing leaks."""
    with Device() as s:
        other = s.guest()
        a = Abuse(s)
        a.good()
        a.go()
        until(lambda: a.ring.used_idx() == 3)  # it works when nothing is wrong: Tversion, Tattach, this
        a.g.monitor.close()
        before = None
        for name, act in CASES.items():
            a = Abuse(s, msize=16384)
            used = a.ring.used_idx()
            act(a)
            try:
                stopped(a.g, None if before is None else " is stopped: ", s)
            except AssertionError as e:
                raise AssertionError(f"{name}: {e}") from None
            equal(a.ring.used_idx(), used, f"{name}: given back")
            works(other)
            a.good()
            a.mem.write(a.t, GETATTR)
            a.go()
            quiet_for(0.01)
            equal(a.ring.used_idx(), used, f"{name}: the queue goes on")
            a.g.monitor.get_base(0)
            a.g.monitor.close()
            for fd in (a.ring.kick, a.ring.call, a.ring.err):
                os.close(fd)
            a.mem.close()
            if before is None:
                until(lambda: s.stats()[0] == 1)
                before = s.fds()
        until(lambda: s.stats()[0] == 1)
        until(lambda: s.fds() <= before, 5, f"descriptors: {before} before, {s.fds()} after")
        s.alive()


@suite.test
def hostile_queue_is_usable_after_a_restart():
    """What a monitor does with a queue that broke: stop, reset, start."""
    with Device() as s:
        a = Abuse(s)
        loop_of_one(a)
        stopped(a.g)
        a.g.monitor.stop(0)
        a.ring.reset()
        a.g.out.clear()
        a.g.monitor.start(0, a.ring)
        a.g.version(65536)
        a.g.attach()
        works(a.g)


@suite.test
def hostile_malformed_messages_are_answered():
    """EPROTO and so on for a bad body in a good frame; after 64 of them the queue is stopped."""
    with Device() as s:
        g = s.guest()
        for i in range(63):
            equal(g.outcome(g.send(T["getattr"], b"\0" * (i % 11))), 71)
        works(g)
        g.send(T["walk"], b"\xff" * 100)
        stopped(g)
        g.monitor.get_base(0)


@suite.test
def hostile_same_buffer_for_all():
    """Overlapping chains: request, reply and rings in the same bytes. The guest only harms itself."""
    with Device() as s:
        other = s.guest()
        for target in ("request", "desc", "avail", "used", "table"):
            a = Abuse(s)
            g, r = a.g, a.ring
            f = g.open(0, "f")
            at = {"request": a.t, "desc": r.desc, "avail": r.avail, "used": r.used, "table": a.table}[target]
            a.mem.write(a.t, read_message(f, 0, 4085))
            a.ring.put_desc(0, a.t, 23, vu.NEXT, 1, a.table)
            a.ring.put_desc(1, at & ~0xFFF, 4096, vu.WRITE, 0, a.table)
            for _ in range(5):
                r.put_desc(0, a.table, 32, vu.INDIRECT_DESC)
                r.offer(0)
                r.ring_bell()
                quiet_for(0.01)
            works(other)
            g.monitor.get_base(0)
            g.monitor.close()


@suite.test
def hostile_control_bytes():
    """Random bytes, random messages, long and short ones, too many descriptors; always the same p9d."""
    rng = random.Random(1)
    with Device() as s:
        other = s.guest()
        other_fds = s.fds()
        event = vu.eventfd()
        for i in range(400):
            m = s.monitor(ack=False)
            kind = i % 8
            try:
                if kind == 0:
                    m.raw(rng.randbytes(rng.randrange(1, 600)))
                elif kind == 1:
                    m.raw(struct.pack("<III", rng.randrange(45), 1, rng.choice((513, 4096, 0x7FFFFFFF, 0xFFFFFFFF))))
                elif kind == 2:
                    m.raw(struct.pack("<III", 1, rng.choice((0, 2, 3, 5)), 0))
                elif kind == 3:
                    m.send(vu.SET_OWNER, b"", [event] * rng.randrange(9, 200))
                elif kind == 4:
                    m.raw(struct.pack("<III", 5, 1, 264)[:rng.randrange(1, 12)], [event] * 3)
                elif kind == 5:
                    m.raw(b"\1", [event] * 8)
                    m.raw(b"\0", [event] * 8)
                else:
                    for _ in range(30):
                        n = rng.randrange(0, 45)
                        m.send(n, rng.randbytes(rng.choice((0, 4, 8, 12, 20, 24, 40, 264, 512))),
                               [event] * rng.choice((0, 0, 0, 1, 1, 2, 8)), rng.choice((0, 8)))
                m.raw(b"")
            except (vu.Gone, OSError):
                pass
            m.close()
            if i % 40 == 0:
                works(other)
        until(lambda: s.stats()[0] == 1, 10, "connections are left")
        until(lambda: s.fds() <= other_fds, 5, "descriptors are left")
        os.close(event)


@suite.test
def hostile_monitor_that_does_not_read():
    """Thousands of questions and no look at the answers: its link ends, nobody else waits."""
    with Device() as s:
        other = s.guest()
        m = s.monitor(timeout=10)
        m.sock.settimeout(1)
        try:
            for _ in range(100000):
                m.raw(struct.pack("<III", vu.GET_CONFIG, 1, 12) + struct.pack("<III", 0, 256, 0))
        except (vu.Gone, TimeoutError, OSError):
            pass
        works(other)
        until(lambda: s.stats()[0] == 1, 10, "it is still there")


@suite.test
def hostile_bytes_of_the_rings_flip():
    """A second process writes into rings, tables and messages while requests run; for some seconds."""
    seconds = 6 if common.sanitized() else 4
    with Device(options=",queues=2") as s:
        other = s.guest()
        deadline, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            g = s.guest(queues=2, num=32, mem=vu.Memory(vu.Region(4 << 20, vu.GUEST, vu.USER)))
            f, w = g.open(0, "f"), g.create(0, f"w{rounds}")
            pid = os.fork()
            if pid == 0:
                flip(g, rounds)
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                try:
                    tags = g.batch([("read", f, 0, 5000), ("write", w, 0, DATA[:3000]), ("walk", 0, g.fid(), "f"),
                                    ("getattr", f), ("readdir", 0, 0, 2000)])
                    for t in tags:
                        g.reply(t, 0.02)
                except (Closed, Late, AssertionError, struct.error, BufferError, KeyError, IndexError, MemoryError):
                    for r in g.rings:
                        r.ring_bell()
                    if vu.select.select([r.err for r in g.rings], [], [], 0)[0]:
                        break
            os.waitpid(pid, 0)
            works(other)
            g.monitor.close()
            for r in g.rings:
                r.close()
            g.mem.close()
            rounds += 1
        check(rounds > 3, rounds)
        s.alive()
        works(other)
        other.monitor.close()
        s.gone()


def flip(g, seed):
    rng = random.Random(seed)
    r, mem = g.rings[seed % 2], g.mem
    places = [(r.desc, 512), (r.avail, 70), (r.used, 260), (mem.regions[0].guest, mem.at - mem.regions[0].guest)]
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        at, n = places[rng.choice((0, 0, 1, 1, 2, 3, 3, 3))] if seed % 3 else places[3]
        at += rng.randrange(n)
        old = mem.read(at, 1)
        mem.write(at, bytes([rng.choice((0, 1, 4, 0x80, 0xFF, rng.randrange(256)))]))
        if rng.random() < 0.8:
            mem.write(at, old)
    os._exit(0)
