# SPDX-License-Identifier: BSD-2-Clause
"""What goes wrong without anybody lying: a server that dies, hangs or is replaced; programs, and the mount, that are killed in
the middle of everything. Nothing may stay stuck, nothing that was confirmed may be lost, and `p9 umount` always works."""
import errno
import fcntl
import os
import signal
import subprocess
import time

import rig
from rig import Child, Mount, P9d, Pair, USER, check, child, equal, fresh, mounted, outcome, put, state, suite, until

TIMEOUT = 3


def calls(top):
    """One of each; name -> value or errno's name."""
    p = lambda name: os.path.join(top, name)

    def write():
        fd = os.open(p("w"), os.O_WRONLY | os.O_CREAT)
        try:
            os.write(fd, b"x" * 5000)
            os.fsync(fd)
        finally:
            os.close(fd)
    steps = {"stat": lambda: os.stat(p("f")).st_size, "list": lambda: os.listdir(top), "read": lambda: open(p("f"), "rb").read(),
             "write": write, "mkdir": lambda: os.mkdir(p("new")), "statvfs": lambda: os.statvfs(top).f_bsize > 0,
             "getxattr": lambda: os.getxattr(p("f"), "user.none")}
    result, times = {}, {}
    for name, step in steps.items():
        began = time.monotonic()
        result[name] = outcome(step)
        times[name] = time.monotonic() - began
    return result, times


