# SPDX-License-Identifier: BSD-2-Clause
"""Starting, ending, and saying what is wrong with a command line."""
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import common
from common import TOP, P9d, check, connects, equal, free_port, fresh, put, suite, until, within
from ninep import O_RDWR, Conn


def refused(*args, words=(), **popen):
    return P9d(*args, listen=[], ready=False, **popen).refuses(*words)


@suite.test
def start_errors_name_option_value_and_cause():
    d = fresh()
    put(d + "/file")
    sock = f"unix:{TOP}/e"
    cases = [
        (("-l", "nonsense", d), ("--listen", "nonsense", "unix:PATH")),
        (("-l", "unix:", d), ("--listen", "unix:", "path")),
        (("-l", "unix:/" + "x" * 200, d), ("--listen", "path of")),
        (("-l", "tcp:host:port:more", d), ("--listen", "tcp:host:port:more", "brackets")),
        (("-l", "tcp:127.0.0.1:99999", d), ("--listen", "99999", "65535")),
        (("-l", "tcp:no-such-host.invalid:564", d), ("--listen", "no-such-host.invalid")),
        (("-l", "tcp:0.0.0.0:0", d), ("--listen", "0.0.0.0", "--insecure")),
        (("-l", "tcp:[::]:0", d), ("--listen", "--insecure")),
        (("-l", "unix:/no/such/dir/s", d), ("--listen", "/no/such/dir/s", "ENOENT")),
        (("-l", f"unix:{d}/file", d), ("--listen", "file", "not a socket")),
        (("-l", "fd:77", d), ("--listen", "fd:77", "EBADF")),
        (("-l", "fd:x", d), ("--listen", "fd:x")),
        (("-l", sock, "-e", "/no/such/dir"), ("--export", "/no/such/dir", "ENOENT")),
        (("-l", sock, "-e", f"name={d}/file"), ("--export", "file", "ENOTDIR")),
        (("-l", sock, "-e", f"a={d},readonly"), ("--export", "readonly", "squash=")),
        (("-l", sock, "-e", f"a={d},squash=some"), ("--export", "squash=some")),
        (("-l", sock, "-e", "a="), ("--export", "a=", "PATH")),
        (("-l", sock, "-e", ""), ("--export",)),
        (("-l", sock, "-e", f"a={d}", "-e", f"a={d}"), ("--export", "twice")),
        (("-l", sock), ("nothing to share", "--export")),
        (("-l", sock, d, "--msize", "4095"), ("--msize", "4095", "4096")),
        (("-l", sock, d, "--msize=x"), ("--msize", "x", "number")),
        (("-l", sock, d, "--msize", "99999999999999999999"), ("--msize", "99999999999999999999", "number")),
        (("-l", sock, d, "--msize"), ("--msize", "missing")),
        (("-l", sock, d, "--identity", "me"), ("--identity", "me", "users or single")),
        (("-l", sock, d, "--socket-mode", "888"), ("--socket-mode", "888", "octal")),
        (("-l", sock, d, "--loops", "1000"), ("--loops", "1000", "64")),
        (("-l", sock, d, "--workers", "0"), ("--workers", "0", "1 to")),
        (("-l", sock, d, "--connections", "-1"), ("--connections", "-1")),
        (("-l", sock, d, "--lock-wait", "1e3"), ("--lock-wait", "1e3")),
        (("-l", sock, d, "--log", "loud"), ("--log", "loud", "debug")),
        (("-l", sock, d, "--trace=maybe"), ("--trace", "maybe", "yes or no")),
        (("-l", sock, d, "--no-such-option"), ("--no-such-option", "--help")),
        (("-l", sock, d, "-Z"), ("-Z", "--help")),
        (("-c", "/no/such/file"), ("--config", "/no/such/file", "No such file")),
        (("-c", d), ("--config", d, "directory")),
    ]
    for args, words in cases:
        out = refused(*args, words=words)
        check(out.startswith("p9d: ") and out.count("\n") <= 2, f"{args}: {out}")
    check(not os.path.exists(f"{TOP}/e"), "a socket stays after an error")


