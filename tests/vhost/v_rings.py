# SPDX-License-Identifier: BSD-2-Clause
"""Requests as chains of descriptors: every cut, every size of ring, notifications, flushes."""
import errno
import os
import struct

import frontend as vu
import ninep
from common import HangFs, check, denied, equal, put, suite, until
from ninep import BLOCK, Closed, Late, O_RDWR, T, WRLCK
from setup import DATA, Device, quiet_for, works


def raw(g, message, readable, room, indirect=True):
    """Sends a message cut into pieces of these lengths, with room cut so; returns (used.len, bytes of the reply)."""
    ring, mem = g.rings[0], g.mem
    at, pieces, back = 0, [], []
    for n in readable:
        p = mem.alloc(n)
        mem.write(p, message[at:at + n].ljust(n, b"\xEE"))
        pieces.append((p, n, False))
        at += n
    for n in room:
        p = mem.alloc(n)
        mem.write(p, b"\xDD" * n)
        pieces.append((p, n, True))
        back.append((p, n))
    ring.submit(ring.chain(pieces, indirect))
    until(lambda: ring.used_idx() != ring.seen, 10, "no reply")
    (_, n), = ring.take()
    data = b"".join(mem.read(p, k) for p, k in back)
    for p, k, _ in pieces:
        mem.release(p, k)
    return n, data


def read_message(f, offset, count, tag=7):
    return ninep.frame(T["read"], tag, struct.pack("<IQI", f, offset, count))


@suite.test
def rings_cut_anywhere():
    with Device() as s:
        for features in (vu.FEATURES, vu.FEATURES & ~vu.INDIRECT, vu.FEATURES & ~vu.EVENT_IDX):
            g = s.guest(features=features)
            f = g.open(0, "f")
            for count in (1, 100, 5000):
                want = struct.pack("<IBHI", 11 + count, 117, 7, count) + DATA[50:50 + count]
                message = read_message(f, 50, count)
                for cut in ([23], [1] * 23, [7, 16], [6, 17], [4, 3, 16], [22, 1], [23, 1], [40]):
                    for room in ([11 + count], [11, count], [1] * 11 + [count], [5, 6 + count], [10, 1, count], [12 + count],
                                 [4, 3, 3, count + 1], [11 + count, 4096]):
                        n, data = raw(g, message, cut, room)
                        equal((n, data[:n]), (11 + count, want), f"{cut} {room}")
                        check(set(data[n:]) <= {0xDD}, "written behind the reply")
            w = g.create(0, f"w{features:x}")
            data = DATA[:3000]
            message = ninep.frame(T["write"], 9, struct.pack("<IQI", w, 5, len(data)) + data)
            for cut in ([3023], [23, 3000], [22, 3001], [24, 2999], [1] * 23 + [1500, 1500], [1000, 1000, 1023], [3023, 50]):
                n, reply = raw(g, message, cut, [11])
                equal((n, reply[:n]), (11, struct.pack("<IBHI", 11, 119, 9, 3000)), cut)
            with open(s.tree + f"/w{features:x}", "rb") as made:
                equal(made.read(), bytes(5) + data)
            g.monitor.close()


@suite.test
def rings_as_linux_cuts_them():
    """Zero copy of 19 to 128 descriptors, [11][rest of a page][4096]*n, also at a msize of 512000; at any offset in a page."""
    with Device() as s:
        g = s.guest(512000)
        g.mem.at += 100
        f, w = g.open(0, "f"), g.create(0, "w")
        for count in (1025, 4096, 4097, 65536 - 11, 65536, 300000, 512000 - 24, 512000 - 11):
            equal(g.read(f, 1000, count), DATA[1000:1000 + count], f"read {count}")
            data = DATA[count % 1000:][:min(count, 512000 - 23)]
            equal(g.write(w, 0, data), len(data), f"write {count}")
            with open(s.tree + "/w", "rb") as made:
                equal(made.read()[:len(data)], data)
            g.setattr(w, ninep.SET_SIZE)
        d, names, offset = g.open(0, "dir"), [], 0
        while more := g.entries(d, offset, 8000):
            names += [e[0] for e in more]
            offset = more[-1][1]
        equal(len(names), 302)


