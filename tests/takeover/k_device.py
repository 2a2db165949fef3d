# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user device goes over: memory, rings, books, half control messages; the guest is a front-end of our own."""
import errno
import os
import select
import signal
import socket
import struct
import threading

import common
import frontend as vu
import ninep
from common import HangFs, check, denied, equal, suite, until
from handover import Again, Line, every, wait_a_moment
from ninep import BLOCK, O_RDWR, SUCCESS, UNLCK, WRLCK
from setup import DATA, Device, make_tree, works


class Dev(Line):
    """Like setup.Device, with successors."""
    monitor, guest = Device.monitor, Device.guest

    def __init__(self, *more, options="", tree=None):
        self.tree = tree or make_tree()
        common._count[0] += 1  # pylint: disable=protected-access
        self.path = os.path.join(common.TOP, f"v{common._count[0]}")  # pylint: disable=protected-access
        super().__init__("-e", f"x={self.tree}", *more, listen=["-l", f"vhost-user:{self.path},tag=share{options}"])


@suite.test
def device_goes_over():
    """With event indices and without, indirect and not, one queue and two, regions one by one and as a table."""
    for features, queues, protocol in ((vu.FEATURES, 1, vu.OURS), (vu.FEATURES & ~vu.EVENT_IDX, 2, vu.OURS),
                                       (vu.FEATURES & ~vu.INDIRECT, 2, vu.OURS & ~vu.SLOTS), (vu.FEATURES, 1, 0)):
        with Dev(options=f",queues={queues}") as s:
            g = s.guest(msize=300000, features=features, queues=queues, protocol=protocol)
            f = g.open(0, "f", flags=O_RDWR)
            qid = g.getattr(f).path
            for turn in range(4):
                s.over()
                equal(g.getattr(f).path, qid)
                for at in (0, 1000, 200000):
                    equal(g.read(f, at, 123456), DATA[at:at + 123456])
                equal(g.write(f, 0, DATA[:100000]), 100000)
                tags = g.batch([("read", f, 100 * i, 4096) for i in range(40)])
                for i, t in enumerate(tags):
                    equal(g.wait(t)[4:], DATA[100 * i:100 * i + 4096])
                equal(s.stats()[0], 1, turn)
            works(g)


@suite.test
def device_under_load():
    """Every answer is looked at, hand-over after hand-over."""
    with Dev(options=",queues=2") as s:
        g = s.guest(msize=300000, queues=2)
        f = g.open(0, "f", flags=O_RDWR)
        w = g.create(0, "w")
        with Again(s, every(0.4)) as again:
            n = 0
            while again.count < 6 and not again.error:
                asked = [("read", f, (n * 37 + i * 5000) % 400000, 20000 + 1000 * i) for i in range(8)]
                tags = g.batch(asked + [("write", w, i * 5000, DATA[i * 100:i * 100 + 5000]) for i in range(8)])
                for ask, t in zip(asked, tags):
                    equal(g.wait(t)[4:], DATA[ask[2]:ask[2] + ask[3]])
                for t in tags[8:]:
                    equal(struct.unpack("<I", g.wait(t))[0], 5000)
                n += 1
        check(n > 20, n)
        equal(g.read(w, 35000, 5000), DATA[700:5700])


@suite.test
def device_who_waits_for_a_lock_waits_on():
    with Dev() as s:
        g, h = s.guest(), s.guest()
        fg, fh = g.open(0, "f", flags=O_RDWR), h.open(0, "f", flags=O_RDWR)
        equal(g.lock(fg, WRLCK, 0, 10), SUCCESS)
        first = h._lock(fh, WRLCK, BLOCK, 0, 5, 7, "w1")
        second = h._lock(fh, WRLCK, BLOCK, 0, 5, 8, "w2")
        check(not h.answered(first))
        for _ in range(3):
            s.over()
            h.getattr(fh)
        h.flush(second)
        h.silent(second)
        check(not h.got.get(first))
        equal(g.lock(fg, UNLCK, 0, 10), SUCCESS)
        equal(h.wait(first)[0], SUCCESS)
        works(h)


