# SPDX-License-Identifier: BSD-2-Clause
"""What a client has goes over: fids and what they stand for, locks and who waits for them, half messages, replies that
nobody has read yet, users, exports, sockets."""
import contextlib
import errno
import os
import re
import socket
import struct
import time

import common
import ninep
from common import HangFs, check, denied, equal, fresh, put, suite, until
from handover import ENV, Line, wait_a_moment
from ninep import BLOCK, NOTAG, O_RDWR, RDLCK, SUCCESS, T, UNLCK, WRLCK, Conn, entries_of
from t_locks import host_lock

DATA = bytes((i * 7 + i // 251) & 0xFF for i in range(300000))


def tree():
    d = fresh("tree", 0o777)
    put(d + "/f", DATA, 0o666)
    os.makedirs(d + "/a/b/c")
    put(d + "/a/b/c/leaf", b"leaf")
    os.mkdir(d + "/dir")
    for i in range(500):
        put(f"{d}/dir/entry-with-a-name-of-some-length-{i:03}")
    os.symlink("f", d + "/link")
    return d


@suite.test
def state_fids_go_over_and_qids_stay():
    """Open and not, files without a name, directories that were moved, links; three times in a row."""
    d = tree()
    with Line("-e", f"x={d}") as s:
        c = s.conn("x")
        f = c.open(0, "f", flags=O_RDWR)
        leaf, link = c.walk(0, "a", "b", "c", "leaf"), c.walk(0, "link")
        moved = c.walk(0, "a", "b")
        born = c.create(0, "born")
        c.write(born, 0, b"born")
        gone = c.create(0, "gone")
        c.write(gone, 0, b"nobody finds me")
        c.unlinkat(0, "gone", 0)
        alias = c.walk(born)
        qids = {x: c.getattr(x).path for x in (0, f, leaf, link, moved, born, gone, alias)}
        for turn in range(3):
            if turn == 1:
                os.rename(d + "/a/b", d + "/b2")
            s.over()
            for x, path in qids.items():
                equal(c.getattr(x).path, path, f"qid of fid {x}")
            equal(c.read(f, 1000, 5000), DATA[1000:6000])
            equal(c.read(gone, 0, 100), b"nobody finds me")
            equal(c.write(gone, 0, b"nobody finds me"), 15)
            equal(c.getattr(gone).nlink, 0)
            equal(struct.unpack_from("<H", c.readlink(link))[0], 1)
            equal(c.getattr(c.walk(moved, "c", "leaf")).path, qids[leaf])
            equal(c.getattr(c.walk(0, "f")).path, qids[f], "found again")
            equal(c.write(f, 0, DATA[:100]), 100)
        # what names a fid: its entry was remembered
        c.rename(born, 0, "renamed")
        check(os.path.exists(d + "/renamed"))
        s.over()
        c.remove(born)
        check(not os.path.exists(d + "/renamed"))
        denied(errno.EBADF, lambda: c.getattr(born))
        denied(errno.ESTALE, lambda: c.remove(c.walk(alias)))
        equal(s.stats()[0], 1)
        c.close()
        until(lambda: s.stats()[:2] == (0, 0), 5)


@suite.test
def state_old_fids_and_new_ones_are_in_one_tree():
    """A link, a rename and a way up between fids of before and after: one mount, or it would be EXDEV."""
    d = tree()
    with Line("-e", f"x={d}") as s:
        c = s.conn("x")
        f, sub = c.walk(0, "f"), c.walk(0, "a", "b")
        s.over()
        n = s.conn("x")
        c.attach(500, "x")
        new_dir = c.walk(500, "dir")
        c.link(new_dir, f, "hard")
        equal(os.stat(d + "/dir/hard").st_nlink, 2)
        c.renameat(new_dir, "hard", sub, "back")
        check(os.path.exists(d + "/a/b/back"))
        equal(c.getattr(c.walk(sub, "..", "..")).path, n.getattr(0).path)
        equal(c.getattr(c.walk(sub, "..", "..", "..", "..")).path, n.getattr(0).path, "the way up ends at the root")


@suite.test
def state_listings_go_on_where_they_were():
    d = tree()
    want = sorted(os.fsencode(n) for n in os.listdir(d + "/dir")) + [b".", b".."]
    with Line("-e", f"x={d}") as s:
        c = s.conn("x")
        for count in (300, 2000, 9000):
            dirs, seen, at = c.open(0, "dir"), [], 0
            while got := list(entries_of(c.readdir(dirs, at, count))):
                seen += [name for name, _, _, _ in got]
                at = got[-1][1]
                if len(seen) % 3 == 0 or len(got) > 10:
                    s.over() if s.generation < 12 else None  # pylint: disable=expression-not-assigned
            equal(sorted(seen), sorted(want), f"names, {count} bytes at a time")
        check(s.generation > 3, s.generation)


@suite.test
def state_the_list_of_exports_goes_over():
    """Its fids and qids stay, also when there is one more export than before. An export without a name has its path."""
    a, b = tree(), tree()
    with Line("-e", f"one={a}", "-e", b) as s:
        c = s.conn("")
        deep = c.walk(0, *b.split("/")[1:-1])
        listing = c.open(0)

        def names():
            return {name: path for name, _, _, path in entries_of(c.readdir(listing, 0, 4000))}
        before, qids = names(), [c.getattr(x).path for x in (0, deep)]
        s.over("-e", f"zero={a}", "-e", f"one={a}", "-e", b)
        equal([c.getattr(x).path for x in (0, deep)], qids)
        after = names()
        check(b"zero" in after and {n: after[n] for n in before} == before, before, after)
        equal(c.getattr(c.walk(deep, b.split("/")[-1], "f")).size, len(DATA))


@suite.test
def state_extended_attributes_half_written():
    d = tree()
    with Line("-e", f"x={d}") as s:
        c = s.conn("x")
        w = c.walk(0, "f")
        c.xattrcreate(w, "user.half", 10, 0)
        equal(c.write(w, 0, b"01234"), 5)
        os.setxattr(d + "/a", "user.read", b"value to read")
        r = c.fid()
        c.xattrwalk(c.walk(0, "a"), r, "user.read")
        equal(c.read(r, 0, 5), b"value")
        s.over()
        os.setxattr(d + "/a", "user.read", b"another")
        equal(c.read(r, 5, 100), b" to read")
        denied(errno.EINVAL, lambda: c.write(w, 0, b"x"))
        equal(c.write(w, 5, b"56789"), 5)
        s.over()
        c.clunk(w)
        equal(os.getxattr(d + "/f", "user.half"), b"0123456789")


# ---- locks ----
@suite.test
def state_locks_hold_without_a_gap():
    """A process of the host tries all the time; waiters of before get the lock after."""
    d = tree()
    with Line("-e", f"x={d}") as s, open(d + "/f", "r+b") as host:
        a, b = s.conn("x"), s.conn("x")
        fa, fb, fc = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR), a.open(0, "f", flags=O_RDWR)
        equal(a.lock(fa, WRLCK, 0, 10, 1), SUCCESS)
        equal(a.lock(fa, RDLCK, 20, 10, 1), SUCCESS)
        equal(a.lock(fc, WRLCK, 40, 10, 2, "other"), SUCCESS)
        first = b._lock(fb, WRLCK, BLOCK, 0, 5, 7, "w1")
        second = b._lock(fb, WRLCK, BLOCK, 0, 5, 8, "w2")
        check(not b.answered(first))
        stop = socket.socketpair()
        pid = os.fork()
        if pid == 0:  # tries to get what is held, all the while
            stop[0].setblocking(False)
            tries = 0
            while True:
                if any(host_lock(host.fileno(), WRLCK, at, 1) for at in (5, 25, 45)):
                    os._exit(1)
                tries += 1
                try:
                    if stop[0].recv(1):
                        os._exit(0 if tries > 100 else 2)
                except BlockingIOError:
                    pass
        for _ in range(4):
            s.over()
        stop[1].send(b"x")
        equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "1: a lock was free for a moment")
        equal(b.getlock(fb, WRLCK, 25, 1)[:3], (RDLCK, 20, 10))
        equal(b.getlock(fb, WRLCK, 45, 1)[4], "other", "its owner is named")
        check(not b.answered(first) and not b.answered(second))
        equal(a.lock(fa, UNLCK, 0, 10, 1), SUCCESS)
        # one of the two gets it, as they are tried on two threads; then the other
        until(lambda: b.answered(first) or b.answered(second), 20, "nobody gets the lock")
        wait_a_moment(0.2)
        check(not (b.answered(first) and b.answered(second)), "both have it")
        winner, proc, client, loser = (first, 7, "w1", second) if b.answered(first) else (second, 8, "w2", first)
        equal(b.wait(winner)[0], SUCCESS)
        equal(b.lock(fb, UNLCK, 0, 5, proc, client), SUCCESS)
        equal(b.wait(loser)[0], SUCCESS)
        a.clunk(fc)  # releases what came through it, also when that was before
        check(host_lock(host.fileno(), WRLCK, 45, 1), "a clunk after the hand-over does not release")
        b.close()
        a.close()
        until(lambda: s.stats()[0] == 0, 5)
        check(host_lock(host.fileno(), WRLCK, 0, 0), "locks outlive their connection")