@suite.test
def rings_large_reads():
    """Alone, with two threads at work on one, and several at once; any offset, and across the end of the file."""
    big = DATA * 3
    with Device() as s:
        put(s.tree + "/big", big)
        g = s.guest(1 << 20, mem=vu.Memory(vu.Region(64 << 20, vu.GUEST, vu.USER)))
        f = g.open(0, "big")
        most = (1 << 20) - 24
        for offset, count in ((0, most), (1, most), (4095, 600000), (1000000, most), (len(big) - 600000, most), (len(big) - 1, most),
                              (len(big), most), (len(big) + 5, most), (123457, 524288), (123457, 524287)):
            equal(g.read(f, offset, count), big[offset:offset + count], f"{count} at {offset}")
        for _ in range(20):
            tags = g.batch([("read", f, 1000 * k, 900000) for k in range(4)])
            for k, t in enumerate(tags):
                equal(g.wait(t)[4:], big[1000 * k:1000 * k + 900000])
        gone = g.open(0, "big")
        os.unlink(s.tree + "/big")
        equal(g.read(gone, 500, most), big[500:500 + most], "of a file without a name")
        g.clunk(gone)
        g.clunk(f)
        works(g)


@suite.test
def rings_chains_of_1024_descriptors():
    with Device() as s:
        for num in (16, 1024):
            g = s.guest(512000, num=num)
            f = g.open(0, "f")
            message = read_message(f, 0, 1000)
            n, data = raw(g, message, [1] * 23, [11] + [1] * 1000)
            equal((n, data[11:n]), (1011, DATA[:1000]))
            rest = [11] + [500] * 999 + [20]
            n, data = raw(g, read_message(f, 0, 499520), [1] * 22 + [1], rest)
            equal((n, data[11:n]), (499531, DATA[:499520]))
            equal(len(rest) + 23, 1024)
            if num == 1024:
                n, data = raw(g, read_message(f, 3, 499520), [1] * 22 + [1], rest, indirect=False)
                equal((n, data[11:n]), (499531, DATA[3:499523]))
            head = g.rings[0].chain([(g.mem.at, 1, False)] * 24 + [(g.mem.at, 100, True)] * 1001)
            g.rings[0].submit(head)
            try:
                g.settle(5)
                raise AssertionError("1025 descriptors were taken")
            except Closed:
                pass
            g.monitor.close()


@suite.test
def rings_small_rooms():
    """Linux leaves exactly 11 bytes for a Twalk without names, 22 with one name; an error always fits in 11."""
    with Device() as s:
        g = s.guest()
        walk = lambda *names: ninep.frame(T["walk"], 3, struct.pack("<IIH", 0, 700 + len(names), len(names)) +
                                          b"".join(ninep.text(n) for n in names))
        n, data = raw(g, walk(), [len(walk())], [11])
        equal((n, data[4]), (9, 111))
        n, data = raw(g, walk("f"), [len(walk("f"))], [22])
        equal((n, data[4]), (22, 111))
        n, data = raw(g, walk("f"), [len(walk("f"))], [22])
        equal((n, data[4], data[7]), (11, 7, errno.EEXIST))
        n, data = raw(g, walk("no", "where"), [len(walk("no", "where"))], [11])
        equal((n, data[4], data[7]), (11, 7, errno.ENOENT))


@suite.test
def rings_reply_longer_than_room():
    """Rlerror EMSGSIZE, never a part of a reply; the session goes on."""
    with Device() as s:
        g = s.guest()
        f, d = g.open(0, "f"), g.open(0, "dir")
        before = s.stats()[1]
        for name, args, rooms in (("read", (f, 0, 1000), (11, 12, 1010)), ("readdir", (d, 0, 5000), (11, 5010)),
                                  ("getattr", (0,), (11, 100, 159)), ("statfs", (0,), (11, 66))):
            for room in rooms:
                g.room = room
                denied(errno.EMSGSIZE, lambda name=name, args=args: g.wait(g.ask(name, *args)))
            g.room = None
            g.wait(g.ask(name, *args))
        equal(s.stats()[1], before)
        g.room = 160
        g.getattr(0)
        g.room = None
        works(g)