@suite.test
def device_half_a_control_message():
    """Cut anywhere, the descriptor with the first half."""
    for cut in (1, 11, 12, 15):
        with Dev() as s:
            g = s.guest()
            m, mem = g.monitor, g.mem
            extra = vu.Region(1 << 20, vu.GUEST + (1 << 32), vu.USER + (1 << 32))
            body = bytes(8) + extra.pack()
            raw = struct.pack("<III", vu.ADD_MEM_REG, 1 | vu.NEED_REPLY, len(body)) + body
            m.raw(raw[:cut], [extra.fd])
            wait_a_moment(0.05)
            s.over()
            works(g)
            m.raw(raw[cut:])
            equal(struct.unpack("<Q", m.answer(vu.ADD_MEM_REG))[0], 0, f"cut at {cut}")
            # and the new memory can be used
            at = extra.guest + 4096
            mem.regions.append(extra)
            f = g.open(0, "f")
            ring, message = g.rings[0], ninep.frame(ninep.T["read"], 999, g.body("read", f, 5, 5000))
            mem.write(at, message)
            head = ring.chain([(at, len(message), False), (at + 8192, 11 + 5000, True)])
            ring.submit(head)
            until(lambda: ring.seen != ring.used_idx(), 10)
            ring.take()
            equal(mem.read(at + 8192 + 11, 5000), DATA[5:5005])
            extra.close()


@suite.test
def device_is_stopped_started_and_reset_afterwards():
    with Dev() as s:
        g = s.guest()
        m, ring = g.monitor, g.rings[0]
        f = g.open(0, "f")
        s.over()
        base = m.stop(0)
        equal(base, ring.idx)
        head = g.ask("getattr", f)
        wait_a_moment(0.1)
        check(not g.got.get(head), "a stopped ring is served")
        s.over()
        check(not g.got.get(head), "a stopped ring is served")
        m.start(0, ring, base)
        g.wait(head)
        s.over()
        equal(g.read(f, 0, 100), DATA[:100])
        m.tell(vu.SET_STATUS, struct.pack("<Q", 0))
        ring.reset()
        m.set_features(vu.FEATURES)
        s.over()
        m.start(0, ring)
        denied(errno.ESTALE, lambda: g.getattr(f))
        g.version(65536)
        g.attach(0, "x")
        works(g)


@suite.test
def device_between_connect_and_mount():
    """Monitors that have said nothing yet, something, all but the last word."""
    with Dev() as s:
        silent, hello, nearly = s.monitor(), s.monitor(), s.monitor()
        for m in (hello, nearly):
            m.hello()
        mem = vu.Memory()
        ring = vu.Ring(mem)
        nearly.set_features(vu.FEATURES)
        nearly.add_region(mem.regions[0])
        nearly.start(0, ring, enable=False)
        ring.ring_bell()
        s.over()
        nearly.enable(0)
        g = vu.Guest(ring)
        g.attach(0, "x")
        works(g)
        equal(hello.config(0, 7)[:7], b"\x05\x00share")
        silent.hello()
        equal(silent.u64(vu.GET_QUEUE_NUM), 1)


@suite.test
def device_broken_by_its_guest_stays_so():
    with Dev() as s:
        g = s.guest()
        ring = g.rings[0]
        head = ring.chain([(1 << 50, 100, False), (1 << 50, 100, True)])
        ring.submit(head)
        until(lambda: "is stopped" in s.output(), 10)
        s.over()
        t = g.ask("getattr", 0)
        wait_a_moment(0.1)
        check(ring.seen == ring.used_idx(), "a queue that is broken goes on", t)
        m = g.monitor
        m.tell(vu.SET_STATUS, struct.pack("<Q", 0))
        ring.reset()
        os.eventfd_read(ring.err)
        m.set_features(vu.FEATURES)
        m.start(0, ring)
        g = vu.Guest(ring)
        g.attach(0, "x")
        works(g)