@suite.test
def state_long_names_of_owners_count_once():
    """What an owner with a long name counts for its session is given back where it was counted."""
    d = tree()
    with Line("-e", f"x={d}") as s:
        a = s.conn("x")
        f = a.open(0, "f", flags=O_RDWR)
        equal(a.lock(f, WRLCK, 0, 10, 1, "n" * 3000), SUCCESS)
        s.over()
        equal(a.lock(f, UNLCK, 0, 10, 1, "n" * 3000), SUCCESS)
        equal(a.lock(f, WRLCK, 20, 10, 2, "m" * 3000), SUCCESS)
        a.close()


@suite.test
def state_waiters_can_be_flushed_and_run_out_of_patience():
    d = tree()
    with Line("-e", f"x={d}", "--lock-wait", "4") as s:
        a, b = s.conn("x"), s.conn("x")
        fa, fb = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR)
        equal(a.lock(fa, WRLCK, 0, 10, 1), SUCCESS)
        flushed, waits = b._lock(fb, WRLCK, BLOCK, 0, 5, 7, "w"), b._lock(fb, WRLCK, BLOCK, 0, 5, 8, "w")
        check(not b.answered(flushed))
        s.over()
        b.flush(flushed)
        check(not b.got.get(flushed), "a request that was flushed is answered")
        s.over()
        # patience goes on from before: handing over again and again does not make it longer
        equal(b.wait(waits, 20)[0], ninep.BLOCKED)
        b.getattr(fb)


