# SPDX-License-Identifier: BSD-2-Clause
"""The guest's memory: many regions, cut anywhere, changed under way, taken away."""
import os
import struct

import frontend as vu
import ninep
from common import HangFs, check, equal, suite, until
from ninep import Closed, Late, T
from setup import DATA, Device, quiet_for, works
from v_rings import raw, read_message

MIB = 1 << 20


def refused(call):
    try:
        call()
    except vu.Refused:
        return
    raise AssertionError("it was accepted")


def start(s, mem, **options):
    m = s.monitor()
    m.hello()
    m.set_features(vu.FEATURES)
    for r in mem.regions:
        m.add_region(r)
    ring = vu.Ring(mem, **options)
    m.start(0, ring)
    g = vu.Guest(ring)
    g.monitor = m
    g.attach(0, "x")
    return g


def one_guest_range(*sizes, user=vu.USER):
    """Regions without a gap between their guest addresses, each somewhere else for the monitor, in files of their own."""
    regions, at = [], vu.GUEST
    for i, size in enumerate(sizes):
        regions.append(vu.Region(size, at, user + i * (1 << 36), offset=4096 * i))
        at += size
    return vu.Memory(*regions)


@suite.test
def memory_buffers_across_a_cut():
    """A head, a payload, an indirect table and a reply that lie in two regions."""
    with Device() as s:
        mem = one_guest_range(4 * MIB, MIB, MIB)
        g = start(s, mem)
        f, w = g.open(0, "f"), g.create(0, "w")
        ring, cut = g.rings[0], vu.GUEST + 4 * MIB
        for shift in (1, 3, 7, 10, 11, 12, 22, 500, 1000):
            message = read_message(f, 0, 1000)
            mem.write(cut - shift, message)
            ring.submit(ring.chain([(cut - shift, 23, False), (cut + MIB - shift, 1011, True)]))
            until(lambda: ring.used_idx() != ring.seen)
            equal(ring.take()[0][1], 1011)
            equal(mem.read(cut + MIB - shift, 1011)[11:], DATA[:1000], shift)
            data = DATA[shift:shift + 1000]
            mem.write(cut - shift, ninep.frame(T["write"], 3, struct.pack("<IQI", w, 0, 1000) + data))
            ring.submit(ring.chain([(cut - shift, 1023, False), (cut + 4096, 11, True)]))
            until(lambda: ring.used_idx() != ring.seen)
            ring.take()
            with open(s.tree + "/w", "rb") as made:
                equal(made.read(), data, shift)
        for shift in (16, 8, 4, 24):  # the table itself
            mem.write(cut + 8192, read_message(f, 0, 50))
            table = cut - shift
            ring.put_desc(0, cut + 8192, 23, vu.NEXT, 1, table)
            ring.put_desc(1, cut + 12288, 100, vu.WRITE, 0, table)
            head = ring.free.pop()
            ring.put_desc(head, table, 32, vu.INDIRECT_DESC)
            ring.owned[head] = ([head], None)
            ring.submit(head)
            until(lambda: ring.used_idx() != ring.seen, 5)
            equal(ring.take()[0][1], 61)
            equal(mem.read(cut + 12288 + 11, 50), DATA[:50])


@suite.test
def memory_many_regions():
    with Device() as s:
        mem = one_guest_range(8 * MIB, *[4096] * 60)
        g = start(s, mem)
        f = g.open(0, "f")
        last = mem.regions[-60].guest
        n = 59 * 4096 + 11
        mem.write(last, read_message(f, 5, n - 11))
        ring = g.rings[0]
        ring.submit(ring.chain([(last, 23, False), (last + 100, n, True)]))
        until(lambda: ring.used_idx() != ring.seen)
        equal(ring.take()[0][1], min(n, 65536))
        equal(mem.read(last + 100, 60000)[11:], DATA[5:59994])
        for r in mem.regions[1:]:
            g.monitor.remove_region(r)
            works(g)