@suite.test
def rings_of_every_size():
    """1 to 32768 entries; every index wraps where it is cheap to reach."""
    with Device() as s:
        for num in (1, 2, 4, 16, 128, 1024, 4096, 32768):
            for features in (vu.FEATURES, vu.FEATURES & ~vu.EVENT_IDX):
                g = s.guest(num=num, features=features)
                f = g.open(0, "f")
                for i in range(40):
                    n = min(num, 1 + i % 13)
                    tags = g.batch([("read", f, 10 * k + i, 50) for k in range(n)])
                    for k, t in enumerate(tags):
                        equal(g.wait(t)[4:], DATA[10 * k + i:10 * k + i + 50])
                g.monitor.close()


@suite.test
def rings_indices_wrap():
    """Over 65535, from a base that is near it, with batches; with and without event index."""
    with Device() as s:
        for features in (vu.FEATURES, vu.FEATURES & ~vu.EVENT_IDX, vu.FEATURES & ~vu.INDIRECT):
            m = s.monitor()
            m.hello()
            mem = vu.Memory()
            r = vu.Ring(mem, 128, features, start=65500)
            m.set_features(features)
            m.mem_table(mem)
            m.start(0, r, base=65500)
            g = vu.Guest(r)
            g.attach()
            f = g.open(0, "f")
            for i in range(60):
                for t in g.batch([("read", f, k, 20) for k in range(1 + i % 9)]):
                    equal(len(g.wait(t)), 24)
            check(r.idx < 1000, "it did not wrap")
            equal(m.stop(0), r.idx)
            m.close()


@suite.test
def rings_a_full_ring_many_times():
    with Device() as s:
        g = s.guest(num=64)
        f = g.open(0, "f")
        for _ in range(300):
            tags = g.batch([("read", f, 100 * k, 100) for k in range(64)])
            for k, t in enumerate(tags):
                equal(g.wait(t)[4:], DATA[100 * k:100 * k + 100])


@suite.test
def rings_one_notification_for_a_batch():
    with Device() as s:
        for features in (vu.FEATURES, vu.FEATURES & ~vu.EVENT_IDX):
            g = s.guest(features=features)
            r, f = g.rings[0], g.open(0, "f")
            told = calls = 0
            for _ in range(50):
                r.notifications()
                r.arm()
                tags = g.batch([("read", f, 64 * k, 64) for k in range(100)])
                until(lambda: r.used_idx() == r.idx, 10)
                check(vu.select.select([r.call], [], [], 30)[0], "not told of a batch")
                quiet_for(0.003)
                told += r.notifications()
                calls += 1
                for t in tags:
                    g.wait(t)
            check(told <= 1.2 * calls, f"{told} notifications for {calls} batches of 100 ({features:#x})")
            r.hush()
            tags = g.batch([("read", f, 64 * k, 64) for k in range(100)])
            until(lambda: r.used_idx() == r.idx, 10)
            equal(r.notifications(), 0, "told though it was not wished")
            g._take()


@suite.test
def rings_kicks_are_asked_for_only_when_idle():
    """Requests that are offered while the device works need no kick: none is lost when the driver keeps to that."""
    with Device() as s:
        for features in (vu.FEATURES, vu.FEATURES & ~vu.EVENT_IDX):
            g = s.guest(features=features)
            f = g.open(0, "f")
            for i in range(2000):
                tags = [g._read(f, i, 64) for _ in range(i % 5 + 1)]  # each decides by itself whether to kick
                for t in tags:
                    equal(g.wait(t, 5)[4:], DATA[i:i + 64])


