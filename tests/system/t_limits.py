# SPDX-License-Identifier: BSD-2-Clause
"""Peers that take too much: only they are harmed, and what they took comes back."""
import errno
import os
import random
import resource
import select
import socket
import struct
import time

from common import P9d, Skip, check, denied, equal, free_port, fresh, put, quickly, sanitized, suite, until
import common
from ninep import O_RDWR, RDLCK, SET_SIZE, WRLCK, Closed, Conn, Error, Late, T, dial, frame

MIB = 1 << 20


def export(size=MIB):
    d = fresh("limits", 0o777)
    put(d + "/f", b"x" * size, 0o666)
    os.makedirs(d + "/a/b")
    put(d + "/a/b/f", b"deep", 0o666)
    return d


def slow(function):
    """Marks a test that takes long."""
    def run():
        if not common.SLOW:
            raise Skip("takes long; --slow runs it")
        function()
    run.__name__ = function.__name__
    return suite.test(run)


def works(c, name="f"):
    f = quickly(lambda: c.open(0, name))
    check(quickly(lambda: c.read(f, 0, 10)))
    c.clunk(f)


@suite.test
def limit_a_client_that_does_not_read():
    d = export()
    with P9d("-e", f"x={d}") as s:
        second = s.conn()
        works(second)
        before = s.rss()
        c = s.conn(msize=65536)
        f = c.open(0, "f")
        request = frame(T["read"], 1, struct.pack("<IQI", f, 0, 65000))
        small = frame(T["getattr"], 1, struct.pack("<IQ", f, 0x3fff))
        sent, deadline = 0, time.monotonic() + 50
        view = memoryview((request + small * 5) * 50)
        stuck = 0
        while stuck < 10 and time.monotonic() < deadline:
            try:
                n = c.sock.send(view[sent % len(view):])
                sent, stuck = sent + n, 0
            except BlockingIOError:
                stuck += 1
                time.sleep(0.03)
                works(second)
        check(stuck >= 10, f"p9d took {sent} bytes of requests and goes on")
        grown = s.rss() - before
        check(grown < 16 * MIB or sanitized(), f"{grown / MIB:.1f} MiB for a client that reads nothing")
        works(second)
        load = s.load(0.3)
        check(load < 0.2, f"{load:.0%} of a processor")
        works(s.conn())
        c.close()
        until(lambda: s.stats()[0] < 3, 30, "its connection stays")


