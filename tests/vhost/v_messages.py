# SPDX-License-Identifier: BSD-2-Clause
"""The control protocol: every message, in the orders in which monitors send them."""
import errno
import os
import struct
import threading

import frontend as vu
from common import HangFs, check, denied, equal, put, quickly, suite, until
from ninep import BLOCK, BLOCKED, Late, O_RDWR, WRLCK
from setup import DATA, Device, quiet_for, works


# ---- the orders of monitors ----
def qemu(s, slots=True):
    m = s.monitor()
    equal(m.u64(vu.GET_FEATURES), vu.FEATURES)
    offered = m.u64(vu.GET_PROTOCOL_FEATURES)
    equal(offered, vu.OURS)
    m.set_protocol(offered if slots else offered & ~vu.SLOTS)
    equal(m.u64(vu.GET_QUEUE_NUM), 1)
    check(m.u64(vu.GET_MAX_MEM_SLOTS) >= 32)
    mine, ours = vu.socket.socketpair()
    m.tell(vu.SET_BACKEND_REQ_FD, b"", [ours.fileno()])
    ours.close()
    m.tell(vu.SET_OWNER, ack=False)
    m.u64(vu.GET_FEATURES)
    mem = vu.Memory()
    r = vu.Ring(mem)
    m.vring_fd(vu.SET_VRING_CALL, 0, r.call)
    m.vring_fd(vu.SET_VRING_ERR, 0, r.err)
    for _ in range(6):
        equal(m.config(0, 34)[:7], b"\5\0share")
    m.set_features(vu.FEATURES)
    m.u64(vu.GET_STATUS)
    m.tell(vu.SET_STATUS, struct.pack("<Q", 15), ack=False)
    equal(m.u64(vu.GET_STATUS), 15)
    if slots:
        for region in mem.regions:
            m.add_region(region)
    else:
        m.mem_table(mem)
    m.vring(vu.SET_VRING_NUM, 0, r.num)
    m.vring(vu.SET_VRING_BASE, 0, 0)
    m.vring_addr(0, r)
    g = vu.Guest(r, version=False)
    g.kick = False
    r.ring_bell()
    tag = g.ask("version", 65536, "9P2000.L", tag=0xFFFF)
    m.vring_fd(vu.SET_VRING_KICK, 0, r.kick)
    quiet_for(0.1)
    equal(r.used_idx(), 0, "used before ENABLE")
    m.vring_fd(vu.SET_VRING_CALL, 0, r.call)
    m.enable(0)
    m.vring_fd(vu.SET_VRING_CALL, 0, r.call)
    g.wait(tag)  # nobody kicks again
    g.kick, g.monitor, g.backend_req = True, m, mine
    return g


def crosvm(s):
    """Owner first, no acknowledgements, no slots, no status; configuration with the flag WRITABLE."""
    m = s.monitor(ack=False)
    m.tell(vu.SET_OWNER)
    m.u64(vu.GET_FEATURES)
    m.u64(vu.GET_PROTOCOL_FEATURES)
    m.set_protocol(vu.CONFIG | vu.MQ | vu.BACKEND_REQ)
    m.u64(vu.GET_QUEUE_NUM)
    equal(m.config(0, 8, flags=1), b"\5\0share\0")
    mem = vu.Memory()
    r = vu.Ring(mem, 256)
    m.set_features(vu.FEATURES)
    m.mem_table(mem)
    m.start(0, r, order="num addr base call kick enable")
    return guest(m, r)


def cloud_hypervisor(s):
    m = s.monitor()
    m.hello(vu.OURS & ~(vu.SLOTS | vu.STATUS))
    mem = vu.Memory()
    r = vu.Ring(mem)
    equal(len(m.ask(vu.GET_INFLIGHT_FD, struct.pack("<QQHHI", 0, 0, 1, 128, 0))), 24)
    os.close(m.fds[0])
    body = m.ask(vu.GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, 1, 128))
    equal(len(body), 20)
    area = m.fds[0]
    m.set_features(vu.FEATURES & ~vu.MOUNT_TAG)
    m.mem_table(mem)
    m.tell(vu.SET_INFLIGHT_FD, body, [area])
    os.close(area)
    m.start(0, r, order="num addr base call err kick enable")
    return guest(m, r)


