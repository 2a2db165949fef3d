# SPDX-License-Identifier: BSD-2-Clause
"""Sessions: what a guest gets before Tversion, after a p9d that began anew, and as which user it acts."""
import errno
import os
import signal
import struct

import frontend as vu
import ninep
from common import P9d, HangFs, check, denied, equal, put, suite, until
from ninep import NONUNAME, O_RDWR, SET_SIZE
from setup import DATA, Device, make_tree, quiet_for, works

EVERYTHING = (("statfs", 0), ("lopen", 0, 0), ("lcreate", 0, "n", 2, 0o644, 0), ("symlink", 0, "n", "t", 0),
              ("mknod", 0, "n", 0o100644, 0, 0, 0), ("rename", 0, 0, "n"), ("readlink", 0), ("getattr", 0),
              ("setattr", 0, SET_SIZE, 0, 0, 0, 0, 0, 0, 0, 0), ("xattrwalk", 0, 9, ""), ("xattrcreate", 0, "user.x", 1, 0),
              ("readdir", 0, 0, 3000), ("fsync", 0, 0), ("lock", 0, 1, 0, 0, 0, 1, "t"), ("getlock", 0, 1, 0, 0, 1, "t"),
              ("link", 0, 0, "n"), ("mkdir", 0, "n", 0o755, 0), ("renameat", 0, "a", 0, "b"), ("unlinkat", 0, "f", 0),
              ("auth", 5, "", "", 0), ("attach", 0, 0xFFFFFFFF, "", "", 0), ("flush", 5), ("walk", 0, 9, "f"),
              ("read", 0, 0, 100), ("write", 0, 0, b"x" * 100), ("clunk", 0), ("remove", 0), ("write", 0, 0, b"x" * 300000),
              ("read", 0, 0, 300000))


@suite.test
def session_before_tversion_everything_is_estale():
    with Device() as s:
        g = s.guest(msize=512000, version=False)
        for name, *args in EVERYTHING:
            denied(errno.ESTALE, lambda name=name, args=args: g.wait(g.ask(name, *args)))
        for t in g.batch([("getattr", 0)] * 100):
            equal(g.outcome(t), errno.ESTALE)
        equal(s.stats()[1], 0)
        check(os.path.exists(s.tree + "/f"))
        g.version(65536)
        g.attach()
        works(g)


def killed_with_requests(h, s):
    """A guest with 8 requests that hang, 3 behind them that were answered, and inflight books; p9d is killed then."""
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
    f, fast = g.open(50, "h1"), g.open(0, "f")
    for i in range(70):
        works(g)
    h.hang("READ")
    hung = [g._read(f, 4096 * i, 4096) for i in range(4)]
    quiet_for(0.1)
    answered = [g.wait(g._read(fast, 0, 10)) for _ in range(3)]
    equal(len(answered), 3)
    hung += [g._read(f, 4096 * i, 4096) for i in range(4)]
    quiet_for(0.2)
    os.kill(s.pid, signal.SIGKILL)
    h.go()  # what hangs cannot even be killed
    s.process.wait(10)
    return g, books, area, hung


@suite.test
def session_killed_and_started_again_with_inflight():
    """Orphans are answered ESTALE, in the order in which they were sent; then what came meanwhile; then a new session."""
    with HangFs() as h:
        tree = make_tree()
        first = Device("-e", f"hang={h.where}", tree=tree)
        g, books, area, hung = killed_with_requests(h, first)
        ring = g.rings[0]
        meanwhile = [g._getattr(0), g.ask("write", 1001, 0, b"x" * 100000)]
        # the monitor gives a base that would lose them, as one that takes the available index does
        for base in (ring.idx, ring.used_idx()):
            with Device("-e", f"hang={h.where}", tree=tree) as s:
                m = s.monitor()
                m.hello()
                m.set_features(vu.FEATURES)
                m.mem_table(g.mem)
                m.tell(vu.SET_INFLIGHT_FD, books, [area])
                m.start(0, ring, base=base)
                g.order.clear()
                for t in [*hung, *meanwhile]:
                    equal(g.outcome(t), errno.ESTALE)
                equal(g.order, [*hung, *meanwhile], "their order")
                denied(errno.ESTALE, lambda: g.clunk(0))
                g.version(512000)
                g.attach(0, "x")
                works(g)
                hung = [g._getattr(0) for _ in range(3)]
                meanwhile = []
                for t in hung:
                    equal(g.outcome(t), 0)
                equal(ring.used_idx(), ring.idx)
                hung = []
                os.kill(s.pid, signal.SIGKILL)
                s.process.wait()
                s.codes = (-9,)
        os.close(area)