@suite.test
def start_config_file():
    d, where = fresh(), fresh()
    put(d + "/f", b"data")
    conf = os.path.join(TOP, "p9d.conf")
    put(conf, f"# comment\n\n  listen = unix:{where}/s \nexport\tone={d},ro\nexport=two={d}\nmsize 16384\ntrace no\n".encode())
    with P9d("-c", conf, listen=[]) as s:
        c = Conn(where + "/s", version=False)
        equal(c.version(65536)[0], 16384)
        c.attach(0, "one")
        c.open(0, "f")
    check(not os.path.exists(where + "/s"))
    for line, words in (("nonsense 1", ("nonsense", ":3:", "unknown key")), ("msize", ("msize", "missing")),
                        ("msize 12", ("msize", "12", "4096")), ("export x=/no/such", ("/no/such",)),
                        ("listen foo", ("listen", "foo")), ("help", ("help", "unknown key")),
                        ("trace perhaps", ("trace", "perhaps"))):
        put(conf, f"# 1\nexport a={d}\n{line}\n".encode())
        P9d("-c", conf, ready=False).refuses(*words)


@suite.test
def start_with_a_directory_alone():
    """As an ordinary user, and p9 alone finds it."""
    home, run = fresh("share"), fresh("run", 0o777)
    put(home + "/hello", b"hello")
    os.chown(run, 33, 33)
    user = ("setpriv", "--reuid", "33", "--regid", "33", "--clear-groups")
    with P9d(home, listen=[], before=user, env={"XDG_RUNTIME_DIR": run}) as s:
        line = s.output().splitlines()[0]
        check("p9 -s" in line and "mount -t 9p" in line and home in line, line)
        equal(stat.S_IMODE(os.stat(run + "/p9.sock").st_mode), 0o600)
        out = subprocess.run([*user, common.P9, "ls"], check=True, stdout=subprocess.PIPE,
                             env={**os.environ, "XDG_RUNTIME_DIR": run}).stdout
        check(b"hello" in out, out)
    check(not os.path.exists(run + "/p9.sock"))


@suite.test
def start_with_directories_of_all_kinds_of_names():
    d = fresh()
    for name in ("a/b", "c"):
        os.makedirs(f"{d}/{name}")
    put(d + "/a/f")
    put(d + "/a/b/g")

    def names(address, aname, *below):
        c = Conn(address)
        c.attach(0, aname)
        return {e[0] for e in c.entries(c.open(0, *below), 0, 60000)}
    with P9d("/") as s:  # all there is
        for aname in ("", "/", "//"):
            check(b"proc" in names(s.socket, aname), aname)
        check(b"f" in names(s.socket, d + "/a"))
        check(b"f" in names(s.socket, "", *f"{d}/a".strip("/").split("/")))
    with P9d(".", cwd=d) as s:
        check(b"c" in names(s.socket, ".") and b"f" in names(s.socket, "./a"))
    for exports in (("a", "a/b"), ("a/b", "a"), ("./a", "./a/b")):  # one below the other
        with P9d("-e", exports[0], "-e", exports[1], "-e", "c", cwd=d) as s:
            check(all(b"g" in names(s.socket, x) for x in exports if x.endswith("b")))
            check(all(b"f" in names(s.socket, x) for x in exports if x.endswith("a")))
            equal(names(s.socket, "") - {b".", b".."}, {b"a", b"c"})
            check(b"g" in names(s.socket, "", "a", "b"))
    for bad in ("/", ".", "..", "./", "a/../c"):
        refused("-l", f"unix:{TOP}/e", "-e", bad, "-e", "c", words=("--export", bad, "NAME="), cwd=d)
    refused("-l", f"unix:{TOP}/e", "-e", "a", "-e", "/a/", words=("--export", "twice"), cwd=d)


@suite.test
def start_beside_one_who_has_locked_the_directory():
    """Anybody may lock a directory that he can read, such as /tmp."""
    d, where = fresh(), fresh()
    at = os.open(where, os.O_RDONLY)
    fcntl.flock(at, fcntl.LOCK_EX)
    with P9d("-e", f"x={d}", where=where) as s:
        Conn(s.socket).attach(0)
    os.close(at)