def libkrun(s):
    """Owner after the protocol features, memory before the features."""
    m = s.monitor(ack=False)
    m.u64(vu.GET_FEATURES)
    m.u64(vu.GET_PROTOCOL_FEATURES)
    m.set_protocol(vu.CONFIG | vu.MQ)
    m.tell(vu.SET_OWNER)
    mem = vu.Memory()
    r = vu.Ring(mem, 64)
    m.mem_table(mem)
    m.set_features(vu.FEATURES)
    m.start(0, r, order="enable kick call num base addr")
    return guest(m, r)


def openvmm(s):
    """All of the configuration at once, memory as a table, and RESET_DEVICE before the first start and when a guest resets."""
    m = s.monitor()
    m.hello(vu.MQ | vu.REPLY_ACK | vu.CONFIG | vu.RESET)
    equal(m.config(0, 256), b"\5\0share" + bytes(249))
    m.tell(vu.RESET_DEVICE)
    g = None
    for _ in range(2):
        mem = vu.Memory()
        r = vu.Ring(mem)
        m.set_features(vu.FEATURES)
        m.mem_table(mem)
        m.start(0, r, order="num base addr kick call err enable")
        if g:
            break
        g = guest(m, r)
        g.attach()
        m.tell(vu.RESET_DEVICE)
    return guest(m, r)


def without_protocol(s):
    """A front-end that does not know of protocol features: rings are enabled by their kick."""
    m = s.monitor(ack=False)
    m.tell(vu.SET_OWNER)
    equal(m.u64(vu.GET_FEATURES) & vu.PROTOCOL, vu.PROTOCOL)
    mem = vu.Memory()
    r = vu.Ring(mem, features=vu.FEATURES & ~vu.PROTOCOL)
    m.set_features(vu.FEATURES & ~vu.PROTOCOL)
    m.mem_table(mem)
    m.start(0, r, enable=False)
    return guest(m, r)


def legacy(s):
    """Without VERSION_1, indirect descriptors and event index."""
    m = s.monitor()
    m.hello()
    mem = vu.Memory()
    r = vu.Ring(mem, features=vu.MOUNT_TAG | vu.PROTOCOL)
    m.set_features(vu.MOUNT_TAG | vu.PROTOCOL)
    m.mem_table(mem)
    m.start(0, r)
    return guest(m, r)


def guest(m, r):
    g = vu.Guest(r)
    g.monitor = m
    return g


@suite.test
def messages_in_the_orders_of_monitors():
    for order in (qemu, lambda s: qemu(s, False), crosvm, cloud_hypervisor, libkrun, openvmm, without_protocol,
                  legacy):
        with Device() as s:
            g = order(s)
            g.attach()
            works(g)
            name = getattr(order, "__name__", "")
            equal(os.path.exists(s.tree + "/" + (name or "x")), False)
            f = g.create(0, "made")
            equal(g.write(f, 0, DATA[:30000]), 30000)
            g.monitor.close()
            s.gone()


@suite.test
def messages_config_of_any_offset_and_length():
    want = b"\5\0share" + bytes(249)
    with Device() as s:
        m = s.monitor()
        m.hello()
        for offset, size in ((0, 1), (0, 2), (2, 5), (1, 6), (0, 7), (0, 34), (0, 256), (200, 56), (255, 1), (256, 0), (0, 0),
                             (6, 2)):
            equal(m.config(offset, size), want[offset:offset + size], f"config {offset} {size}")
        equal(m.config(0, 7, payload=False), want[:7], "without room in the request")
        for offset, size in ((0, 257), (256, 1), (255, 2), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF)):
            equal(len(m.ask(vu.GET_CONFIG, struct.pack("<III", offset, size, 0) + bytes(min(size, 400)))), 0, "refused")
        try:
            m.tell(vu.SET_CONFIG, struct.pack("<III", 0, 1, 0) + b"x")
            raise AssertionError("the configuration was written")
        except vu.Refused:
            pass
        equal(m.config(0, 7), want[:7])