def keep_busy(top, who, seconds):
    """Reads, writes, lists and removes until the first error; its errno's name. "unmounted" for one that was between two calls
    when the mount went, and would go on in the directory beneath. "" when nothing went wrong."""
    end, there = time.monotonic() + seconds, os.stat(top).st_dev
    data, i = os.urandom(300000), 0
    try:
        while time.monotonic() < end:
            name = os.path.join(top, f"busy-{who}-{i % 5}")
            with open(name, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            with open(name, "rb") as f:
                check(f.read() == data, f"{name} does not have what was written")
            os.listdir(top)
            if os.stat(top).st_dev != there:
                return "unmounted"
            if i % 3 == 0:
                os.rename(name, name + "+")
                os.unlink(name + "+")
            i += 1
    except OSError as e:
        return errno.errorcode[e.errno]
    return ""


def busy(top, n, seconds=60):
    return [Child(lambda w=w: keep_busy(top, w, seconds)) for w in range(n)]


@suite.test
def server_dies():
    with Pair(f"timeout={TIMEOUT}", codes=None) as p:
        put(p.beneath + "/f", b"data")
        workers = busy(p.where, 3)
        time.sleep(0.7)
        p.server.codes = (0, -9)
        p.server.process.kill()
        for w in workers:
            got = w.result(TIMEOUT + 10)
            check(got, "a worker saw nothing of the server's death")
        got, times = child(lambda: calls(p.where), 60)
        check(max(times.values()) < TIMEOUT + 3, f"too long: {times}")
        for name in ("write", "mkdir", "getxattr"):
            check(isinstance(got[name], str), f"{name} without a server: {got[name]}")
        p.mount.healthy()
        if mounted(p.where):
            check(p.mount.umount() < 5, "umount takes long")


@suite.test
def server_hangs():
    """Every call fails by the time-out, and umount works, although the server says nothing."""
    with Pair(f"timeout={TIMEOUT}", codes=None) as p:
        put(p.beneath + "/f", b"data" * 1000)
        workers = busy(p.where, 3)
        time.sleep(0.5)
        p.server.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for w in workers:
                check(w.result(TIMEOUT * 3 + 5), "a worker saw nothing of it")
            took = time.monotonic() - began
            check(took < TIMEOUT * 2 + 3, f"the calls in flight took {took:.1f} s to fail")
            got, times = child(lambda: calls(p.where), 120)
            check(max(times.values()) < TIMEOUT * 2 + 3, f"too long: {times}")
            check(isinstance(got["mkdir"], str), f"mkdir: {got['mkdir']}")
            p.mount.healthy()
            if mounted(p.where):
                p.mount.umount(TIMEOUT * 2 + 5)
        finally:
            p.server.process.send_signal(signal.SIGCONT)


@suite.test
def umount_while_the_server_hangs():
    with Pair(f"timeout={TIMEOUT}", codes=None) as p:
        child(lambda: os.listdir(p.where))
        p.server.process.send_signal(signal.SIGSTOP)
        try:
            p.mount.umount(TIMEOUT * 2 + 5)
            until(lambda: p.mount.process.poll() is not None, TIMEOUT * 2 + 5, "p9 mount does not end")
        finally:
            p.server.process.send_signal(signal.SIGCONT)


@suite.test
def server_is_replaced():
    """The server ends and another takes its address, in the middle of I/O. Whether the mount goes on or not: no hang, no wrong
    data, and what fsync has confirmed is there."""
    with Pair(f"timeout={TIMEOUT}", codes=None) as p:
        put(p.beneath + "/f", b"data")

        def write_on():
            confirmed, error = 0, ""
            fd = os.open(p.mount.path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            end = time.monotonic() + 6
            while time.monotonic() < end:
                try:
                    os.write(fd, b"%09d\n" % confirmed)
                    os.fsync(fd)
                    confirmed += 1
                except OSError as e:
                    error = errno.errorcode[e.errno]
                    break
            outcome(os.close, fd)
            return confirmed, error
        writer = Child(write_on)
        workers = busy(p.where, 2, 5)
        time.sleep(0.8)
        p.server.process.kill()
        p.server.process.wait()
        os.unlink(p.server.socket)
        second = P9d("-e", f"x={p.beneath}", listen=["-l", f"unix:{p.server.socket}"])
        p.server.codes = (0, -9)
        try:
            confirmed, error = writer.result(40)
            with open(p.beneath + "/log", "rb") as f:
                lines = f.read().splitlines()
            check(lines[:confirmed] == [b"%09d" % i for i in range(confirmed)],
                  f"{confirmed} records were confirmed, {len(lines)} are there, or others")
            check(len(lines) <= confirmed + 1, f"{confirmed} records were written and {len(lines)} are there")
            errors = [w.result(40) for w in workers]
            got, times = child(lambda: calls(p.where), 60)
            check(max(times.values()) < TIMEOUT + 3, f"too long: {times}")
            check(got["read"] == b"data" or isinstance(got["read"], str), f"read: {got['read']}")
            print(f"    {confirmed} records, then {error or 'no error'}; others {errors}; afterwards stat: {got['stat']}")
            p.mount.healthy()
            if mounted(p.where):
                p.mount.umount()
        finally:
            second.stop()


def stuck_program(options, wake):
    """A program whose call waits for a server that is silent dies of SIGKILL within the time-out."""
    with Pair(f"timeout={TIMEOUT}{options}", codes=None) as p:
        put(p.beneath + "/f", b"data" * 100000)
        child(lambda: os.stat(p.mount.path("f")))
        p.server.process.send_signal(signal.SIGSTOP)
        try:
            readers = [Child(lambda: open(p.mount.path("f"), "rb").read()), Child(lambda: os.mkdir(p.mount.path("d"))),
                       Child(lambda: os.listdir(p.where)), Child(lambda: open(p.mount.path("new"), "wb").write(b"x" * 100000))]
            time.sleep(0.3)
            times = [r.kill(wake, TIMEOUT * 2 + 3) for r in readers]
            print(f"    they died after {', '.join(f'{t:.2f}' for t in times)} s")
        finally:
            p.server.process.send_signal(signal.SIGCONT)
        p.mount.healthy()


@suite.test
def programs_are_killed_while_the_server_hangs():
    stuck_program("", signal.SIGKILL)


@suite.test
def programs_are_interrupted_while_the_server_hangs():
    stuck_program(",cache=none", signal.SIGTERM)


@suite.test
def programs_are_killed_in_the_middle_of_io():
    """Many times, at any moment; the mount goes on as if nothing had been, and the server keeps no fids of theirs."""
    with Pair() as p:
        for i in range(12):
            workers = busy(p.where, 4)
            time.sleep(0.03 + 0.02 * i)
            for w in workers:
                w.kill((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[i % 3], 5)
        left = child(lambda: keep_busy(p.where, "last", 0.5))
        equal(left, "", "an error afterwards")
        child(lambda: [os.unlink(p.mount.path(n)) for n in os.listdir(p.where)])
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("2")
        until(lambda: p.server.stats()[1] < 20, 10, f"fids left: {p.server.stats()[1]}; it")


@suite.test
def a_lock_that_waits_is_interrupted():
    with Pair() as p:
        put(p.beneath + "/f", b"x" * 100)

        def hold(kind):
            fd = os.open(p.mount.path("f"), os.O_RDWR)
            (fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX)
            time.sleep(60)

        def wait(kind):
            def ring(*_):
                raise InterruptedError
            signal.signal(signal.SIGALRM, ring)
            fd = os.open(p.mount.path("f"), os.O_RDWR)
            began = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            try:
                (fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX)
                return "granted"
            except InterruptedError:
                return time.monotonic() - began

        def take(kind):
            fd = os.open(p.mount.path("f"), os.O_RDWR)
            (fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX)
            return "granted"
        for kind in ("flock", "fcntl"):
            holder = Child(lambda k=kind: hold(k))
            time.sleep(0.3)
            got = child(lambda k=kind: wait(k), 20)
            check(got != "granted" and got < 5, f"{kind}: {got}")
            waiter = Child(lambda k=kind: take(k))
            time.sleep(0.3)
            check(not waiter.ended(), f"{kind}: it does not wait")
            holder.kill()
            equal(waiter.result(10), "granted", f"{kind}: after its holder was killed")
            waiting = [Child(lambda k=kind: hold(k)), Child(lambda k=kind: take(k))]
            time.sleep(0.3)
            for w in waiting:
                w.kill()


@suite.test
def the_mount_is_killed():
    """kill -9 of p9 mount: calls in flight and later ones fail at once, and p9 umount clears what is left."""
    with Pair("", codes=None) as p:
        workers = busy(p.where, 3)
        time.sleep(0.5)
        p.mount.process.kill()
        for w in workers:
            check(w.result(10) in ("ENOTCONN", "ECONNABORTED", "EIO"), "a worker saw nothing of it")
        # the kernel may know its attributes for a second still
        until(lambda: child(lambda: outcome(os.stat, p.where), 10) == "ENOTCONN", 30, "stat of the stale mount: no ENOTCONN")
        p.mount.process.wait()
        p.mount.umount()
        equal(p.mount.process.returncode, -9)
        p.mount.healthy = lambda: None
        # And it can be mounted again, in the same place.
        with Mount(f"unix:{p.server.socket}", "", where=p.where):
            child(lambda: os.listdir(p.where))


@suite.test
def the_mount_of_a_user_is_killed():
    with Pair("", user=USER, codes=None) as p:
        child(lambda: os.listdir(p.where), user=USER)
        p.mount.process.kill()
        p.mount.process.wait()
        rig.program(rig.common.P9, "umount", p.where, user=USER)
        check(not mounted(p.where), "still mounted")
        p.mount.healthy = lambda: None


def add_signal(sig):
    def test():
        with Pair("", codes=None) as p:
            workers = busy(p.where, 3)
            time.sleep(0.4)
            os.kill(p.mount.pid, sig)
            until(lambda: p.mount.process.poll() is not None, 10, "p9 mount does not end")
            errors = [w.result(15) for w in workers]
            check(all(errors), f"a worker saw nothing of it: {errors}")
            check(not mounted(p.where), "still mounted")
            p.mount.healthy()
    test.__name__ = f"p9 mount gets {sig.name} in the middle of everything"
    suite.test(test)


add_signal(signal.SIGINT)
add_signal(signal.SIGTERM)


@suite.test
def umount_in_the_middle_of_everything():
    """Busy: p9 umount says so and nothing breaks; a lazy one lets the open files live."""
    with Pair("") as p:
        put(p.beneath + "/f", b"still there")
        fd = os.open(p.mount.path("f"), os.O_RDONLY)
        try:
            got = subprocess.run([rig.common.P9, "umount", p.where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=20, check=False)
            check(got.returncode != 0 and mounted(p.where), "a busy mount was unmounted")
            check(b"busy" in got.stdout.lower() or b"EBUSY" in got.stdout, got.stdout)
            equal(os.read(fd, 100), b"still there", "read")
            equal(state(p.mount.pid) in "RS", True, "p9 mount's state")
        finally:
            os.close(fd)


@suite.test
def files_belong_to_whoever_makes_them():
    """Mounted by root with allow_other: each user acts as himself, and does what he may and no more."""
    with Pair("allow_other") as p:
        os.chmod(p.beneath, 0o1777)
        put(p.beneath + "/secret", b"root's", 0o600)

        def work():
            for name, make in (("f", lambda n: os.close(os.open(n, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))),
                               ("d", os.mkdir), ("p", os.mkfifo), ("l", lambda n: os.symlink("x", n))):
                make(p.mount.path(name))
                st = os.lstat(p.mount.path(name))
                equal((st.st_uid, st.st_gid), (USER, USER), f"owner of {name}")
            with open(p.mount.path("f"), "r+b") as f:
                f.write(b"mine")
            os.chmod(p.mount.path("f"), 0o640)
            equal(outcome(os.unlink, p.mount.path("secret")), "EPERM", "unlink of another's file in a sticky directory")
            equal(outcome(open, p.mount.path("secret"), "rb"), "EACCES", "another's file")
            equal(outcome(os.chown, p.mount.path("f"), 0, 0), "EPERM", "giving a file away")
        child(work, user=USER)
        equal([os.lstat(os.path.join(p.beneath, n)).st_uid for n in "fdpl"], [USER] * 4, "owners beneath")
        equal(child(lambda: open(p.mount.path("secret"), "rb").read()), b"root's", "root reads its own")


@suite.test
def another_user_is_kept_out():
    """Without allow_other only the user who mounted sees the mount; nosuid and nodev are set."""
    with Pair("", user=USER) as p:
        put(p.beneath + "/f", b"mine", owner=(USER, USER))
        equal(child(lambda: open(p.mount.path("f"), "rb").read(), user=USER), b"mine", "the user reads")
        equal(child(lambda: outcome(os.listdir, p.where), user=USER - 1), "EACCES", "another lists")
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            options = next(line.split()[5] for line in f if line.split()[4] == p.where)
        check("nosuid" in options and "nodev" in options, options)