@suite.test
def start_twice_and_stale():
    d = fresh()
    with P9d("-e", f"x={d}") as s:
        listen = ["-l", f"unix:{s.socket}"]
        P9d("-e", f"x={d}", listen=listen, ready=False).refuses(s.socket, "another server")
        check(connects(s.socket), "the refused start has harmed the first server")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(s.socket)
    with P9d("-e", f"x={d}", listen=listen) as second:
        Conn(s.socket).attach(0)
        check("stale" in second.output())
    check(not os.path.exists(s.socket))


@suite.test
def start_again_after_kill_9():
    d = fresh("dir", 0o777)
    with P9d("-e", f"x={d}") as s:
        path = s.socket
        for i in range(6):
            c = Conn(path)
            c.attach(0)
            f = c.create(0, f"f{i}")
            c.write(f, 0, b"replied")
            for k in range(50):
                c._write(f, 7 + k, b"more")
            s.process.kill()
            s.process.wait()
            with open(f"{d}/f{i}", "rb") as f:
                equal(f.read()[:7], b"replied", "a write that was answered")
            check(c.ended())
            again = P9d("-e", f"x={d}", listen=["-l", f"unix:{path}"])
            s.process, s.log = again.process, again.log


@suite.test
def start_many_at_once_on_one_socket():
    """Of those that start at the same time on a stale socket one wins, and it can be reached."""
    d, path = fresh(), os.path.join(TOP, "contended")
    for _ in range(5):
        if os.path.exists(path):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
        servers = [P9d("-e", f"x={d}", listen=["-l", f"unix:{path}"], ready=False) for _ in range(4)]
        until(lambda: all(s.process.poll() is not None or "sharing" in s.output() for s in servers))
        running = [s for s in servers if s.process.poll() is None]
        try:
            equal(len(running), 1, "servers that think the socket is theirs")
            Conn(path).attach(0)
        finally:
            for s in running:
                s.stop()


@suite.test
def end_leaves_another_servers_socket():
    d = fresh()
    with P9d("-e", f"x={d}") as first:
        os.unlink(first.socket)
        with P9d("-e", f"x={d}", listen=["-l", f"unix:{first.socket}"]):
            first.stop()
            check(connects(first.socket), "p9d has removed another server's socket")


def end_at_work(sig, clients):
    """Seconds until p9d has ended, with locks that wait and a client that does not stop asking."""
    d = fresh("dir", 0o777)
    put(d + "/f", bytes(1 << 20), 0o666)
    with P9d("-e", f"x={d}", "--connections", clients) as s:
        conns = [s.conn() for _ in range(clients)]
        for i, c in enumerate(conns):
            f = c.open(0, "f", flags=O_RDWR)
            c.lock(f, 1, i, 1)
            c._lock(f, 1, 1, 0, 0, 9, "waits")
        at_work = threading.Event()

        def busy():
            try:
                while True:
                    conns[0].getattr(0)
                    at_work.set()
            except Exception:  # pylint: disable=broad-except
                return
        t = threading.Thread(target=busy)
        t.start()
        check(at_work.wait(60))
        took = s.stop(sig=sig)
        t.join()
        check(not os.path.exists(s.socket), "the socket stays")
        check(all(c.ended() for c in conns[1:]))
        for c in conns:
            c.close()
    return took


@suite.test
def end_within_a_second():
    second = 3 if common.sanitized() else 1
    within(second, lambda: end_at_work(signal.SIGTERM, 20))
    within(second, lambda: end_at_work(signal.SIGINT, 20))
    within(second, lambda: end_at_work(signal.SIGTERM, 1000))


@suite.test
def end_in_the_middle_of_a_start():
    d = fresh()
    for i in range(15):
        s = P9d("-e", f"x={d}", ready=False, codes=(0, -signal.SIGTERM))
        time.sleep(0.002 * i)
        s.stop()
        if s.process.returncode == 0:
            check(not os.path.exists(s.socket), "the socket stays")