@suite.test
def state_waiters_that_have_not_begun_again_keep_their_patience():
    """One that waits, with more replies to its connection than anybody reads: it is not begun anew before they are read.
    Handed over twice meanwhile, it gives up before one that has come later."""
    d = tree()
    with Line("-e", f"x={d}", "--lock-wait", "4") as s:
        a, b = s.conn("x"), s.conn("x", msize=65536)
        fa, fb = a.open(0, "f", flags=O_RDWR), b.open(0, "f", flags=O_RDWR)
        equal(a.lock(fa, WRLCK, 0, 10, 1), SUCCESS)
        waits = b._lock(fb, WRLCK, BLOCK, 0, 5, 7, "w")
        check(not b.answered(waits))
        reads = [b._read(fb, 0, 60000) for _ in range(250)]
        wait_a_moment(0.3)
        s.over()
        wait_a_moment(0.3)
        s.over()
        wait_a_moment(2)
        later = s.conn("x")
        fl = later.open(0, "f", flags=O_RDWR)
        second = later._lock(fl, WRLCK, BLOCK, 0, 5, 8, "later")
        check(not later.answered(second))
        for t in reads:
            b.wait(t)
        equal(later.wait(second, 30)[0], ninep.BLOCKED)
        check(b.answered(waits), "it has got new patience")
        equal(b.wait(waits)[0], ninep.BLOCKED)