@suite.test
def memory_added_and_removed_with_requests_under_way():
    """A region that requests still use is removed: they end in it, others do not see it any more."""
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        mem = one_guest_range(8 * MIB)
        g = start(s, mem)
        g.attach(50, "hang")
        f, ring, m = g.open(50, "h1"), g.rings[0], g.monitor
        for i in range(5):
            extra = vu.Region(MIB, 1 << 40, 1 << 44, offset=4096)
            m.add_region(extra)
            mem.regions.append(extra)
            h.hang("READ")
            mem.write(extra.guest, read_message(f, 0, 5000, tag=300 + i))
            head = ring.chain([(extra.guest, 23, False), (extra.guest + 4096, 5011, True)])
            ring.submit(head)
            quiet_for(0.1)
            m.remove_region(extra, fd=i % 2 == 0)
            works(g)
            h.go()
            until(lambda: ring.used_idx() != ring.seen)
            equal(ring.take(), [(head, 5011)])
            equal(mem.read(extra.guest + 4096, 5011)[11:], bytes([3]) * 5000)
            mem.regions.pop()
            extra.close()


@suite.test
def memory_table_replaced_while_running():
    """SET_MEM_TABLE with the ring in it, with a region more, at other addresses of the monitor."""
    with Device() as s:
        mem = one_guest_range(8 * MIB)
        g = s.guest(mem=mem, protocol=vu.OURS & ~vu.SLOTS)
        f = g.open(0, "f")
        extra = vu.Region(MIB, 1 << 40, 1 << 44)
        for i in range(40):
            tags = g.batch([("read", f, 100 * k, 5000) for k in range(20)])
            g.monitor.mem_table([*mem.regions, extra] if i % 2 else mem)
            for k, t in enumerate(tags):
                equal(g.wait(t)[4:], DATA[100 * k:100 * k + 5000])
        with open(f"/proc/{s.pid}/maps", encoding="ascii") as maps:
            equal(maps.read().count("memfd:guest"), 2, "mappings of the guest's memory")


@suite.test
def memory_of_the_ring_goes_and_comes_back():
    """As when a monitor makes a region larger: REM_MEM_REG, ADD_MEM_REG, with requests in it."""
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        mem = one_guest_range(8 * MIB)
        g = start(s, mem)
        g.attach(50, "hang")
        f, hung, m, region = g.open(0, "f"), g.open(50, "h1"), g.monitor, mem.regions[0]
        h.hang("READ")
        slow = g._read(hung, 0, 4096)
        quiet_for(0.1)
        for i in range(20):
            tags = g.batch([("read", f, 100 * k, 500) for k in range(10)])
            m.remove_region(region)
            more = g.batch([("read", f, 7 * k, 500) for k in range(10)])
            m.add_region(region)
            for k, t in enumerate(tags):
                equal(g.wait(t)[4:], DATA[100 * k:100 * k + 500])
            for k, t in enumerate(more):
                equal(g.wait(t)[4:], DATA[7 * k:7 * k + 500])
        m.remove_region(region)
        h.go()
        quiet_for(0.1)
        m.add_region(region)
        equal(g.wait(slow)[4:], bytes([3]) * 4096)
        equal(m.stop(0), g.rings[0].idx)


@suite.test
def memory_regions_that_are_refused():
    with Device() as s:
        g = start(s, one_guest_range(8 * MIB))
        m = g.monitor
        fds = s.fds()
        region = g.mem.regions[0]
        small = vu.Region(4096, 1 << 40, 1 << 44)
        reader, writer = os.pipe()
        directory = os.open(s.tree, os.O_RDONLY)
        event = vu.eventfd()
        null = os.open("/dev/null", os.O_RDWR)
        sock = vu.socket.socket()
        read_only = os.open(s.tree + "/f", os.O_RDONLY)

        def add(guest=1 << 41, size=4096, user=1 << 45, offset=0, fd=small.fd):
            body = struct.pack("<QQQQQ", 0, guest, size, user, offset)
            m.tell(vu.ADD_MEM_REG, body, [fd])
        for fd in (reader, writer, directory, event, null, sock.fileno(), read_only):
            refused(lambda fd=fd: add(fd=fd))
        for bad in ({"size": 0}, {"size": 4097}, {"size": 8192}, {"size": 1 << 63}, {"size": (1 << 64) - 1}, {"offset": 1},
                    {"offset": 4096}, {"offset": (1 << 64) - 4096}, {"offset": (1 << 63) - 1}, {"guest": (1 << 64) - 1},
                    {"user": (1 << 64) - 100}, {"guest": region.guest}, {"guest": region.guest - 1},
                    {"guest": region.guest + region.size - 1}, {"user": region.user}, {"user": region.user - 4095}):
            refused(lambda bad=bad: add(**bad))
        add(guest=region.guest - 4096, user=region.user + region.size)  # just beside it
        for r in ((region.guest, 4096, region.user), (region.guest, region.size, region.user + 1), (0, 0, 0)):
            refused(lambda r=r: m.tell(vu.REM_MEM_REG, bytes(8) + struct.pack("<QQQQ", *r, 0)))
        refused(lambda: m.mem_table([region, region]))
        works(g)
        equal(s.fds(), fds + 1, "descriptors of p9d, one for the region that was taken")
        for fd in (reader, writer, directory, event, null, read_only):
            os.close(fd)


