# SPDX-License-Identifier: BSD-2-Clause
"""A file system that stops answering: others go on, nothing is lost or leaked when it answers again."""
import errno
import os
import signal
import time

from common import HangFs, P9d, check, connects, equal, fresh, put, quickly, suite, until, within
from ninep import O_RDONLY, O_RDWR, O_WRONLY

WHAT = ("READ", "GETATTR", "LOOKUP", "OPEN", "STATFS", "OPENDIR", "READDIR", "WRITE", "FSYNC")


def hang_some(c, n):
    """n requests of all kinds that hang; their tags. fids: h0..h7 not open, h8 open."""
    fids = [c.walk(0, f"h{i}") for i in range(8)]
    opened = [c.open(0, "h8", flags=O_RDWR) for _ in range(4)]
    directory = c.open(0)
    kinds = [lambda i: c._read(opened[0], 0, 4096), lambda i: c._getattr(fids[i % 8]),
             lambda i: c._walk(0, c.fid(), f"h{i % 8}"), lambda i: c._lopen(fids[i % 8], O_RDONLY),
             lambda i: c._statfs(0), lambda i: c._readdir(directory, 0, 4096),
             lambda i: c._write(opened[1], 0, b"x" * 100), lambda i: c._fsync(opened[2], 0)]
    return fids + opened + [directory], lambda: [kinds[i % len(kinds)](i) for i in range(n)]


def server(hang, normal, *more):
    return P9d("-e", f"hang={hang.where}", "-e", f"normal={normal}", *more)


@suite.test
def hang_others_go_on():
    normal = fresh()
    put(normal + "/f", b"data")
    with HangFs() as h, server(h, normal) as s:
        c, same, other = s.conn("hang"), s.conn("hang"), s.conn("normal")
        c.attach(500, "normal")
        fids, start = hang_some(c, 24)
        h.hang(*WHAT)
        tags = start()
        time.sleep(0.1)
        f = quickly(lambda: other.open(0, "f"))
        for _ in range(100):
            quickly(lambda: other.read(f, 0, 10))
            quickly(lambda: other.getattr(0))
        quickly(lambda: c.getattr(500))  # the same connection, another export
        quickly(lambda: same.flush(12345))
        quickly(lambda: s.conn("normal").close())
        quickly(lambda: c.version and other.version(65536))  # a session ends and begins beside it
        check(not any(c.answered(t) for t in tags), "a request was answered although its file system hangs")
        h.go()
        results = [c.outcome(t) for t in tags]
        check(all(r in (0, errno.EINVAL) for r in results), f"answers afterwards: {results}")
        for fid in fids:
            c.clunk(fid)
        for x in (c, same, other):
            x.close()
        until(lambda: s.stats()[:2] == (0, 0), 30, f"connections, fids left: {s.stats()[:2]}")


@suite.test
def hang_flush_is_answered_after_the_request():
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        f = c.open(0, "h1")
        h.hang("READ")
        read = c._read(f, 0, 10)
        time.sleep(0.1)
        flushes = [c._flush(read) for _ in range(3)]
        c.settle(0.2)
        check(not any(c.answered(t) for t in flushes), "Rflush came while the call was at work")
        h.go()
        for t in flushes:
            c.wait(t)
        order = [t for t in c.order if t in flushes]
        equal(order, flushes, "order of Rflush")
        check(read not in c.order or c.order.index(read) < c.order.index(flushes[0]), "reply after its Rflush")
        equal(len(c.read(f, 0, 10)), 10)


@suite.test
def hang_queued_request_is_flushed_at_once():
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        f = c.open(0, "h1", flags=O_RDWR)
        h.hang("FSYNC")
        fsync = c._fsync(f, 0)
        time.sleep(0.05)
        queued = c._write(f, 0, b"never")
        quickly(lambda: c.flush(queued))
        h.go()
        equal(c.outcome(fsync), 0)
        c.settle(0.05)
        check(queued not in c.order, "a flushed request was answered")


@suite.test
def hang_disconnect_does_not_spin():
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        f = c.open(0, "h1")
        h.hang("READ")
        c._read(f, 0, 10)
        time.sleep(0.1)
        c.close()
        time.sleep(0.1)
        load = s.load(0.7)
        h.go()
        check(load < 0.1, f"p9d takes {load:.0%} of a processor for a link that is gone")
        until(lambda: s.stats()[:2] == (0, 0), 30, "connection and fids of a link that is gone stay")


@suite.test
def hang_fids_do_not_leak():
    """Requests that wait behind a clunk that waits behind a hanging read."""
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        f = c.open(0, "h1")
        h.hang("READ")
        tags = [c._read(f, 0, 10)]
        time.sleep(0.1)
        tags += [c._clunk(f)] + [c._getattr(f) for _ in range(5)]
        time.sleep(0.05)
        h.go()
        equal([c.outcome(t) for t in tags], [0, 0] + [errno.EBADF] * 5)
        c.close()
        until(lambda: s.stats()[:2] == (0, 0), 30, f"connections and fids that stay: {s.stats()[:2]}")