# ---- bytes on their way ----
@suite.test
def state_a_message_in_two_halves():
    for cut in (1, 4, 6, 7, 20, 23, 5000):
        d = tree()
        with Line("-e", f"x={d}") as s:
            c = s.conn("x", msize=200000)
            f = c.open(0, "f", flags=O_RDWR)
            message = ninep.frame(T["write"], 77, c.body("write", f, 10, b"w" * 100000))
            c.push(message[:cut])
            wait_a_moment(0.05)
            s.over()
            c.push(message[cut:])
            equal(struct.unpack("<I", c.wait(77))[0], 100000, f"cut at {cut}")
            with open(d + "/f", "rb") as g:
                equal(g.read(100020)[10:100010], b"w" * 100000)


@suite.test
def state_replies_that_nobody_has_read():
    """Far more than the socket holds: by sendfile(2), copied, and requests that were not taken for it."""
    d = tree()
    put(d + "/big", DATA * 20, 0o666)
    os.truncate(d + "/big", len(DATA) * 20 + 100000)
    for listen in ("unix", "tcp"):
        port = common.free_port()
        how = {"listen": ["-l", f"tcp:127.0.0.1:{port}"]} if listen == "tcp" else {}
        with Line("-e", f"x={d}", **how) as s:
            c = Conn(("127.0.0.1", port) if listen == "tcp" else s.socket, 300000)
            c.attach(0, "x", 1000)
            f, small = c.open(0, "big"), c.open(0, "f")
            tags = []
            for i in range(150):
                tags.append((c._read(f, i * 40000, 150000), i * 40000, 150000))
                tags.append((c._read(small, i * 100, 500), None, i * 100))
            for _ in range(3):
                wait_a_moment(0.05)
                s.over()
            with open(d + "/big", "rb") as big:
                whole = big.read()
            for tag, at, n in tags:
                want = DATA[n:n + 500] if at is None else whole[at:at + n]
                equal(c.wait(tag)[4:], want, f"{listen}: read at {at} {n}")


@suite.test
def state_what_runs_comes_to_its_end():
    """Requests in a call that takes its time, others behind their fids, a Tflush of one: all are answered, once and in
    order, and whoever comes afterwards finds the fids as they left them. What came meanwhile is done by the next."""
    with HangFs() as h, Line("-e", f"x={tree()}", "-e", f"hang={h.where}") as s:
        c = s.conn("hang")
        c.attach(500, "x")
        f, g = c.open(0, "h1"), c.open(0, "h2")
        h.hang("READ")
        began = time.monotonic()
        reads = [c._read(f, 4096 * i, 4096) for i in range(4)]
        clunk, behind = c._clunk(f), c._getattr(f)
        flushed = c._read(g, 0, 4096)
        wait_a_moment(0.2)
        flush = c._flush(flushed)
        new = s.next()
        until(lambda: "asks to take over" in s.output(), 20)
        wait_a_moment(0.2)
        late = [c._getattr(500), c._getattr(g)]
        early = not c.answered(late[0])
        check(early or time.monotonic() - began > 2, "a message is taken after all")  # p9d takes what is longer for a hang
        check(s.process.poll() is None and "took" not in new.output())
        h.go()
        until(lambda: "sharing" in new.output(), 30)
        equal(s.process.wait(10), 0)
        s.become(new)
        for t in (*reads, clunk):
            equal(c.outcome(t), 0)
        equal(c.outcome(behind), errno.EBADF)
        c.wait(flush)
        for t in late:
            c.wait(t)
        equal(len([t for t in c.order if t in reads]), 4, "answers to four reads")
        at = [c.order.index(t) for t in (clunk, behind)]
        equal(at, sorted(at), "order on a fid")
        check(flushed not in c.order or c.order.index(flushed) < c.order.index(flush))
        denied(errno.EBADF, lambda: c.read(f, 0, 1))
        c.read(g, 0, 10)