@suite.test
def messages_kick_before_enable():
    with Device() as s:
        m = s.monitor()
        m.hello()
        mem = vu.Memory()
        r = vu.Ring(mem)
        m.set_features(vu.FEATURES)
        m.mem_table(mem)
        g = vu.Guest(r, version=False)
        tag = g.ask("version", 65536, "9P2000.L", tag=0xFFFF)
        m.start(0, r, enable=False)
        m.u64(vu.GET_FEATURES)
        quiet_for(0.1)
        equal(r.used_idx(), 0)
        m.enable(0)
        g.wait(tag)


@suite.test
def messages_call_replaced_live():
    with Device() as s:
        g = s.guest()
        r, f = g.rings[0], g.open(0, "f")
        for _ in range(50):
            old = r.call
            r.call = vu.eventfd()
            tags = [g._read(f, 0, 4096) for _ in range(8)]
            g.monitor.vring_fd(vu.SET_VRING_CALL, 0, r.call)
            os.close(old)
            for t in tags:
                equal(len(g.wait(t, 5)), 4100)
        old, r.call = r.call, vu.eventfd()
        g.monitor.vring_fd(vu.SET_VRING_CALL, 0, r.call)
        equal(r.notifications(), 1, "one notification after the swap")
        for fd in (old, r.call):
            r.call = fd
            r.notifications()
        works(g)
        equal(vu.select.select([old], [], [], 0)[0], [], "the old one is told")


@suite.test
def messages_without_call():
    """A driver that polls: NOFD."""
    with Device() as s:
        g = s.guest()
        g.monitor.vring_fd(vu.SET_VRING_CALL, 0, None)
        tag = g._getattr(0)
        until(lambda: g._take() and g.got.get(tag), 5)
        try:
            g.monitor.vring_fd(vu.SET_VRING_KICK, 0, None)
            raise AssertionError("a ring without kicks was taken")
        except vu.Refused:
            pass


@suite.test
def messages_ring_stop_is_no_reset():
    """As QMP stop and cont: ENABLE 0, GET_VRING_BASE; then FEATURES, NUM, BASE, ADDR, KICK, CALL, ENABLE."""
    with Device() as s:
        g = s.guest()
        m, r = g.monitor, g.rings[0]
        f = g.open(0, "f")
        for i in range(30):
            tags = [g._read(f, 4096 * k, 4096) for k in range(i % 7)]
            base = m.stop(0)
            equal(base, r.idx if not tags else base)
            equal(r.used_idx(), base, "chains that were taken and not given back")
            late = g._read(f, 0, 100)  # nobody takes it now
            quiet_for(0.01)
            equal(r.used_idx(), base, "the ring is stopped")
            m.set_features(vu.FEATURES)
            m.start(0, r, base, order="num base addr kick call enable call")
            for k, t in enumerate(tags):
                equal(g.wait(t)[4:], DATA[4096 * k:4096 * k + 4096])
            equal(g.wait(late)[4:], DATA[:100])
        g.clunk(f)
        equal(s.stats()[1], 1, "fids")


@suite.test
def messages_disable_and_enable_without_base():
    """As libkrun: rings are disabled without GET_VRING_BASE, and begin at 0 again."""
    with Device() as s:
        g = s.guest()
        m, r = g.monitor, g.rings[0]
        for _ in range(20):
            f = g.open(0, "f")
            g.clunk(f)
            m.enable(0, 0)
            r.reset()
            m.start(0, r)
            works(g)


@suite.test
def messages_base_drains_a_lock_that_waits():
    with Device() as s:
        g = s.guest()
        m, r = g.monitor, g.rings[0]
        a, b = g.open(0, "small", flags=O_RDWR), g.open(0, "small", flags=O_RDWR)
        equal(g.lock(a, WRLCK, 0, 0, proc=1), 0)
        waits = g.ask("lock", b, WRLCK, BLOCK, 0, 0, 2, "t")
        quiet_for(0.2)
        check(not g.got.get(waits))
        base = quickly(lambda: m.stop(0), 5)
        equal((base, r.used_idx()), (r.idx, r.idx))
        equal(g.wait(waits)[0], BLOCKED)  # it may ask again
        m.start(0, r, base)
        again = g.ask("lock", b, WRLCK, BLOCK, 0, 0, 2, "t")
        quiet_for(0.1)
        check(not g.got.get(again), "a lock that is held was given")
        g.lock(a, 2, 0, 0, proc=1)
        equal(g.wait(again)[0], 0)