@suite.test
def usr1_prints_counters():
    d = fresh()
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        for _ in range(100):
            c.getattr(0)
        c.outcome(c._walk(0, 5, "nothing"))
        conns, fids, text = s.stats()
        equal((conns, fids), (1, 1))
        row = next(x.split() for x in text.splitlines() if "getattr" in x)
        check(int(row[2]) >= 100, row)
        row = next(x.split() for x in text.splitlines() if "walk" in x)
        equal(int(row[3]), 1, "errors of walk")
        check("histogram" in text and "p99" in text)
        for _ in range(200):
            s.process.send_signal(signal.SIGUSR1)
        c.getattr(0)


@suite.test
def listen_fds():
    d = fresh()
    path = os.path.join(TOP, "activated")
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(path)
        unix.listen()
        port = tcp.getsockname()[1]
        shell = (f"exec 3<&{unix.fileno()} 4<&{tcp.fileno()}; LISTEN_PID=$$ LISTEN_FDS=2; export LISTEN_PID LISTEN_FDS; "
                 "exec \"$0\" \"$@\"")
        s = P9d("-e", f"x={d}", listen=[], before=("sh", "-c", shell), pass_fds=(unix.fileno(), tcp.fileno()))
    with s:
        Conn(path).attach(0)
        Conn(("127.0.0.1", port)).attach(0)
    check(os.path.exists(path), "a socket that was handed over belongs to who made it")
    os.unlink(path)
    with P9d("-e", f"x={d}", env={"LISTEN_PID": "1", "LISTEN_FDS": "1"}):
        pass  # meant for another process


@suite.test
def listen_fds_that_cannot_listen():
    d = fresh()
    a, b = socket.socketpair()
    with a, b:
        shell = f"exec 3<&{a.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$0\" \"$@\""
        s = P9d("-e", f"x={d}", listen=[], before=("sh", "-c", shell), pass_fds=(a.fileno(),), ready=False)
    try:
        until(lambda: s.process.poll() is not None or "sharing" in s.output())
        if s.process.poll() is None:
            load = s.load(0.5)
            check(load < 0.2, f"a LISTEN_FDS descriptor that cannot listen: {load:.0%} of a processor")
    finally:
        s.kill()


@suite.test
def stdio_and_descriptors():
    d = fresh()
    put(d + "/f", b"data")
    a, b = socket.socketpair()
    s = P9d("-e", f"x={d}", listen=["-l", "stdio"], stdin=b.fileno(), stdout=b.fileno(), ready=False)
    b.close()
    c = Conn(a)
    c.attach(0)
    equal(c.read(c.open(0, "f"), 0, 10), b"data")
    c.close()
    equal(s.process.wait(60), 0, "it ends with its only link")
    # two pipes
    to_r, to_w = os.pipe()
    from_r, from_w = os.pipe()
    s = P9d("-e", f"x={d}", listen=["-l", f"fd:{to_r},{from_w}"], pass_fds=(to_r, from_w), ready=False)
    os.close(to_r)
    os.close(from_w)
    os.write(to_w, b"\x15\0\0\0\x64\xff\xff\0\x40\0\0\x08\x009P2000.L")
    equal(os.read(from_r, 100)[4], 101)
    os.close(to_w)
    equal(os.read(from_r, 1), b"")
    equal(s.process.wait(60), 0)
    os.close(from_r)
    # closed at once
    s = P9d("-e", f"x={d}", listen=["-l", "stdio"], stdin=subprocess.DEVNULL, ready=False)
    until(lambda: s.process.poll() is not None, 30, "a link on /dev/null goes on")


@suite.test
def closed_standard_descriptors():
    """Started without them, p9d must not take a client's or a file's descriptor for its log."""
    d = fresh("dir", 0o777)
    for closed in ("2>&-", "<&- 2>&-", "<&- >&- 2>&-"):
        shell = f"exec \"$0\" \"$@\" {closed}"
        s = P9d("-e", f"x={d}", "--log", "debug", "--trace", before=("sh", "-c", shell))
        try:
            c = s.conn()
            f = c.create(0, "f")
            c.write(f, 0, b"content")
            for i in range(20):
                c.outcome(c._walk(0, 77, "nothing"))
            c.getattr(f)
            with open(d + "/f", "rb") as g:
                equal(g.read(), b"content", f"{closed}: the file")
            os.unlink(d + "/f")
            s.stop()
        finally:
            s.kill()