@suite.test
def state_before_and_after_a_session():
    """Connections that have not said Tversion, or not attached; one that begins anew afterwards."""
    d = tree()
    with Line("-e", f"x={d}") as s:
        silent = Conn(s.socket, version=False)
        halfway = Conn(s.socket)
        half = Conn(s.socket, version=False)
        raw = ninep.frame(T["version"], NOTAG, Conn.body("version", 65536, "9P2000.L"))
        half.push(raw[:9])
        c = s.conn("x")
        f = c.open(0, "f")
        wait_a_moment(0.05)
        s.over()
        half.push(raw[9:])
        half.reply(NOTAG)
        half.attach(0, "x")
        silent.version(65536)
        silent.attach(0, "x")
        halfway.attach(0, "x")
        equal(silent.getattr(0).path, halfway.getattr(0).path)
        c.version(65536)
        denied(errno.EBADF, lambda: c.getattr(f))
        c.attach(0, "x")
        equal(c.read(c.open(0, "f"), 0, 10), DATA[:10])


# ---- users, exports, sockets ----
@suite.test
def state_users_stay_who_they_are():
    d = tree()
    put(d + "/mine", b"", 0o600, (1234, 1234))
    for identity in ("users", "single"):
        with Line("-e", f"x={d}", "--identity", identity) as s:
            c = s.conn("x", uid=1234)
            other = s.conn("x", uid=4321)
            s.over()
            made = c.create(0, f"made-{identity}")
            c.clunk(made)
            equal(os.stat(f"{d}/made-{identity}").st_uid, 1234 if identity == "users" else 0)
            c.open(0, "mine")
            s.over()
            n = c.walk(0)
            equal(c.getattr(c.walk(n, "mine")).uid, 1234)
            os.chmod(d + "/mine", 0o600)
            equal(other.getattr(other.walk(0, "mine")).uid, 1234)


@suite.test
def state_of_an_ordinary_user():
    """Without root there is no mount of its own, and the way up is checked by p9d itself, before and after."""
    d, where = tree(), fresh("where", 0o777)
    with Line("-e", f"x={d}/a", "--control", where, before=("setpriv", "--reuid=1234", "--clear-groups", "--"),
              listen=["-l", f"unix:{where}/s"]) as s:
        s.socket = f"{where}/s"
        c = s.conn("x")
        leaf = c.walk(0, "b", "c", "leaf")
        top = c.getattr(0).path
        for _ in range(2):
            s.over("-e", f"x={d}/a", control=where)
            equal(c.getattr(leaf).size, 4)
            equal(c.getattr(c.walk(0, "b", "..", "..", "..")).path, top)
        os.rename(d + "/a/b/c", d + "/outside")
        denied((errno.ENOENT, errno.ESTALE), lambda: c.getattr(c.walk(c.walk(0, "b"), "c")))


@suite.test
def state_permissions_are_checked_as_before():
    """TCP: p9d checks. Who may not read before may not read after, and root is nobody."""
    d, port = tree(), common.free_port()
    put(d + "/mine", b"secret", 0o600, (1234, 1234))
    with Line("-e", f"x={d}", listen=["-l", f"tcp:127.0.0.1:{port}"]) as s:
        who = {}
        for uid in (0, 1234, 4321):
            who[uid] = Conn(("127.0.0.1", port))
            who[uid].attach(0, "x", uid)
        for _ in range(2):
            s.over()
            for uid, c in who.items():
                if uid == 1234:
                    equal(c.read(c.open(0, "mine"), 0, 10), b"secret")
                else:
                    denied(errno.EACCES, lambda c=c: c.open(0, "mine"))


