# SPDX-License-Identifier: BSD-2-Clause
"""Hand-overs that fail: whoever dies, lies, hangs or says nonsense, and whenever, the one that serves goes on as if nothing
had happened; and the one that comes says why it does not."""
import array
import mmap
import os
import random
import signal
import socket
import struct
import threading
import time

import common
from common import HangFs, P9d, check, equal, fresh, suite, until
from handover import ENV, RUNTIME, Line, wait_a_moment
from k_state import DATA, tree
from ninep import BLOCK, O_RDWR, SUCCESS, UNLCK, WRLCK

HELLO, STATE, FDS, ACK, READY, GO, TAKEN, REFUSE = range(1, 9)
PACKET = struct.Struct("<8sII200sQ")
VERSION = 1


def packet(said, number=0, version=VERSION, words=b""):
    return PACKET.pack(b"p9dgives", version, said, words, number)


def dial(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect(path)
    return s


def hear(s):
    """(said, number, words, [descriptors]); (0, ...) at the end."""
    try:
        data, control, _, _ = s.recvmsg(4096, 4096, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        data, control = b"", []
    fds = array.array("i")
    for _, _, raw in control:
        fds.frombytes(raw[:len(raw) // 4 * 4])
    if not data:
        return 0, 0, "", list(fds)
    magic, version, said, words, number = PACKET.unpack(data)
    check(magic == b"p9dgives" and version == VERSION, data[:16])
    return said, number, words.rstrip(b"\0").decode(), list(fds)


def take_until(s, last):
    """Behaves as one that takes over, up to a packet that it hears or says. Returns descriptors that came."""
    s.send(packet(HELLO))
    said, n, words, fds = hear(s)
    check(said == STATE, said, words)
    got, state = [], fds
    while last != STATE and len(got) < n:
        said, _, words, more = hear(s)
        check(said == FDS, said, words)
        got += more
        if last == FDS:
            break
        s.send(packet(ACK, len(got)))
    if last in (READY, GO, TAKEN):
        s.send(packet(READY))
    if last in (GO, TAKEN):
        equal(hear(s)[0], GO)
    return state + got


class Busy:
    """A client that never stops, looks at every answer, holds a lock, and has another that waits for it."""

    def __init__(self, s):
        self.s, self.done, self.count, self.error = s, threading.Event(), 0, None
        self.c, self.w = s.conn("x"), s.conn("x")
        self.fid, self.wait = self.c.open(0, "f", flags=O_RDWR), self.w.open(0, "f", flags=O_RDWR)
        equal(self.c.lock(self.fid, WRLCK, 0, 10), SUCCESS)
        self.waits = self.w._lock(self.wait, WRLCK, BLOCK, 0, 10, 2, "w")
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.done.is_set():
                tags = [self.c._read(self.fid, 100 * i, 3000) for i in range(20)]
                for i, t in enumerate(tags):
                    equal(self.c.wait(t)[4:], DATA[100 * i:100 * i + 3000])
                self.count += 1
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e

    def goes_on(self):
        n = self.count
        until(lambda: self.error or self.count > n + 3, 30, "the client waits for ever")
        if self.error:
            raise self.error

    def end(self):
        self.goes_on()
        self.done.set()
        self.thread.join()
        check(not self.w.answered(self.waits))
        equal(self.c.lock(self.fid, UNLCK, 0, 10), SUCCESS)
        equal(self.w.wait(self.waits)[0], SUCCESS)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.done.set()
        self.thread.join()


def usual_time(s):
    """How long a hand-over takes here, from the start of the program."""
    began = time.monotonic()
    s.over()
    return time.monotonic() - began


@suite.test
def fail_garbage_on_the_private_socket():
    """Silence, nonsense, other versions, packets out of turn, descriptors: the clients notice nothing at all."""
    with Line("-e", f"x={tree()}") as s, Busy(s) as load:
        fds = s.fds()
        silent = dial(s.private())
        for data in (b"", b"x", b"p9dgives", bytes(PACKET.size), packet(HELLO)[:-1], packet(HELLO) + b"x", packet(GO),
                     packet(TAKEN), packet(99), os.urandom(PACKET.size), packet(HELLO, version=7), packet(REFUSE)):
            with dial(s.private()) as g:
                if data:
                    socket.send_fds(g, [data], [0, 1, 2])
                load.goes_on()
                if data:
                    said, _, words, _ = hear(g)
                    check(said == REFUSE, said, words)
                    if data == packet(HELLO, version=7):
                        check("different versions" in words, words)
        silent.close()
        check("and all goes on" not in s.output(), "it stood still for nothing")
        load.end()
        until(lambda: s.fds() == fds, 5, f"descriptors are left behind: {fds} and {s.fds()}")
        s.over()


@suite.test
def fail_taker_leaves_at_every_point():
    """By the end of its socket, by refusing, by nonsense; the descriptors that it got change nothing."""
    with Line("-e", f"x={tree()}") as s, Busy(s) as load:
        fds = s.fds()
        for last in (STATE, FDS, ACK, READY, GO):
            for how in ("close", "refuse", "nonsense", "garbage"):
                with dial(s.private()) as t:
                    got = take_until(t, last)
                    if how == "refuse":
                        t.send(packet(REFUSE, words=b"rather not at " + str(last).encode()))
                        until(lambda last=last: f"rather not at {last}" in s.output(), 15)
                    elif how != "close":
                        t.send(packet(HELLO) if how == "nonsense" else os.urandom(50))
                    for fd in got:
                        os.close(fd)
                    t.shutdown(socket.SHUT_RDWR)
                load.goes_on()
        until(lambda: s.fds() == fds, 5, f"descriptors are left behind: {fds} and {s.fds()}")
        s.over()
        load.end()


@suite.test
def fail_taker_hangs():
    """It is given ten seconds for an answer; after GO it has all the time there is, for it may serve already."""
    with Line("-e", f"x={tree()}") as s, Busy(s) as load:
        with dial(s.private()) as t:
            fds = take_until(t, FDS)
            n = load.count
            load.goes_on()
            check(load.count > n)
            said, _, words, _ = hear(t)
            equal(said, REFUSE)
            check("does not answer" in words, words)
            for fd in fds:
                os.close(fd)
        with dial(s.private()) as t:
            fds = take_until(t, GO)
            wait_a_moment(0.3)
            n = load.count
            wait_a_moment(11 if common.SLOW else 1)
            check(load.count <= n + 1, "two may be serving")
            for fd in fds:
                os.close(fd)
        load.goes_on()
        s.over()
        load.end()


@suite.test
def fail_taker_is_killed_at_any_moment():
    """A real one, SIGKILL after any time; whether it was early or late, somebody serves."""
    rnd = random.Random(4)
    with Line("-e", f"x={tree()}") as s, Busy(s) as load:
        early, i, usual = 0, 0, usual_time(s)
        while early < 12 and i < 400:
            i += 1
            new = s.next()
            time.sleep(rnd.random() * usual * 0.7)
            if "took" in new.output() or s.process.poll() is not None:
                until(lambda: "sharing" in new.output(), 20)  # too late: it is the one now
                equal(s.process.wait(10), 0)
                s.become(new)
            else:
                new.process.kill()
                new.process.wait()
                wait_a_moment(0.01)
                if s.process.poll() is not None:
                    check("took" not in new.output(), i)
                    return  # it was killed between its last word and its first: clients are lost as with any SIGKILL
                early += 1
            load.goes_on()
        check(early == 12, f"only {early} of {i} were killed in time")
        load.end()


@suite.test
def fail_giver_is_killed_at_any_moment():
    """Then the one that comes gives up with an error, or serves; never half."""
    rnd = random.Random(5)
    served = refused = 0
    with Line("-e", f"x={tree()}") as s:
        usual = usual_time(s)
    for _ in range(16):
        s = Line("-e", f"x={tree()}")
        c = s.conn("x")
        fids = [c.open(0, "f") for _ in range(600)]
        new = s.next()
        time.sleep(rnd.random() * 1.5 * usual)
        s.process.kill()
        s.process.wait()
        until(lambda: new.process.poll() is not None or "sharing" in new.output(), 20, "neither serves nor ends")
        if new.process.poll() is None:
            served += 1
            equal(c.read(fids[599], 5, 50), DATA[5:55])
            s.become(new)
            s.stop()
        else:
            refused += 1
            check("--takeover" in new.output(), new.output())
            equal(new.process.returncode, 1)
        c.close()
    check(served + refused == 16 and refused > 0, served, refused)


@suite.test
def fail_giver_says_nonsense():
    """One that pretends to be a p9d: any state, any descriptors. The one that comes ends with an error, in order."""
    rnd = random.Random(6)
    path = fresh() + "/ctl"
    with Line("-e", f"x={tree()}") as s:
        c = s.conn("x")
        c.open(0, "f")
        with dial(s.private()) as t:  # a true state, to be spoilt
            fds = take_until(t, ACK)
            with mmap.mmap(fds[0], os.fstat(fds[0]).st_size, mmap.MAP_PRIVATE, mmap.PROT_READ) as m:
                true = m[:]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(1)
    for turn in range(25):
        state = bytearray(true)
        if turn > 3:
            for _ in range(rnd.choice((1, 1, 3))):
                state[rnd.randrange(len(state))] = rnd.randrange(256)
        state = state[:rnd.randrange(len(state))] if turn % 5 == 4 else state
        new = P9d("-e", f"x={tree()}", f"--takeover={path}", listen=["-l", f"unix:{path}.{turn}"], env=ENV, ready=False)
        peer, _ = listener.accept()
        peer.settimeout(20)
        equal(hear(peer)[0], HELLO)
        memfd = os.memfd_create("state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(memfd, state)
        if turn != 2:
            import fcntl  # pylint: disable=import-outside-toplevel
            fcntl.fcntl(memfd, 1033, 15)  # F_ADD_SEALS: all of them
        answer = None
        try:
            socket.send_fds(peer, [packet(STATE, len(fds) - 1 + (turn == 3) * 10)], [memfd])
            if turn != 1:
                socket.send_fds(peer, [packet(FDS, len(fds) - 1)], fds[1:])
                answer = hear(peer)[0]
            if answer == ACK and turn != 3:
                hear(peer)
        except (BrokenPipeError, ConnectionResetError):
            pass
        peer.close()
        os.close(memfd)
        new.refuses("--takeover" if turn else "p9d", code=1)
        check(not os.path.exists(f"{path}.{turn}"), "a socket file is left behind")
    for fd in fds:
        os.close(fd)


@suite.test
def fail_a_request_that_hangs():
    """The hand-over is given up, the message names the request, and all go on; once the request has ended it works."""
    with HangFs() as h, Line("-e", f"x={tree()}", "-e", f"hang={h.where}") as s, Busy(s) as load:
        c = s.conn("hang")
        f = c.open(0, "h1")
        h.hang("READ")
        hung = c._read(f, 0, 4096)
        wait_a_moment(0.2)
        new = s.next()
        new.process.wait(30)
        out = new.refuses("--takeover", "Tread", "is still at work", code=1)
        check(f"fid={f}" in out, out)
        load.goes_on()
        check("nothing is handed over" in s.output())
        # it has hung for long by now, so nobody else stands still while it is waited for
        late = s.next()
        until(lambda: s.output().count("asks to take over") == 2, 30)
        n = load.count
        until(lambda: load.count > n + 20, 30)
        check(s.output().count("nothing is handed over") == 1, "all stand still for one that hangs")
        check(not c.answered(hung) and late.process.poll() is None)
        h.go()
        c.wait(hung)
        until(lambda: "sharing" in late.output(), 30)
        equal(s.process.wait(10), 0)
        s.become(late)
        c.read(f, 0, 10)
        load.end()


@suite.test
def fail_exports_and_users_that_differ():
    """Clients are in it, so it must be there and the same; what nobody uses may change."""
    d, e, other = tree(), tree(), tree()
    with Line("-e", f"x={d}", "-e", f"y={e}", "--identity", "users") as s, Busy(s) as load:
        for what, *words in ((["-e", f"y={e}"], "export x", "not shared any more"),
                             (["-e", f"x={d},ro", "-e", f"y={e}"], "export x", "other options"),
                             (["-e", f"x={d},squash=all"], "export x", "other options"),
                             (["-e", f"x={other}"], "export x", "another directory"),
                             (["-e", f"x={d}", "--identity", "single"], "--identity users", "single")):
            s.next(*what).refuses("--takeover", *words, code=1)
            load.goes_on()
        for listen, *words in ((["-l", f"unix:{s.socket}", "-l", "tcp:192.0.2.1:99999"], "192.0.2.1"),
                               (["-l", f"unix:{s.socket}", "-l", f"unix:{fresh()}/no/such"], "ENOENT")):
            s.next(listen=listen).refuses(*words)
            load.goes_on()
        check(os.path.exists(s.socket))
        s.over("-e", f"x={d}", "-e", f"y={other},ro", "-e", f"new={e}")
        load.goes_on()
        check(s.conn("new").getattr(0).path != s.conn("y").getattr(0).path)
        load.end()


@suite.test
def fail_nobody_there_several_there_somebody_elses():
    d = tree()
    P9d("-e", f"x={d}", "--takeover", "--control", fresh(), listen=["-l", f"unix:{fresh()}/s"],
        ready=False).refuses("no p9d", code=1)
    with Line("-e", f"x={d}") as s, Line("-e", f"x={d}") as t:
        out = s.next(option="--takeover").refuses("several", code=1)
        check(str(s.pid) in out and str(t.pid) in out, out)
        s.next(option="--takeover=999999999").refuses("999999999", code=1)
        s.next(option=f"--takeover={s.private()}x").refuses("--takeover", code=1)
        equal(oct(os.stat(s.private()).st_mode & 0o777), "0o600")
        # another user cannot take over, even one that may open the file
        os.chmod(s.private(), 0o666)
        os.chmod(RUNTIME, 0o755)
        user = ("setpriv", "--reuid=1234", "--clear-groups", "--")
        s.next(before=user, listen=["-l", f"unix:{fresh('d', 0o777)}/s"]).refuses("--takeover", code=1)
        until(lambda: "another user" in s.output(), 5)
        s.over(option=f"--takeover={s.private()}")
        t.stop()
        s.over(option="--takeover")
        s.alive()


@suite.test
def fail_private_sockets_are_cleaned_up():
    d = tree()
    s = Line("-e", f"x={d}")
    path = s.private()
    s.kill()
    check(os.path.exists(path))
    with Line("-e", f"x={d}") as t:
        check(not os.path.exists(path), "a stale one is left")
        mine = t.private()
        t.over()
        check(not os.path.exists(mine))
        mine = t.private()
    check(not os.path.exists(mine))
    own = fresh() + "/own"
    with Line("-e", f"x={d}", "--control", own) as s:
        equal(oct(os.stat(own).st_mode & 0o777), "0o600")
        for _ in range(3):
            s.over(option=f"--takeover={own}")
            until(lambda: os.path.exists(own), 5)
    check(not os.path.exists(own))
    with Line("-e", f"x={d}", "--control", "none") as s:
        check(not os.path.exists(s.private()))


@suite.test
def fail_signals_meanwhile():
    """SIGTERM while one takes over that does not go on: the server ends within its second."""
    s = Line("-e", f"x={tree()}")
    with dial(s.private()) as t:
        fds = take_until(t, FDS)
        s.process.send_signal(signal.SIGTERM)
        equal(s.process.wait(10), 0)
        for fd in fds:
            os.close(fd)