@suite.test
def limit_all_tags_at_once():
    d = export()
    with P9d("-e", f"x={d}") as s:
        c, second = s.conn(), s.conn()
        body = struct.pack("<IQ", 0, 0x3fff)
        data = b"".join(frame(T["getattr"], tag, body) for tag in range(65535))
        c.push(data[:len(data) // 2])
        works(second)
        c.push(data[len(data) // 2:])
        for tag in range(65535):
            kind, _ = c.reply(tag)
            equal(kind, T["getattr"] + 1)
        works(second)


@suite.test
def limit_all_tags_at_once_on_requests_that_wait():
    """Blocking locks: each holds its place, so the connection is not read on; a second client is not harmed."""
    d = export()
    with P9d("-e", f"x={d}", "--lock-wait", "2") as s:
        a, c, second = s.conn(), s.conn(), s.conn()
        a.lock(a.open(0, "f", flags=O_RDWR), WRLCK, 0, 0, 99)
        f = c.open(0, "f", flags=O_RDWR)
        for i in range(2000):
            c._lock(f, WRLCK, 1, 0, 1, i, "t")
        works(second)
        a.close()
        works(second)
        c.close()
        until(lambda: s.stats()[0] == 1)


@suite.test
def limit_fid_flood():
    """p9d with few descriptors; one client takes all it gets, in every way that takes some."""
    d = export()
    ways = {
        "walk": lambda c, i: c.walk(0, "f"),
        "walk deep": lambda c, i: c.walk(0, "a", "b", "f"),
        "open": lambda c, i: c.open(0, "a", "b", "f"),
        "directories": lambda c, i: c.open(0, "a", "b"),
        "create": lambda c, i: c.create(c.walk(0, "a"), f"n{i}"),
        "locks": lambda c, i: c.lock(c.file, RDLCK, i, 1, proc=i),
    }
    os.chmod(d + "/a", 0o777)
    for what, take in ways.items():
        with P9d("-e", f"x={d}", before=("prlimit", "--nofile=700:700")) as s:
            second, c = s.conn(), s.conn()
            c.file = c.open(0, "f", flags=O_RDWR)
            works(second)
            n, code = 0, 0
            while not code and n < 3000:
                try:
                    take(c, n)
                    n += 1
                except Error as e:
                    code = e.code
            held = s.fds()
            check(code in (errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ENOENT), f"{what}: ends with {code} after {n}")
            try:
                works(second)
                third = s.conn()
                works(third)
            except (Error, Closed, Late) as e:
                raise AssertionError(f"{what}: {n} taken, {held} of 700 descriptors; another client: "
                                     f"{type(e).__name__} {e}") from None
            check(code != errno.ENOENT, f"{what}: being out of descriptors shows as ENOENT")
            c.getattr(0)
            c.close()
            until(lambda: s.fds() < 60, 30, f"{what}: descriptors stay")
            third.close()
            second.close()


@suite.test
def limit_fids_of_one_connection():
    d = export()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        before = s.rss()
        tags = []
        code = 0
        for base in range(0, 66000, 1000):
            tags = [c._walk(0, 100000 + base + i) for i in range(1000)]  # clones: no descriptors
            codes = [c.outcome(t) for t in tags]
            if max(codes):
                code = max(codes)
                break
        check(code in (errno.EMFILE, errno.ENFILE), f"{base} fids and no end (code {code}, {hard} descriptors)")
        works(s.conn())
        c.close()
        until(lambda: s.stats()[1] < 10, 30, "fids stay")
        grown = s.rss() - before
        check(grown < 24 * MIB or sanitized(), f"{grown / MIB:.1f} MiB stay after 65,536 fids")


@suite.test
def limit_fids_that_are_chosen_to_meet():
    """Numbers that all share one place of a table whose hash is known (this was p9d's) cost no more than others."""
    d = export()

    def cost(s, fids):
        c, before = s.conn(), s.work()
        for base in range(0, len(fids), 500):
            for t in [c._walk(0, f) for f in fids[base:base + 500]]:
                c.wait(t)
        took = s.work() - before
        c.close()
        return took
    low = (a for a in range(1, 1 << 22) if not (a * 2654435769 >> 7 ^ a) & 0x7fff)
    meet = [a | k << 22 for a in [next(low) for _ in range(20)] for k in range(1024)]
    with P9d("-e", f"x={d}") as s:
        plain = cost(s, [100 + i for i in range(len(meet))])
        took = cost(s, meet)
        check(took < 5 * plain + 0.1, f"{took:.2f} s of processor time, {plain:.2f} for others")


@suite.test
def limit_errors_do_not_leak():
    """Each of these fails, 2,000 times, and leaves nothing."""
    d = export()
    os.symlink("f", d + "/link")
    os.mkfifo(d + "/fifo")
    with P9d("-e", f"x={d}", "-e", f"ro={d},ro") as s:
        c = s.conn("x")
        c.attach(1, "ro")
        f, a, link, fifo, x = c.open(0, "f"), c.walk(0, "a"), c.walk(0, "link"), c.walk(0, "fifo"), c.walk(1, "f")
        long, much, none = "n" * 300, "u" * 60000, 0xffffffff
        wrong = [
            lambda: c._attach(9, none, "", "nothing", 0), lambda: c._attach(9, none, much, "x", none),
            lambda: c._attach(0, none, "", "x", 0), lambda: c._attach(9, 0, "", "x", 0), lambda: c._auth(9, "u", "x", 0),
            lambda: c._walk(f, 9, "more"), lambda: c._walk(0, 9, "nothing"), lambda: c._walk(0, f, "a"),
            lambda: c._walk(0, 9, *["a"] * 17), lambda: c._walk(0, 9, long), lambda: c._lopen(f, 0),
            lambda: c._lopen(fifo, 0), lambda: c._lopen(link, 0), lambda: c._lopen(a, 2), lambda: c._lopen(x, 2),
            lambda: c._lcreate(a, "b", 2, 0o600, none), lambda: c._lcreate(a, "b", 0o200, 0o600, none),
            lambda: c._lcreate(1, "n", 2, 0o600, none), lambda: c._symlink(0, "f", "t", none),
            lambda: c._symlink(0, "n", "", none), lambda: c._mknod(0, "f", 0o100600, 0, 0, none),
            lambda: c._mknod(0, "n", 0o20600, 1, 3, none), lambda: c._mkdir(0, "a", 0o700, none),
            lambda: c._mkdir(1, "n", 0o700, none), lambda: c._link(0, a, "n"), lambda: c._link(0, f, "f"),
            lambda: c._link(0, x, "n"), lambda: c._rename(0, a, "n"), lambda: c._renameat(0, "nothing", 0, "n"),
            lambda: c._renameat(0, "a", 0, "f"), lambda: c._unlinkat(0, "a", 0), lambda: c._unlinkat(0, "f", 0x200),
            lambda: c._unlinkat(0, "nothing", 0), lambda: c._readlink(f), lambda: c._setattr(f, 1 << 20, *[0] * 8),
            lambda: c._setattr(a, SET_SIZE, *[0] * 8), lambda: c._setattr(x, SET_SIZE, *[0] * 8),
            lambda: c._xattrwalk(f, 9, "user.none"), lambda: c._xattrwalk(f, 9, "trusted.t"),
            lambda: c._xattrcreate(a, "user.a", 1 << 40, 0), lambda: c._xattrcreate(x, "user.a", 3, 0),
            lambda: c._read(a, 0, 10), lambda: c._write(f, 0, b"x"), lambda: c._readdir(f, 0, 100),
            lambda: c._fsync(a, 0), lambda: c._lock(f, WRLCK, 0, 0, 1, 1, much), lambda: c._getlock(a, 1, 0, 1, 1, "t"),
            lambda: c._lock(f, RDLCK, 0, 1 << 63, 1, 1, "t"), lambda: c._clunk(777), lambda: c._remove(777)]

        def rounds(n):
            for _ in range(n):
                codes = [c.outcome(t) for t in [w() for w in wrong]]
                check(0 not in codes, f"no error: {[i for i, e in enumerate(codes) if e == 0]}")
        rounds(100)
        s.stats()
        before, fds = s.rss(), s.fds()
        rounds(1900)
        conns, fids, _ = s.stats()
        equal((conns, fids), (1, 7))
        check(s.fds() <= fds, f"{s.fds()} descriptors, {fds} before")
        grown = s.rss() - before
        check(grown < MIB or sanitized(), f"{grown / 1024:.0f} KiB more")


@suite.test
def limit_names_of_many_users():
    """Each Tattach with as long a uname as a message can have: they are not kept."""
    d = export()
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        before = s.rss()
        for i in range(1500):
            c.attach(100 + i, "", 0, "u" * 60000)
        grown = s.rss() - before
        check(grown < 16 * MIB or sanitized(), f"{grown / MIB:.1f} MiB for 1500 attaches")
        denied(errno.EPERM, lambda: c.attach(99, "", 0xffffffff, "root" + "x" * 60000))


@suite.test
def limit_lines_of_the_log():
    """Connections that come and go, and garbage, do not fill the log."""
    d = export()
    with P9d("-e", f"x={d}") as s:
        began = time.monotonic()
        for i in range(1000):
            x = dial(s.socket)
            x.send(b"\1\0\0\0" * 2)
            x.close()
        works(s.conn())
        until(lambda: s.stats()[0] == 0)
        seconds = time.monotonic() - began
        lines = [x for x in s.output().splitlines() if "connected" in x or "closed" in x]
        check(20 <= len(lines) < 60 * (seconds + 2), f"{len(lines)} lines in {seconds:.1f} s")


@suite.test
def limit_connections():
    d = export()
    with P9d("-e", f"x={d}", "--connections", "12") as s:
        conns = [s.conn() for _ in range(12)]
        for _ in range(5):
            over = dial(s.socket)
            over.settimeout(30)
            try:
                over.send(frame(T["version"], 0xffff, struct.pack("<I", 8192) + b"\x08\x009P2000.L"))
                equal(over.recv(1), b"", "one connection more than allowed")
            except (ConnectionResetError, BrokenPipeError):
                pass
            over.close()
        works(conns[0])
        conns[5].close()
        until(lambda: s.stats()[0] == 11)
        works(s.conn())
        check("too many connections" in s.output())


@suite.test
def limit_strangers_of_one_address():
    """Connections that never attach: one address may have 64 of them; others, and those that attach, are not touched."""
    d, port = export(), free_port()
    with P9d("-e", f"x={d}", listen=["-l", f"tcp:127.0.0.1:{port}"]) as s:
        def stranger(source="127.0.0.1"):
            sock = socket.create_connection(("127.0.0.1", port), 5, (source, 0))
            sock.settimeout(8)  # one that is let in is thrown out after 10
            return sock

        def turned_away(sock):
            try:
                return sock.recv(1) == b""
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False
        known = []
        for _ in range(70):  # more than 64, but they attach
            c = Conn(stranger(), 65536)
            c.attach(0, "", 0, "")
            known.append(c)
        held = [stranger() for _ in range(64)]
        until(lambda: s.stats()[0] == 134)
        check(all(turned_away(stranger()) for _ in range(20)), "the 65th stranger is let in")
        other = Conn(stranger("127.0.0.2"), 65536)
        other.attach(0, "", 0, "")
        works(other)
        works(known[0])
        equal(s.output().count("turned away"), 1, "said more than once a minute")
        held[0].close()
        until(lambda: s.stats()[0] == 134, 10)  # with `other`
        c = Conn(stranger(), 65536)
        c.attach(0, "", 0, "")
        works(c)
        for sock in held:
            sock.close()


@suite.test
def limit_accept_without_descriptors_does_not_spin():
    d = export()
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        works(c)
        low = s.fds() - 3
        try:
            resource.prlimit(s.pid, resource.RLIMIT_NOFILE, (low, 4096))
        except PermissionError:
            raise Skip("another process's limits cannot be changed here") from None
        waiting = [dial(s.socket) for _ in range(3)]
        time.sleep(0.2)
        load = s.load(0.7)
        c.getattr(0)
        resource.prlimit(s.pid, resource.RLIMIT_NOFILE, (4096, 4096))
        for x in waiting:
            x.close()
        time.sleep(0.2)
        works(until(lambda: connect_or_none(s), 30, "nobody can connect after descriptors are there again"))
        check(load < 0.1, f"{load:.0%} of a processor while nothing can be accepted")


def connect_or_none(s):
    try:
        return s.conn()
    except (OSError, Closed):
        return None


@suite.test
def limit_memory_of_idle_connections():
    if sanitized():
        raise Skip("a sanitizer's memory says nothing")
    d = export()
    with P9d("-e", f"x={d}") as s:
        warm = [s.conn() for _ in range(20)]
        for c in warm:
            works(c)
        before = s.rss()
        conns = []
        for _ in range(500):
            c = s.conn()
            works(c)
            conns.append(c)
        each = (s.rss() - before) / 500
        check(each <= 16 * 1024, f"{each / 1024:.1f} KiB for each idle connection")
        for c in conns:
            c.close()
        until(lambda: s.stats()[0] == 20)
        check(s.rss() < before + 3 * MIB, f"{(s.rss() - before) / MIB:.1f} MiB stay after 500 connections")


@suite.test
def limit_memory_comes_back():
    """Large messages on many connections, broken off in the middle."""
    d = export(4 * MIB)
    with P9d("-e", f"x={d}") as s:
        works(s.conn())
        before = s.rss()
        for _ in range(3):
            conns = [s.conn(msize=MIB) for _ in range(24)]
            for c in conns:
                f = c.open(0, "f", flags=O_RDWR)
                for _ in range(6):
                    c._read(f, 0, MIB - 24)
                c.push(frame(T["write"], 9, struct.pack("<IQI", f, 0, 900000) + bytes(900000))[:500000])
            for c in conns:
                c.close()
            until(lambda: s.stats()[0] <= 1, 20, "connections stay")
        grown = s.rss() - before
        check(grown < 40 * MIB or sanitized(), f"{grown / MIB:.1f} MiB stay")
        check(s.fds() < 60, f"{s.fds()} descriptors stay")


@suite.test
def limit_bad_peers_lose_their_link_only():
    d, rnd = export(), random.Random(4)
    with P9d("-e", f"x={d}", "--log", "error") as s:
        good = s.conn()
        for i in range(300):
            x = dial(s.socket)
            x.settimeout(30)
            kind = i % 6
            try:
                if kind == 0:
                    x.send(rnd.randbytes(200))
                elif kind == 1:
                    x.send(struct.pack("<IBH", 0xffffffff, 100, 0xffff))
                elif kind == 2:
                    x.send(struct.pack("<IBH", rnd.randrange(7), 100, 0xffff))
                elif kind == 3:
                    x.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    x.send(frame(T["version"], 0xffff, struct.pack("<I", 8192) + b"\x08\x009P2000.L")[:-rnd.randrange(1, 9)])
                elif kind == 4:
                    c = Conn(x)
                    c.attach(0)
                    c.push(frame(7, 1, b"\0\0\0\0"))
                    check(c.ended(), "a reply as a request does not end the link")
                else:
                    c = Conn(x)
                    c.attach(0)
                    for _ in range(80):
                        c.push(frame(T["walk"], 1, rnd.randbytes(9)))
                    c.ended(0.5)
            except (OSError, Closed):
                pass
            x.close()
            if i % 25 == 0:
                works(good)
        works(good)
        until(lambda: s.stats()[0] == 1, 30, "bad peers stay")


@suite.test
def limit_half_close_is_answered():
    """A peer that has sent all it wants and closes its sending half gets its answers."""
    d = export()
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        f = c.open(0, "f")
        tags = [c._getattr(f) for _ in range(50)] + [c._read(f, 0, 30000) for _ in range(20)]
        c.sock.shutdown(socket.SHUT_WR)
        for t in tags:
            c.wait(t)
        check(c.ended(), "the server keeps the connection")
        until(lambda: s.stats()[0] == 0)


@suite.test
def limit_half_a_frame_then_the_end():
    d = export()
    with P9d("-e", f"x={d}") as s:
        for cut in (1, 3, 4, 6, 7, 10):
            c = s.conn()
            c.push(frame(T["getattr"], 1, struct.pack("<IQ", 0, 1))[:cut])
            c.sock.shutdown(socket.SHUT_WR)
            check(c.ended(), f"after {cut} bytes")
        until(lambda: s.stats()[0] == 0)


@suite.test
def limit_few_workers():
    """One worker is enough, if slow."""
    d = export()
    for workers in (1, 2):
        with P9d("-e", f"x={d}", "--workers", workers, "--loops", "2") as s:
            a, b = s.conn(), s.conn()
            fa, fb = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR)
            a.lock(fa, WRLCK, 0, 0)
            t = b._lock(fb, WRLCK, 1, 0, 0, 2, "b")
            time.sleep(0.2)
            a.version(65536)
            b.wait(t)
            b.close()
            a.close()
            until(lambda: s.stats()[:2] == (0, 0), 30, f"{workers} workers: what is closed stays")


@suite.test
def limit_reads_that_are_not_cached():
    """Large reads of a file that nobody has read yet: holes, and after the cache was dropped."""
    d = fresh("cold", 0o777)
    with open(d + "/sparse", "wb") as f:
        f.truncate(2 * MIB)
    put(d + "/cold", os.urandom(2 * MIB))
    with open(d + "/cold", "rb") as f:
        want = f.read()
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with P9d("-e", f"x={d}") as s:
        for msize in (65536, MIB):
            c = s.conn(msize=msize)
            for name, content in (("sparse", bytes(2 * MIB)), ("cold", want)):
                f, at = c.open(0, name), 0
                while at < 2 * MIB:
                    got = c.read(f, at, msize - 24)
                    check(got and got == content[at:at + len(got)], f"{name} at {at}: {len(got)} bytes")
                    at += len(got)


@slow
def limit_timer_of_the_handshake():
    d = export()
    with P9d("-e", f"x={d}") as s:
        silent, unknown, good = dial(s.socket), Conn(s.socket, version=False), s.conn()
        unknown.version(8192, "9P1999")
        began = time.monotonic()
        silent.setblocking(False)
        check(select.select([silent], [], [], 60)[0], "a silent peer is not thrown out")
        took = time.monotonic() - began
        check(9 < took < 60, f"after {took:.1f} s")
        check(unknown.ended(), "a peer that has named an unknown dialect may stay for ever")
        works(good)


@slow
def limit_timer_of_a_peer_that_does_not_read():
    d = export()
    with P9d("-e", f"x={d}") as s:
        c, good = s.conn(), s.conn()
        f = c.open(0, "f")
        for i in range(2000):
            try:
                c.sock.send(frame(T["read"], i, struct.pack("<IQI", f, 0, 65000)))
            except BlockingIOError:
                break
        began = time.monotonic()
        until(lambda: s.stats()[0] == 1, 120, "it stays")
        check(time.monotonic() - began > 50, "thrown out before its time")
        check("does not read" in s.output())
        works(good)


@slow
def limit_timer_of_a_message():
    d = export()
    with P9d("-e", f"x={d}") as s:
        c, drip = s.conn(), s.conn()
        c.push(b"\x20\0\0")
        began = time.monotonic()
        data = frame(T["walk"], 1, bytes(60))
        for i in range(40):
            try:
                drip.push(data[i:i + 1])
            except Closed:
                break
            time.sleep(0.9)
        took = time.monotonic() - began
        check(28 < took < 60, f"one byte a second: thrown out after {took:.1f} s")
        check(c.ended(), "three bytes and then nothing")