@suite.test
def state_limits_of_the_new_one_may_be_smaller():
    """What a session was granted it keeps: long messages, more connections than there may be now, fewer loops, a trace."""
    d = tree()
    with Line("-e", f"x={d}", "--loops", "3") as s:
        c, more = s.conn("x", msize=1 << 20), [s.conn("x") for _ in range(5)]
        silent = Conn(s.socket, version=False)
        f = c.open(0, "f", flags=O_RDWR)
        for loops in (1, 4):
            args = ["-e", f"x={d}", "--msize", "8192", "--connections", "2", "--loops", str(loops), "--workers", "1"]
            s.over(*args, *(["--trace"] if loops == 1 else []))
            equal(c.write(f, 0, DATA[::-1]), len(DATA))
            equal(c.read(f, 0, len(DATA)), DATA[::-1])
            tags = [c._read(f, i, 250000) for i in range(30)]
            for i, t in enumerate(tags):
                equal(c.wait(t)[4:], DATA[::-1][i:i + 250000])
            for m in more:
                m.getattr(0)
            with Conn(s.socket, version=False) as turned_away:
                check(turned_away.ended(), "a connection too many")
        equal(silent.version(1 << 20)[0], 8192)
        silent.attach(0, "x")
        equal(c.version(1 << 20)[0], 8192)
        c.attach(0, "x")
        equal(c.read(c.open(0, "f"), 0, 5000), DATA[::-1][:5000])


@suite.test
def state_too_few_descriptors_in_the_new_one():
    """It says so, whether they cannot even be received or there is no room to use them, and the old one goes on."""
    d = tree()
    with Line("-e", f"x={d}") as s:
        c = s.conn("x")
        fids = [c.open(0, "f") for _ in range(400)]
        for limit, words in ((300, "descriptors"), (560, "")):
            new = s.next(before=("prlimit", f"--nofile={limit}:{limit}"))
            new.refuses("--takeover", words, code=1)
            s.alive()
            for f in fids:
                c.getattr(f)
        s.over()
        for f in fids:
            c.getattr(f)


@suite.test
def state_sockets_are_inherited_opened_and_closed():
    d, ports = tree(), [common.free_port(), common.free_port()]
    top = fresh()
    kept, gone, new = (f"{top}/{n}" for n in ("kept", "gone", "new"))
    listen = ["-l", f"unix:{kept}", "-l", f"unix:{gone}", "-l", f"tcp:127.0.0.1:{ports[0]}"]
    with Line("-e", f"x={d}", listen=listen) as s:
        inode = os.stat(kept).st_ino
        c = Conn(gone)
        c.attach(0, "x")
        s.over(listen=["-l", f"unix:{kept}", "-l", f"unix:{new}", "-l", f"tcp:127.0.0.1:{ports[0]}", "-l",
                       f"tcp:127.0.0.1:{ports[1]}"])
        equal(os.stat(kept).st_ino, inode, "the socket file was replaced")
        check(not os.path.exists(gone), "the file of an address that is gone")
        equal(c.getattr(0).path, Conn_attached(new).getattr(0).path)
        for at in (kept, new, ("127.0.0.1", ports[0]), ("127.0.0.1", ports[1])):
            Conn_attached(at).close()
    check(not os.path.exists(kept) and not os.path.exists(new), "socket files are left behind")


def Conn_attached(at):
    c = Conn(at)
    c.attach(0, "x", 0)
    return c


@suite.test
def state_who_connects_meanwhile_is_served():
    """A connection that nobody has accepted yet lies in the listening socket."""
    d = tree()
    with Line("-e", f"x={d}") as s:
        os.kill(s.pid, 19)
        early = socket.socket(socket.AF_UNIX)
        early.connect(s.socket)
        new = s.next()
        wait_a_moment(0.2)
        os.kill(s.pid, 18)
        until(lambda: "sharing" in new.output(), 20)
        equal(s.process.wait(10), 0)
        s.become(new)
        c = Conn(early)
        c.attach(0, "x")
        c.getattr(0)


@suite.test
def state_a_connection_on_descriptors_goes_over():
    """fd:N is a connection, not an address: it goes over, and the next p9d ends with it."""
    d = tree()
    ours, theirs = socket.socketpair()
    s = Line("-e", f"x={d}", listen=["-l", f"fd:{theirs.fileno()}"], pass_fds=[theirs.fileno()])
    c = Conn(ours)
    c.attach(0, "x")
    s.options = {}
    theirs.close()
    s.over()
    equal(c.getattr(0).mode & 0o777, 0o777)
    c.close()
    equal(s.process.wait(10), 0, "it does not end with its connection")