@suite.test
def session_killed_between_giving_back_and_its_note():
    """The books say that a chain is out which the used ring shows: it is not answered twice."""
    with Device() as s:
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
        g = vu.Guest(ring)
        g.attach()
        f = g.open(0, "f")
        g.read(f, 0, 10)
        equal(m.stop(0), ring.idx)
        with vu.mmap.mmap(area, 0) as book:
            version, num, last, used = struct.unpack_from("<HHHH", book, 8)
            equal((version, num, used), (1, 128, ring.used_idx()))
            equal([book[16 + 16 * i] for i in range(128)], [0] * 128, "marked as out")
            book[16 + 16 * last] = 1  # as it was a moment earlier
            struct.pack_into("<H", book, 14, used - 1)
        m.start(0, ring, base=ring.idx)
        equal(g.read(f, 3, 10), DATA[3:13])
        equal(ring.used_idx(), ring.idx)
        os.close(area)


@suite.test
def session_books_of_a_hostile_monitor():
    """Every bit set, numbers outside of the ring, a file that is too short, or is shortened: no harm but to itself."""
    with Device() as s:
        other = s.guest()
        for size, fill in ((1 << 20, b"\xff"), (1 << 20, b"\1"), (1 << 20, bytes([1, 0, 128, 0]))):
            m = s.monitor()
            m.hello()
            mem = vu.Memory()
            ring = vu.Ring(mem)
            m.set_features(vu.FEATURES)
            m.mem_table(mem)
            area = vu.Region(size, 0, 0)
            area.map.write((fill * size)[:size])
            struct.pack_into("<HHHH", area.map, 8, 1, 128, 0xFFFF, 0xFFFF)
            m.tell(vu.SET_INFLIGHT_FD, struct.pack("<QQHH", size, 0, 4, 128), [area.fd])
            m.start(0, ring)
            ring.ring_bell()
            quiet_for(0.1)
            works(other)
            os.ftruncate(area.fd, 0)
            ring.ring_bell()
            works(other)
            m.close()
            area.close()
        m = s.monitor()
        m.hello()
        area = vu.Region(4096, 0, 0)
        for body in ((4096, 0, 1, 1024), (8192, 0, 1, 128), (4096, 4096, 1, 128), (4096, 1, 1, 128), (2112, 0, 0, 128),
                     (2112, 0, 1, 0), (2112, 0, 1, 65535), (0, 0, 1, 128), (1 << 63, 0, 1, 128), (4096, (1 << 64) - 4096, 1, 128),
                     (4096, 0, 65535, 32768)):
            try:
                m.tell(vu.SET_INFLIGHT_FD, struct.pack("<QQHH", *body), [area.fd])
                raise AssertionError(f"accepted: {body}")
            except vu.Refused:
                pass
        for queues, num in ((0, 128), (2, 128), (1, 0), (1, 40000)):
            size, = struct.unpack_from("<Q", m.ask(vu.GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, queues, num)))
            equal((size, m.fds), (0, []))
        area.close()