@suite.test
def messages_base_drains_a_file_system_that_hangs():
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        g = s.guest()
        g.attach(50, "hang")
        f, other = g.open(50, "h1"), g.open(0, "f")
        m, r = g.monitor, g.rings[0]
        h.hang("READ")
        tags = [g._read(f, 4096 * k, 4096) for k in range(4)]
        quiet_for(0.1)
        equal(len(quickly(lambda: g.read(other, 0, 10))), 10)  # the ring goes on meanwhile
        with s.monitor() as second:
            bases, second.timeout = [], 5
            thread = threading.Thread(target=lambda: bases.append(m.stop(0)))
            thread.start()
            quiet_for(0.3)
            check(not bases, "answered with requests under way")
            quickly(lambda: second.u64(vu.GET_FEATURES))  # another device of the same p9d
            h.go()
            thread.join(10)
        equal(bases, [r.idx])
        equal(r.used_idx(), r.idx)
        for t in tags:
            equal(g.wait(t)[4:], bytes([3]) * 4096)
        m.start(0, r, bases[0])
        works(g)


@suite.test
def messages_the_monitor_goes_while_it_drains():
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        g = s.guest()
        g.attach(50, "hang")
        f = g.open(50, "h1")
        h.hang("READ")
        g._read(f, 0, 4096)
        quiet_for(0.1)
        g.monitor.send(vu.GET_VRING_BASE, struct.pack("<II", 0, 0))
        quiet_for(0.1)
        g.monitor.close()
        quiet_for(0.1)
        works(s.guest())
        h.go()
        until(lambda: s.stats()[0] <= 1, 5)


@suite.test
def messages_the_end_is_seen_when_memory_is_free():
    """Who has hung up and waits for p9d's end of the connection may give the memory to somebody else then."""
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        g = s.guest()
        g.attach(50, "hang")
        f = g.open(50, "h1")
        h.hang("READ")
        g._read(f, 0, 4096)
        quiet_for(0.1)
        sock = g.monitor.sock
        sock.shutdown(vu.socket.SHUT_WR)
        sock.settimeout(0.3)
        try:
            raise AssertionError(f"p9d has gone, its read has not: {sock.recv(1)}")
        except TimeoutError:
            pass
        h.go()
        sock.settimeout(10)
        equal(sock.recv(1), b"")
        works(s.guest())
        idle = s.guest()        # with nothing under way it is seen at once
        idle.monitor.sock.shutdown(vu.socket.SHUT_WR)
        equal(quickly(lambda: idle.monitor.sock.recv(1)), b"")


@suite.test
def messages_several_in_one_write_and_one_in_several():
    with Device() as s:
        m = s.monitor()
        one = struct.pack("<III", vu.GET_FEATURES, 1, 0)
        m.raw(one * 50)
        for _ in range(50):
            equal(struct.unpack("<Q", m.answer(vu.GET_FEATURES))[0], vu.FEATURES)
        for byte in one:
            m.raw(bytes([byte]))
            quiet_for(0.002)
        m.answer(vu.GET_FEATURES)


@suite.test
def messages_unknown():
    with Device() as s:
        m = s.monitor()
        m.hello()
        for number in (0, 6, 7, 19, 20, 22, 23, 26, 30, 33, 41, 44, 999, 0xFFFFFFFF):
            try:
                m.tell(number, bytes(16))
                raise AssertionError(f"message {number} was accepted")
            except vu.Refused:
                pass
        equal(m.u64(vu.GET_FEATURES), vu.FEATURES)
        m.send(999)
        check(m.ended(), "an unknown message without NEED_REPLY ends the link")
        plain = s.monitor()
        plain.send(999, flags=vu.NEED_REPLY)  # which was not agreed on
        check(plain.ended())
        works(s.guest())