@suite.test
def state_sockets_of_a_service_manager_go_over():
    d = tree()
    path = fresh() + "/s"
    lst = socket.socket(socket.AF_UNIX)
    lst.bind(path)
    lst.listen(5)
    code = ("import os,sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])")
    s = Line("-e", f"x={d}", listen=[], before=("python3", "-c", code, lst.fileno()), pass_fds=[lst.fileno()])
    with s:
        c = Conn_attached(path)
        fds = s.fds()
        for turn in range(4):
            if turn == 2:  # until then the manager passes it to each, who has it already
                lst.close()
                s.options = {}
            s.over()
            until(lambda: s.fds() == fds, 10, "another number of descriptors")
            equal(c.getattr(0).path, Conn_attached(path).getattr(0).path)
    check(os.path.exists(path), "the file of a socket that was passed is not ours to remove")


@suite.test
def state_the_service_manager_is_told_who_serves():
    d, path = tree(), fresh() + "/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        ENV["NOTIFY_SOCKET"] = path
        try:
            with Line("-e", f"x={d}") as s:
                equal(manager.recv(1000), f"READY=1\nMAINPID={s.pid}\n".encode())
                s.over()
                equal(manager.recv(1000), f"READY=1\nMAINPID={s.pid}\n".encode())
                # one that does not read is not waited for: nobody would serve meanwhile
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                    other.connect(path)
                    other.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            other.send(b"full")
                s.over()
                s.conn("x").getattr(0)
        finally:
            del ENV["NOTIFY_SOCKET"]


@suite.test
def state_in_the_background():
    """The command ends when the new one serves, or cannot."""
    with Line("-e", f"x={tree()}") as s:
        c = s.conn("x")
        first = s.next("-e", "x=/no/such", "--background")
        equal(first.process.wait(20), 1)
        c.getattr(0)
        command = s.next("--background", *s.args)
        equal(command.process.wait(20), 0)
        equal(s.process.wait(10), 0)
        pid = int(re.search(r"p9d (\d+); ending", s.output()).group(1))
        try:
            c.getattr(0)
            check(pid != command.pid and os.getsid(pid) == pid)
        finally:
            os.kill(pid, 15)
        check(c.ended(10))


@suite.test
def state_many_fids():
    """More descriptors than a packet holds: thousands of open files, all the right ones afterwards."""
    d = tree()
    n = 1500
    for i in range(n):
        put(f"{d}/dir/n{i}", b"%d" % i)
    with Line("-e", f"x={d}") as s:
        c = s.conn("x")
        fids = [c.open(0, "dir", f"n{i}") for i in range(n)]
        for _ in range(2):
            s.over()
            for i in range(0, n, 7):
                equal(c.read(fids[i], 0, 20), b"%d" % i)
        for i in range(n):
            equal(c.read(fids[i], 0, 20), b"%d" % i)


@suite.test
def state_nothing_grows_over_twenty_times():
    d = tree()
    with Line("-e", f"x={d}") as s, open(d + "/f", "rb"):
        c, idle = s.conn("x"), s.conn("x")
        f = c.open(0, "f", flags=O_RDWR)
        c.lock(f, WRLCK, 0, 10)
        dirs = c.open(0, "dir")
        c.readdir(dirs, 0, 1000)

        def figures():
            until(lambda: re.search("sharing", s.output()), 5)
            c.read(f, 0, 1000)
            idle.getattr(0)
            return s.fds(), s.rss()
        s.over()
        fds, rss = figures()
        for _ in range(20):
            s.over()
        after = figures()
        equal(after[0], fds, "descriptors")
        check(after[1] < rss * 1.2 + (1 << 20), f"memory grew from {rss} to {after[1]}")


@suite.test
def state_a_thousand_connections():
    d = tree()
    with Line("-e", f"x={d}") as s:
        conns = [s.conn("x") for _ in range(300)]
        fids = [c.open(0, "f") for c in conns]
        s.over()
        equal(s.stats()[:2], (300, 600))
        for c, f in zip(conns, fids):
            equal(c.read(f, 5, 5), DATA[5:10])