@suite.test
def stderr_that_is_full_or_gone():
    d = fresh("dir", 0o777)
    r, w = os.pipe()
    os.close(r)
    s = P9d("-e", f"x={d}", "--log", "debug", stderr=w)
    os.close(w)
    with s:
        c = s.conn()
        for _ in range(20):
            c.outcome(c._walk(0, 77, "nothing"))
        c.getattr(0)


@suite.test
def unreadable_directories():
    d = fresh("dir", 0o755)
    os.mkdir(d + "/closed")
    os.mkdir(d + "/closed/in")
    os.mkdir(d + "/blind")
    os.chmod(d + "/closed", 0)
    os.chmod(d + "/blind", 0o711)
    put(d + "/blind/f", b"x", 0o644)
    user = ("setpriv", "--reuid", "33", "--regid", "33", "--clear-groups")
    where = fresh("sock", 0o777)
    listen = ["-l", f"unix:{where}/s"]
    P9d("-e", f"x={d}/closed/in", before=user, listen=listen, ready=False).refuses(f"{d}/closed/in", "EACCES")
    with P9d("-e", f"x={d}/blind", before=user, listen=listen):
        c = Conn(where + "/s")
        c.attach(0)
        c.walk(0, "f")
        equal(c.outcome(c._lopen(c.walk(0), 0)), 13)


@suite.test
def tcp_addresses():
    d, port = fresh(), free_port()
    with P9d("-e", f"x={d}", "--insecure", listen=["-l", f"tcp:0.0.0.0:{port}"]):
        Conn(("127.0.0.1", port)).attach(0)
        P9d("-e", f"x={d}", listen=["-l", f"tcp:127.0.0.1:{port}"], ready=False).refuses(str(port), "EADDRINUSE")
    with P9d("-e", f"x={d}", listen=["-l", f"tcp:127.0.0.1:{port}"]):  # the port is free again at once
        Conn(("127.0.0.1", port)).attach(0)
    with P9d("-e", f"x={d}", listen=["-l", "tcp:127.0.0.1:0"]) as s:  # it says which port it has got
        got = int(re.search(r"tcp:127\.0\.0\.1:(\d+);", s.output()).group(1))
        Conn(("127.0.0.1", got)).attach(0)
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
        with P9d("-e", f"x={d}", listen=["-l", f"tcp:[::1]:{port}"]):
            with socket.create_connection(("::1", port)):
                pass


@suite.test
def descriptors_do_not_reach_children():
    """Every descriptor of p9d is close-on-exec."""
    d = fresh("dir", 0o777)
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        c.create(0, "f")
        f = c.open(0, "f", flags=O_RDWR)
        c.lock(f, 1, 0, 1)
        for fd in os.listdir(f"/proc/{s.pid}/fdinfo"):
            with open(f"/proc/{s.pid}/fdinfo/{fd}", encoding="ascii") as info:
                flags = int(next(x for x in info if x.startswith("flags:")).split()[1], 8)
            check(flags & os.O_CLOEXEC or int(fd) < 3, f"descriptor {fd} -> {os.readlink(f'/proc/{s.pid}/fd/{fd}')}")


@suite.test
def writes_past_the_file_size_limit():
    """RLIMIT_FSIZE sends SIGXFSZ: an errno for the client, not the end of p9d."""
    d = fresh("dir", 0o777)
    with P9d("-e", f"x={d}", before=("prlimit", "--fsize=100000:100000")) as s:
        c = s.conn()
        f = c.create(0, "f")
        c.write(f, 0, b"x")
        equal(c.outcome(c._write(f, 200000, b"x")), 27)
        equal(c.outcome(c._setattr(f, 8, 0, 0, 0, 300000, 0, 0, 0, 0)), 27)
        c.getattr(f)