@suite.test
def session_front_end_killed_in_mid_request():
    """SIGKILL of a monitor with a full ring: nothing of it is left."""
    with HangFs() as h, Device("-e", f"hang={h.where}") as s:
        s.guest().monitor.close()
        s.gone()
        before = s.fds()
        for i in range(6):
            h.hang("READ")
            r, w = os.pipe()
            pid = os.fork()
            if pid == 0:
                g = s.guest()
                g.attach(50, "hang")
                f, hung = g.open(0, "f"), g.open(50, "h1")
                for k in range(20):
                    g._read(f, 100 * k, 60000)
                    g._read(hung, 0, 4096)
                os.write(w, b"x")
                signal.pause()
            os.read(r, 1)
            os.close(r)
            os.close(w)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            works(s.guest())
            h.go()
            s.gone()
        until(lambda: s.fds() <= before, 5, f"descriptors: {before} before, {s.fds()} after")


@suite.test
def session_users_of_a_guest():
    """The guest's kernel says who acts; its root is root unless squashed. checks= as everywhere."""
    with Device() as s:
        g = s.guest(attach=False)
        g.attach(0, "", 1000)
        g.create(0, "by-1000")
        g.attach(1, "", 0)
        g.create(1, "by-root")
        equal([os.stat(f"{s.tree}/{n}").st_uid for n in ("by-1000", "by-root")], [1000, 0])
        put(s.tree + "/secret", b"s", 0o600, (2, 2))
        equal(g.read(g.open(0, "secret"), 0, 1), b"s")  # its kernel has looked at modes already
    tree = make_tree()
    put(tree + "/secret", b"s", 0o600, (2, 2))
    with P9d("-e", f"x={tree},checks=server,squash=root", listen=["-l", f"vhost-user:{tree}-sock,tag=t"]) as s:
        m = vu.Monitor(tree + "-sock")
        m.hello()
        mem = vu.Memory()
        ring = vu.Ring(mem)
        m.set_features(vu.FEATURES)
        m.mem_table(mem)
        m.start(0, ring)
        g = vu.Guest(ring)
        g.attach(0, "", 1000)
        denied(errno.EACCES, lambda: g.open(0, "secret"))
        g.attach(1, "", 0)
        denied(errno.EACCES, lambda: g.open(1, "secret"))
        f = g.create(1, "squashed")
        equal(os.stat(tree + "/squashed").st_uid, 65534)
        g.clunk(f)
        denied((errno.EPERM, errno.EACCES), lambda: g.attach(2, "", NONUNAME, "no such user"))


@suite.test
def session_all_kinds_of_requests():
    """A walk through 9P over rings: what the talks test over sockets."""
    with Device() as s:
        g = s.guest(512000)
        g.mkdir(0, "d", 0o755, 0)
        d = g.walk(0, "d")
        f = g.create(d, "f")
        equal(g.write(f, 0, DATA[:250000]), 250000)
        g.fsync(f, 0)
        g.symlink(d, "l", "f" * 1000, 0)
        equal(g.readlink(g.walk(d, "l"))[2:], b"f" * 1000)
        g.link(d, f, "h")
        equal(g.getattr(f).nlink, 2)
        g.renameat(d, "h", 0, "moved")
        x = g.walk(d, "f")
        g.xattrcreate(x, "user.big", 3000, 0)
        equal(g.write(x, 0, DATA[:3000]), 3000)
        g.clunk(x)
        equal(g.xattr(g.walk(d, "f"), "user.big"), DATA[:3000])
        g.setattr(f, SET_SIZE, size=10)
        equal(g.getattr(f).size, 10)
        g.unlinkat(0, "moved", 0)
        h = g.open(d, "f", flags=O_RDWR)
        equal(g.lock(h, ninep.WRLCK, 0, 10), 0)
        equal(g.getlock(f, ninep.WRLCK, 0, 10, proc=2)[0], ninep.WRLCK)
        g.remove(g.walk(d, "l"))
        names = []
        listing = g.open(0, "dir")
        offset = 0
        while more := g.entries(listing, offset, 3000):
            names += [e[0] for e in more]
            offset = more[-1][1]
        equal(len(set(names)), 302)