@suite.test
def device_books_go_on():
    """Who dies after a hand-over has kept the books of requests in flight: the next one answers them."""
    with HangFs() as h:
        s = Dev("-e", f"hang={h.where}")
        m = s.monitor()
        m.hello()
        mem = vu.Memory()
        ring = vu.Ring(mem)
        books = m.ask(vu.GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, 1, ring.num))
        area = m.fds[0]
        m.set_features(vu.FEATURES)
        m.mem_table(mem)
        m.tell(vu.SET_INFLIGHT_FD, books, [area])
        m.start(0, ring)
        g = vu.Guest(ring, msize=512000)
        g.attach(0, "x")
        g.attach(50, "hang")
        f = g.open(50, "h1")
        works(g)
        s.over()
        works(g)
        h.hang("READ")
        hung = [g._read(f, 4096 * i, 4096) for i in range(4)]
        wait_a_moment(0.3)
        os.kill(s.pid, signal.SIGKILL)
        h.go()
        s.process.wait(10)
        with Line("-e", f"x={s.tree}", listen=s.listen) as after:
            n = vu.Monitor(s.path)
            n.hello()
            n.set_features(vu.FEATURES)
            n.mem_table(mem)
            n.tell(vu.SET_INFLIGHT_FD, books, [area])
            n.start(0, ring, ring.used_idx())
            for t in hung:
                equal(g.outcome(t), errno.ESTALE)
            g.version(65536)
            g.attach(0, "x")
            works(g)
            after.alive()


class Listening:
    """A monitor that listens; .guest() is the guest of the next p9d that connects."""

    def __init__(self):
        common._count[0] += 1  # pylint: disable=protected-access
        self.path = os.path.join(common.TOP, f"monitor{common._count[0]}")  # pylint: disable=protected-access
        self.sock = None

    def listen(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen(5)
        self.sock.settimeout(60)

    def gone(self):
        self.sock.close()
        os.unlink(self.path)

    def guest(self):
        m, mem = vu.Monitor(self.sock.accept()[0]), vu.Memory()
        ring = vu.Ring(mem)
        m.hello()
        m.set_features(vu.FEATURES)
        m.add_region(mem.regions[0])
        m.start(0, ring)
        g = vu.Guest(ring)
        g.monitor = m
        g.attach(0, "x")
        return g

    def nobody_comes(self, seconds=0.5):
        return not select.select([self.sock], [], [], seconds)[0]


@suite.test
def device_that_connects_to_its_monitor_goes_over():
    """connect: the connection goes over and is the only one; when it ends, whoever serves then connects again."""
    end = Listening()
    end.listen()
    with Line("-e", f"x={make_tree()}", listen=["-l", f"vhost-user:{end.path},tag=share,connect"]) as s:
        g = end.guest()
        for _ in range(3):
            for _ in range(2):
                s.over()
                works(g)
            check(end.nobody_comes(), "a second connection to one monitor")
            g.monitor.close()
            g = end.guest()
            works(g)
        equal(s.stats()[0], 1)
        end.gone()
        g.monitor.close()
        until(lambda: "no monitor is there" in s.output(), 30)
        s.over()
        until(lambda: "no monitor is there" in s.output(), 30)
        end.listen()
        g = end.guest()
        works(g)
        s.over()
        works(g)
        g.monitor.close()
    end.gone()


@suite.test
def device_whose_connection_is_refused_is_told():
    """connect, and p9d has as many connections as it may: the monitor sees an end each time, and a device at last."""
    end = Listening()
    end.listen()
    with Line("-e", f"x={make_tree()}", "--connections", "1") as s:
        first = s.conn("x")
        s.over("-e", s.args[1], "--connections", "1",
               listen=[*s.listen, "-l", f"vhost-user:{end.path},tag=share,connect"])
        for _ in range(2):
            turned_away, _ = end.sock.accept()
            turned_away.settimeout(60)
            equal(turned_away.recv(1), b"", "not the end of the connection")
            turned_away.close()
        first.getattr(0)
        first.close()
        until(lambda: s.stats()[0] == 0, 30)
        while True:
            try:
                works(end.guest())
                break
            except (vu.Gone, OSError):
                pass  # one that was turned away before
    end.gone()


@suite.test
def device_requests_come_while_nobody_serves():
    """Kicks in the gap are not lost: requests are sent by a thread that never looks whether somebody is there."""
    with Dev() as s:
        g = s.guest()
        f = g.open(0, "f")
        done, answers = threading.Event(), []

        def ask():
            while not done.is_set():
                answers.append(g.read(f, len(answers) % 1000, 10) == DATA[len(answers) % 1000:len(answers) % 1000 + 10])
        t = threading.Thread(target=ask)
        t.start()
        try:
            for _ in range(10):
                n = len(answers)
                s.over()
                until(lambda n=n: len(answers) > n + 10, 20, "the guest waits for ever")
        finally:
            done.set()
            t.join()
        check(all(answers), "wrong data")