@suite.test
def memory_at_most_the_slots_that_were_told():
    with Device() as s:
        m = s.monitor()
        m.hello()
        slots, at = m.u64(vu.GET_MAX_MEM_SLOTS), 1 << 30
        region = vu.Region(4096, at, at)
        for i in range(slots):
            region.guest = region.user = at + 8192 * i
            m.add_region(region)
        region.guest = region.user = at + 8192 * slots
        refused(lambda: m.add_region(region))


def shrink(g, region, size):
    os.ftruncate(region.fd, size)


@suite.test
def memory_file_shortened_under_the_ring():
    """All of it, with the rings; idle and under load. p9d lives, the other guest notices nothing."""
    with Device() as s:
        other = s.guest()
        for load in (False, True):
            g = start(s, one_guest_range(8 * MIB))
            f = g.open(0, "f")
            if load:
                g.batch([("read", f, 100 * k, 60000) for k in range(30)])
            shrink(g, g.mem.regions[0], 0)
            g.rings[0].ring_bell()
            check(g.monitor.ended(), "the device goes on without its memory")
            works(other)
        s.alive()
        check("taken away" in s.output(), s.output())
        other.monitor.close()
        s.gone()


@suite.test
def memory_file_shortened_under_a_buffer():
    """The ring stays, payloads are gone: EFAULT, or the end of the device; never of p9d."""
    with Device() as s:
        other = s.guest()
        mem = one_guest_range(8 * MIB)
        g = start(s, mem)
        f, w, ring = g.open(0, "f"), g.create(0, "w"), g.rings[0]
        extra = vu.Region(MIB, 1 << 40, 1 << 44)
        g.monitor.add_region(extra)
        shrink(g, extra, 0)
        head = mem.alloc(4096)
        for message, pieces in ((read_message(f, 0, 5000), [(head, 23, False), (mem.alloc(11), 11, True), (1 << 40, 5000, True)]),
                                (ninep.frame(T["write"], 3, struct.pack("<IQI", w, 0, 5000)),
                                 [(head, 23, False), (1 << 40, 5000, False), (mem.alloc(11), 11, True)])):
            if message[4] == T["write"]:  # its payload is elsewhere
                message = struct.pack("<I", 5023) + message[4:]
            mem.write(head, message)
            ring.submit(ring.chain(pieces))
            until(lambda: ring.used_idx() != ring.seen)
            equal(ring.take()[0][1], 11)
            reply = mem.read(next(at for at, n, writable in pieces if writable and n == 11), 11)
            equal((reply[4], reply[7]), (7, 14), "Rlerror EFAULT")
        works(g)
        ring.submit(ring.chain([(1 << 40, 23, False), (head, 11, True)]))  # a head: we touch that
        check(g.monitor.ended())
        works(other)


@suite.test
def memory_file_shortened_and_grown_at_random():
    """Under load, by a second process."""
    with Device() as s:
        other = s.guest()
        for i in range(15):
            g = start(s, one_guest_range(8 * MIB))
            f = g.open(0, "f")
            fd = g.mem.regions[0].fd
            pid = os.fork()
            if pid == 0:
                for k in range(40):
                    os.ftruncate(fd, (i * 40 + k) * 7919 % (4 * MIB))
                    os.ftruncate(fd, 8 * MIB)
                os._exit(0)
            driver = os.fork()  # it touches the same memory, and may well die of that
            if driver == 0:
                try:
                    for _ in range(20):
                        for t in g.batch([("read", f, 0, 30000) for _ in range(5)]):
                            g.wait(t, 0.05)
                except BaseException:  # the guest's memory is full of holes
                    pass
                finally:
                    os._exit(0)
            os.waitpid(driver, 0)
            os.waitpid(pid, 0)
            g.monitor.close()
            works(other)
        s.alive()