def mounted_below():
    """An export with quiet directories q, r and a file system that can hang at m."""
    d = fresh()
    for name in "qrm":
        os.mkdir(f"{d}/{name}")
    return d, HangFs(d + "/m")


@suite.test
def hang_a_fid_moves_under_a_request():
    d, h = mounted_below()
    with h, P9d("-e", f"x={d}") as s:
        c = s.conn()
        a = c.walk(c.walk(0, "q"), "..")  # a node that only this fid has
        r = c.getattr(c.walk(0, "r")).path
        h.hang("LOOKUP")
        far = c._walk(a, 77, "m", "h3")
        time.sleep(0.1)
        near = c._walk(a, a, "r")
        c.settle(0.1)
        h.go()
        equal((c.outcome(far), c.outcome(near)), (0, 0))
        equal(c.getattr(77).size, 131072)
        equal(c.getattr(a).path, r)
        c.close()
        until(lambda: s.stats()[1] == 0, 30, "fids stay")


@suite.test
def hang_the_second_fid_is_clunked():
    """A rename hangs; the directory it moves to is clunked, and its fid made again, many times."""
    d, h = mounted_below()
    with h, P9d("-e", f"x={d}") as s:
        for kind in ("renameat", "link", "rename", "lcreate"):
            c = s.conn()
            q, m, f = c.walk(0, "q"), c.walk(0, "m"), c.walk(0, "m", "h1")
            b = c.walk(c.walk(0, "m"), "..")
            b = c.walk(b, "m")
            h.hang("RENAME", "RENAME2", "LINK")
            if kind == "link":
                t, b = c._link(b, f, "new"), f
            else:
                t = c._rename(f, b, "h2") if kind == "rename" else c._renameat(m, "h1", b, "h2")
            time.sleep(0.1)
            for _ in range(300):  # the export counts as quick again
                c.getattr(q)
            if kind == "lcreate":
                moved = c._walk(b, b)
                c.settle(0.05)
                gone = c._clunk(b)
            else:
                moved, gone = None, c._clunk(b)
            c.settle(0.05)
            more = [c.walk(q) for _ in range(5)]
            h.go()
            got = c.outcome(t)
            check(got in (0, errno.EBADF), f"{kind}: {os.strerror(got)}")
            check(moved is None or c.outcome(moved) in (0, errno.EBADF))
            equal(c.outcome(gone), 0, kind)
            more += [c.walk(q) for _ in range(20)]
            for fid in more:
                equal(c.getattr(fid).path, c.getattr(q).path)
                c.clunk(fid)
            before = s.stats()[1]
            c.close()
            until(lambda: s.stats()[1] == 0, 30, f"{kind}: of {before} fids stay {s.stats()[1]}")


@suite.test
def hang_one_new_fid_for_one_request():
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        f = c.open(0, "h1", flags=O_RDWR)
        h.hang("FSYNC")
        tags = [c._fsync(f, 0)]
        time.sleep(0.1)
        tags += [c._xattrwalk(f, 7, ""), c._xattrwalk(f, 7, ""), c._walk(f, 7)]
        time.sleep(0.05)
        h.go()
        got = [c.outcome(t) for t in tags]
        equal(sorted(got), [0, 0, errno.EEXIST, errno.EEXIST], "three requests that make one fid")
        c.clunk(7)
        equal(c.outcome(c._clunk(7)), errno.EBADF, "second clunk")


@suite.test
def hang_fid_in_making_is_waited_for():
    d, h = mounted_below()
    with h, P9d("-e", f"x={d}") as s:
        c = s.conn()
        q = c.walk(0, "q")
        m = c.open(0, "m", "h2", flags=O_RDWR)
        h.hang("LOOKUP", "FSYNC", "GETATTR")
        tags = [c._walk(0, 50, "m", "h1")]
        time.sleep(0.05)
        tags += [c._getattr(50), c._rename(q, 50, "x"), c._link(q, 50, "l"), c._fsync(m, 0), c._clunk(50)]
        time.sleep(0.05)
        h.go()
        got = [c.outcome(t) for t in tags]
        # requests of which none was answered may pass each other: the link may come after the clunk
        check(got[0] == 0 and got[1] == 0 and got[2] == errno.ENOTDIR and got[3] in (errno.EXDEV, errno.EBADF)
              and got[4:] == [0, 0], f"pipelined on a fid that was being made: {got}")