@suite.test
def messages_refused_change_nothing():
    """Wrong sizes, numbers and descriptors, with acknowledgement: refused, and the session goes on."""
    with Device() as s:
        g = s.guest()
        m, r = g.monitor, g.rings[0]
        fds = s.fds()
        spare = vu.eventfd()
        plain = os.open(s.tree + "/f", os.O_RDONLY)
        bad = [(vu.SET_VRING_NUM, struct.pack("<II", 1, 128), ()), (vu.SET_VRING_NUM, struct.pack("<II", 0, 256), ()),
               (vu.SET_VRING_BASE, struct.pack("<II", 0, 5), ()), (vu.SET_VRING_BASE, struct.pack("<II", 7, 5), ()),
               (vu.SET_VRING_ENABLE, struct.pack("<II", 1, 1), ()), (vu.SET_VRING_ENABLE, b"", ()),
               (vu.SET_VRING_KICK, struct.pack("<Q", 9), [spare]), (vu.SET_VRING_KICK, struct.pack("<Q", 0), ()),
               (vu.SET_VRING_KICK, struct.pack("<Q", 0), [spare, spare]), (vu.SET_VRING_KICK, b"\0\0\0\0", [spare]),
               (vu.SET_VRING_CALL, struct.pack("<Q", 0), [plain]), (vu.SET_VRING_ERR, struct.pack("<Q", 0), [plain]),
               (vu.SET_VRING_ADDR, struct.pack("<IIQQQQ", 3, 0, 0, 0, 0, 0), ()), (vu.SET_VRING_ADDR, bytes(8), ()),
               (vu.SET_MEM_TABLE, struct.pack("<II", 1, 0) + mem_region(), ()),
               (vu.SET_MEM_TABLE, struct.pack("<II", 9, 0) + mem_region() * 9, [spare] * 8),
               (vu.SET_MEM_TABLE, struct.pack("<II", 2, 0) + mem_region(), [spare] * 2), (vu.SET_MEM_TABLE, b"", ()),
               (vu.ADD_MEM_REG, bytes(8), [spare]), (vu.ADD_MEM_REG, bytes(8) + mem_region(), ()),
               (vu.REM_MEM_REG, bytes(8) + mem_region(), ()), (vu.SET_FEATURES, struct.pack("<Q", 1 << 34), ()),
               (vu.SET_FEATURES, b"", ()), (vu.SET_BACKEND_REQ_FD, b"", ()), (vu.SET_STATUS, b"", ()),
               (vu.SET_INFLIGHT_FD, struct.pack("<QQHH", 4096, 0, 1, 128), [spare]), (vu.SET_INFLIGHT_FD, b"", ())]
        for number, body, descriptors in bad:
            try:
                m.tell(number, body, descriptors)
                raise AssertionError(f"message {number} with {len(body)} bytes, {len(descriptors)} descriptors: accepted")
            except vu.Refused:
                pass
            works(g)
        equal(s.fds(), fds, "descriptors of p9d")
        equal(m.stop(0), r.idx)
        for num in (0, 3, 96, 65536, 32769, 0xFFFFFFFF):
            try:
                m.vring(vu.SET_VRING_NUM, 0, num)
                raise AssertionError(f"a ring of {num}")
            except vu.Refused:
                pass
        try:
            m.vring(vu.SET_VRING_BASE, 0, 65536)
            raise AssertionError("a base of 65536")
        except vu.Refused:
            pass
        m.send(vu.GET_VRING_BASE, struct.pack("<II", 1, 0))
        check(m.ended(), "a base that cannot be answered")
        os.close(spare)
        os.close(plain)


def mem_region():
    return struct.pack("<QQQQ", 1 << 40, 4096, 1 << 41, 0)