@suite.test
def rings_flush():
    """Of a lock that waits: its chain comes back with length 0, before Rflush; of one that is answered, and of none."""
    with Device() as s:
        g = s.guest()
        a, b = g.open(0, "small", flags=O_RDWR), g.open(0, "small", flags=O_RDWR)
        g.lock(a, WRLCK, 0, 0, proc=1)
        for _ in range(20):
            waits = g.ask("lock", b, WRLCK, BLOCK, 0, 0, 2, "t")
            behind = g._getattr(b)
            flushes = [g._flush(waits) for _ in range(3)]
            for t in flushes:
                g.wait(t)
            g.silent(waits)
            g.wait(behind)
            check(g.order.index(("silent", waits)) < g.order.index(flushes[0]), "Rflush came first")
            g.order.clear()
        g.flush(12345)
        g.lock(a, 2, 0, 0, proc=1)
        equal(g.lock(b, WRLCK, 0, 0, proc=2), 0)


@suite.test
def rings_flush_of_what_hangs():
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        g = s.guest()
        g.attach(50, "hang")
        f = g.open(50, "h1")
        h.hang("READ", "GETATTR")
        first = g._getattr(f)
        quiet_for(0.1)
        read, queued = g._read(f, 0, 5000), g.ask("setattr", f, ninep.SET_SIZE, 0, 0, 0, 0, 0, 0, 0, 0)
        quiet_for(0.1)
        flushes = [g._flush(t) for t in (queued, read)]
        g.wait(flushes[0], 5)  # it waited behind the others, and never began
        g.silent(queued)
        check(not g.got.get(flushes[1]))
        h.go()
        g.wait(flushes[1])
        until(lambda: g._take() and (read in g.lens or g.got.get(read)), 5)
        g.outcome(first)
        check(g.rings[0].used_idx() == g.rings[0].idx, "a chain is lost")


@suite.test
def rings_several_queues():
    with Device(options=",queues=4") as s:
        m = s.monitor()
        equal(m.u64(vu.GET_QUEUE_NUM), 4)
        m.close()
        g = s.guest(queues=4)
        fids = [g.open(0, "f") for _ in range(4)]
        for i in range(200):
            tags = [(k, g._read(fids[k % 4], i * 10 + k, 30)) for k in range(24)]
            for k, t in tags:
                equal(g.wait(t)[4:], DATA[i * 10 + k:i * 10 + k + 30])
        base = g.monitor.stop(2)
        equal(base, g.rings[2].idx)
        kept, g.rings = g.rings, [g.rings[0], g.rings[1], g.rings[3]]
        g.turn = 0
        for _ in range(10):
            works(g)  # the others go on
        g.rings = kept
        g.monitor.start(2, kept[2], base)
        for _ in range(10):
            works(g)
        kept[1].put_desc(0, 1 << 60, 8)
        kept[1].offer(0)
        kept[1].ring_bell()
        check(vu.select.select([kept[1].err], [], [], 30)[0], "the err eventfd of the broken queue")
        g.rings, g.turn = [kept[0]], 0
        works(g)


@suite.test
def rings_more_in_flight_than_are_taken():
    """Above the server's 256 requests at once the ring is left alone, then it goes on."""
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        g = s.guest(num=1024, mem=vu.Memory(vu.Region(64 << 20, vu.GUEST, vu.USER)))
        g.attach(50, "hang")
        f = g.open(50, "h1")
        h.hang("READ")
        tags = g.batch([("read", f, 0, 100) for _ in range(700)])
        quiet_for(0.5)
        check(g.rings[0].used_idx() != g.rings[0].idx)
        h.go()
        for t in tags:
            equal(len(g.wait(t)), 104)


@suite.test
def rings_kick_storm():
    """Kicks for nothing, as fast as they can be made: no error, and others are served."""
    with Device() as s:
        g, other = s.guest(), s.guest()
        f = other.open(0, "f")
        for i in range(20000):
            g.rings[0].ring_bell()
            if i % 200 == 0:
                equal(len(other.read(f, 0, 100)), 100)
        works(g)
        os.eventfd_write(g.rings[0].kick, 0xFFFFFFFFFFFFFFF0)
        works(g)
        s.alive()


@suite.test
def rings_wait_is_not_busy():
    with Device() as s:
        g = s.guest()
        works(g)
        check(s.load(1.0) < 0.1, "an idle device takes processor time")
        try:
            g.reply(999, 0.1)
        except Late:
            pass