@suite.test
def hang_the_second_fid_is_waited_for():
    """A rename that waited behind its file waits behind its directory too, which is being made into something else."""
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        a = c.open(0, "h1", flags=O_RDWR)
        b = c.walk(c.walk(0), "..")  # a node of its own
        h.hang("FSYNC", "LOOKUP", "RENAME", "RENAME2")
        fsync = c._fsync(a, 0)
        create = c._lcreate(b, "h5", O_RDWR, 0o600, 0xffffffff)
        time.sleep(0.1)
        rename, after = c._rename(a, b, "h6"), c._getattr(a)
        time.sleep(0.05)
        h.hang("LOOKUP", "RENAME", "RENAME2")
        equal(c.outcome(fsync), 0)
        time.sleep(0.1)
        h.hang("RENAME", "RENAME2")
        equal(c.outcome(create), 0)
        time.sleep(0.1)
        h.go()
        equal(c.outcome(rename), errno.ENOTDIR, "rename to what has become a file")
        equal(c.outcome(after), 0)


@suite.test
def hang_disconnects_do_not_jam_others():
    """close(2) itself hangs: for eight connections at once."""
    normal = fresh()
    put(normal + "/f")
    with HangFs() as h, server(h, normal) as s:
        c = s.conn("normal")
        many = [s.conn("hang") for _ in range(8)]
        for x in many:
            x.open(0, "h1", flags=O_WRONLY)
        h.hang("FLUSH")
        try:
            for x in many:
                x.close()
            time.sleep(0.2)
            c.open(0, "f")
            c.timeout = 20
            quickly(lambda: c.version(65536))
            c.attach(0, "normal")
            quickly(lambda: s.conn("normal").close())
        finally:
            h.go()
        c.close()
        until(lambda: s.stats()[:2] == (0, 0), 30, f"left: {s.stats()[:2]}")


@suite.test
def hang_close_of_an_open_nobody_waits_for():
    """Tlopen hangs, its client goes, the open comes back, and then its close hangs."""
    normal = fresh()
    with HangFs() as h, server(h, normal, "--loops", "1") as s:
        c, x = s.conn("normal", timeout=20), s.conn("hang")
        f = x.walk(0, "h1")
        h.hang("OPEN", "FLUSH")
        x._lopen(f, O_RDWR)
        time.sleep(0.1)
        x.close()
        time.sleep(0.05)
        h.hang("FLUSH")
        try:
            for _ in range(10):
                quickly(lambda: c.getattr(0))
                time.sleep(0.02)
        finally:
            h.go()
        c.close()
        until(lambda: s.stats()[:2] == (0, 0), 30, "left over")


@suite.test
def hang_very_many():
    """More requests hang than one export may have threads; quick ones on another export between them."""
    normal = fresh()
    with HangFs() as h, server(h, normal) as s:
        c, other = s.conn("hang"), s.conn("normal")
        c.attach(500, "normal")
        f, q = c.open(0, "h1"), c.walk(500)
        h.hang("READ")
        tags = []
        for i in range(150):
            tags.append(c._read(f, 0, 10))
            if i % 5 == 0:
                for t in [c._getattr(q) for _ in range(70)]:
                    c.wait(t)
                quickly(lambda: other.getattr(0))
        threads = int(s.status("Threads"))
        h.go()
        for t in tags:
            equal(c.outcome(t), 0)
        check(threads < 64 + 8, f"{threads} threads")


@suite.test
def hang_sigterm_ends_all_the_same():
    within(1.5, end_while_it_hangs)


def end_while_it_hangs():
    h = HangFs()
    with h, server(h, fresh()) as s:
        c = s.conn("hang")
        fids = [c.walk(0, f"h{i}") for i in range(12)]  # none is open: closing would hang too, in the kernel
        os.kill(h.process.pid, signal.SIGSTOP)  # requests stay in the kernel, where a dying process may leave them
        try:
            for f in fids:
                c._getattr(f)
            c._walk(0, c.fid(), "h20")
            time.sleep(0.1)
            took = s.stop()
        finally:
            os.kill(h.process.pid, signal.SIGCONT)
        check(not os.path.exists(s.socket), "the socket is still there")
        return took


@suite.test
def hang_sigterm_frees_the_address():
    """Calls that nothing interrupts keep the process, but not its address: a new p9d can take over at once."""
    with HangFs() as h:
        s = server(h, fresh())
        try:
            c = s.conn("hang")
            f = c.open(0, "h1")
            h.hang("READ")
            for _ in range(8):
                c._read(f, 0, 10)
            time.sleep(0.1)
            s.process.send_signal(signal.SIGTERM)
            until(lambda: not os.path.exists(s.socket) and not connects(s.socket), 30, "the socket stays")
            check(c.ended(), "the connection stays")
        finally:
            h.go()
        s.stop()


@suite.test
def hang_zero_statfs():
    with HangFs() as h, server(h, fresh()) as s:
        c = s.conn("hang")
        check(int.from_bytes(c.statfs(0)[4:8], "little") > 0, "bsize is 0")