@suite.test
def messages_100000_leave_no_descriptor():
    """All that carry descriptors, most of them twice, for long; 64 at a time and acknowledged by the last."""
    with Device() as s:
        g = s.guest()
        m, r = g.monitor, g.rings[0]
        mem = vu.Memory(vu.Region(4096, 1 << 40, 1 << 41))
        extra = mem.regions[0]
        inflight = m.ask(vu.GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, 1, 128))
        area = m.fds[0]
        works(g)
        before = s.fds()
        ack = lambda: m.u64(vu.GET_STATUS)
        sent = 0
        m.want_ack = False
        while sent < 100000:
            for _ in range(4):
                for request, fd in ((vu.SET_VRING_CALL, r.call), (vu.SET_VRING_ERR, r.err), (vu.SET_VRING_KICK, r.kick),
                                    (vu.SET_VRING_CALL, None), (vu.SET_VRING_CALL, r.call), (vu.SET_VRING_CALL, area)):
                    m.vring_fd(request, 0, fd)
                m.add_region(extra)
                m.add_region(extra)
                m.remove_region(extra, fd=True)
                m.tell(vu.SET_BACKEND_REQ_FD, b"", [r.err])
                m.tell(vu.SET_OWNER, b"", [r.err, area, r.call])  # which has none
                m.tell(vu.SET_INFLIGHT_FD, inflight, [area])  # refused: the ring runs
            m.ask(vu.GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, 1, 128))
            os.close(m.fds[0])
            sent += 50
            ack()
        works(g)
        check(s.fds() <= before + 2, f"descriptors: {before} before, {s.fds()} after {sent} messages")
        # and do not fill the log, which has a line for each that is refused: some in a second; those that were left out
        # are counted with the first of a later second
        lines = s.output().count(" refused (")
        check(0 < lines < sent // 20, f"{lines} lines in the log")

        def counted():
            m.tell(vu.SET_INFLIGHT_FD, inflight, [area])
            ack()
            return "more lines like this" in s.output()
        until(counted, what="what was left out is not counted")


@suite.test
def messages_connections_leave_no_descriptor():
    with Device() as s:
        s.guest().monitor.close()
        s.gone()
        before = s.fds()
        for i in range(60):
            g = s.guest()
            f = g.open(0, "f")
            for _ in range(i % 4):
                g._read(f, 0, 60000)
            g.monitor.close()
            for r in g.rings:
                r.close()
            g.mem.close()
        s.gone()
        check(s.fds() <= before, f"descriptors: {before} before, {s.fds()} after")


@suite.test
def messages_device_reset():
    for request, body in ((vu.RESET_DEVICE, b""), (vu.SET_STATUS, struct.pack("<Q", 0))):
        with Device() as s:
            g = s.guest()
            f = g.open(0, "f")
            put(s.tree + "/lock")
            locked = g.open(0, "lock", flags=O_RDWR)
            g.lock(locked, WRLCK, 0, 0)
            for _ in range(5):
                g._read(f, 0, 60000)
            g.monitor.tell(request, body)
            until(lambda: s.stats()[1] == 0, 5, "fids are left after a reset")
            r = g.rings[0]
            r.take()
            g.out.clear()
            r.reset()
            g.busy.clear()
            g.got.clear()
            g.monitor.set_features(vu.FEATURES)
            g.monitor.start(0, r)
            for call in (lambda: g.getattr(0), lambda: g.read(f, 0, 10), lambda: g.flush(3), g.attach, lambda: g.clunk(f)):
                denied(errno.ESTALE, call)
            g.version(65536)
            g.attach()
            works(g)
            denied(errno.EBADF, lambda: g.clunk(f))
            equal(g.lock(g.open(0, "lock", flags=O_RDWR), WRLCK, 0, 0, proc=9), 0)


@suite.test
def messages_reset_while_requests_hang():
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        g = s.guest()
        g.attach(50, "hang")
        f = g.open(50, "h1")
        h.hang("READ")
        for _ in range(5):
            g._read(f, 0, 4096)
        quiet_for(0.1)
        m = g.monitor
        m.sock.settimeout(0.5)
        try:
            m.tell(vu.RESET_DEVICE)
        except (TimeoutError, OSError):
            pass
        else:
            raise AssertionError("a reset was acknowledged with requests under way")
        m.sock.settimeout(10)
        h.go()
        equal(struct.unpack("<Q", m.answer(vu.RESET_DEVICE))[0], 0)
        until(lambda: s.stats()[1] == 0, 5, "fids are left after a reset")


@suite.test
def messages_tversion_and_disconnect_drop_the_session():
    with Device() as s:
        g = s.guest()
        f = g.open(0, "f")
        equal(s.stats()[1], 2)
        g.version(65536)
        equal(s.stats()[1], 0)
        g.attach()
        denied(errno.EBADF, lambda: g.clunk(f))
        g.open(0, "f")
        g.monitor.close()
        s.gone()
        try:
            g.wait(g._getattr(0), 0.2)
            raise AssertionError("answered after the end")
        except Late:
            pass
