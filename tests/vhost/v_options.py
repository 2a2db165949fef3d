# SPDX-License-Identifier: BSD-2-Clause
"""p9d's command line for devices: exports, connecting, what monitors' managers expect, messages."""
import json
import os
import signal
import socket
import subprocess
import time

import common
import frontend as vu
from common import P9d, check, denied, equal, fresh, put, suite, until
from setup import Device, make_tree, works


def listening(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(4)
    return s


@suite.test
def options_export():
    """export= shows one tree under any aname below it; without, a guest may attach to all."""
    a, b = make_tree(), fresh("b")
    put(b + "/only-b", b"b")
    with Device("-e", f"b={b}", tree=a, options=",export=b") as s:
        for aname in ("", "b", "/b", "/"):
            g = s.guest(attach=False)
            g.attach(0, aname)
            g.walk(0, "only-b")
            g.monitor.close()
        g = s.guest(attach=False)
        denied(2, lambda: g.attach(0, "x"))
        g.attach(0, "")
        denied(2, lambda: g.walk(0, "f"))
        check("sharing b as a device with tag share" in s.output(), s.output())
    with Device("-e", f"b={b}", tree=a) as s:
        g = s.guest(attach=False)
        g.attach(0, "")
        equal(sorted(e[0] for e in g.entries(g.open(0), 0, 1000)), [b".", b"..", b"b", b"x"])
        g.attach(1, "b")
        g.walk(1, "only-b")


@suite.test
def options_several_devices_and_sockets():
    a, b, where = make_tree(), fresh("b"), fresh("sock")
    put(b + "/only-b", b"b")
    with Device("-e", f"b={b}", tree=a, listen=["-l", f"vhost-user:{where}/1,tag=one,export=x", "-l",
                                                f"vhost-user:{where}/2,tag=two,export=b,queues=3", "-l",
                                                f"unix:{where}/3"]) as s:
        for path, tag, name, queues in ((where + "/1", b"one", "f", 1), (where + "/2", b"two", "only-b", 3)):
            s.path = path
            m = vu.Monitor(path)
            m.hello()
            equal(m.config(0, 5), bytes([3, 0]) + tag)
            equal(m.u64(vu.GET_QUEUE_NUM), queues)
            m.close()
            g = s.guest(attach=False)
            g.attach()
            g.walk(0, name)
        s.socket = where + "/3"
        s.conn("x").walk(0, "f")


@suite.test
def options_connect():
    """The monitor listens, p9d connects, again and again: there is no monitor yet, it goes, it comes back."""
    where = fresh("sock")
    path = where + "/s"
    with Device(listen=["-l", f"vhost-user:{path},tag=t,connect"]) as s:
        until(lambda: "no monitor is there (ENOENT), waiting for one" in s.output(), 10, s.output())
        for i in range(4):
            with listening(path) as listener:
                for _ in range(2):      # the second time to the same socket
                    s.path, _ = listener.accept()
                    g = s.guest()
                    works(g)
                    g.monitor.close()
                s.gone()
            until(lambda n=i: s.output().count("waiting for one") == n + 2, 20, s.output())
            os.unlink(path)
        equal(s.output().count("(ECONNREFUSED), waiting for one"), 4, s.output())
        check(s.process.poll() is None)
        check(s.stop(sig=signal.SIGTERM) < 5)


@suite.test
def options_connect_to_who_does_not_want():
    """A monitor that closes at once is not called in a loop, and one that is full is called again."""
    where = fresh("sock")
    path = where + "/s"
    with listening(path) as listener, Device(listen=["-l", f"vhost-user:{path},tag=t,connect"]) as s:
        began = time.monotonic()
        for _ in range(4):
            listener.accept()[0].close()
        check(time.monotonic() - began > 0.6, "it does not wait longer and longer")     # 0.1 + 0.2 + 0.4
        s.path, _ = listener.accept()
        works(s.guest())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where + "/full")
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(where + "/full")
            with Device(listen=["-l", f"vhost-user:{where}/full,tag=t,connect"]) as s:
                until(lambda: "(EAGAIN), waiting for one" in s.output(), 10, s.output())
                listener.accept()[0].close()
                s.path, _ = listener.accept()
                works(s.guest())


@suite.test
def options_connect_beside_others():
    """It waits, and other addresses are served meanwhile; so is the guest of one that came."""
    where = fresh("sock")
    with Device(listen=["-l", f"vhost-user:{where}/s,tag=t,connect", "-l", f"vhost-user:{where}/d,tag=d"], path=where + "/d") as s:
        works(s.guest())
        check("waiting for one" in s.output(), s.output())
        with listening(where + "/s") as listener:
            sock, _ = listener.accept()
            other = Device.guest(s)
            s.path = sock
            works(s.guest())
            works(other)


@suite.test
def options_that_are_wrong():
    tree, where = make_tree(), fresh("sock")
    for text, words in (("vhost-user:", ("without a path",)), ("vhost-user:,tag=t", ("without a path",)),
                        (f"vhost-user:{where}/s", ("tag=TAG",)), (f"vhost-user:{where}/s,tag=", ("tag=",)),
                        (f"vhost-user:{where}/s,tag={'x' * 32}", ("31 bytes",)),
                        (f"vhost-user:{where}/s,tag=t,queues=0", ("1 to 64",)),
                        (f"vhost-user:{where}/s,tag=t,queues=65", ("1 to 64",)),
                        (f"vhost-user:{where}/s,tag=t,queues=2x", ("1 to 64",)),
                        (f"vhost-user:{where}/s,tag=t,queues=-1", ("1 to 64",)),
                        (f"vhost-user:{where}/s,tag=t,export=none", ("none of the exports",)),
                        (f"vhost-user:{where}/s,tag=t,colour=red", ("options are",)),
                        (f"vhost-user:{where}/s,tag=t,,", ("options are",)),
                        (f"vhost-user:{where}/{'y' * 120},tag=t", ("longer",)),
                        (f"vhost-user:{where}/no/s,tag=t", ("ENOENT",))):
        s = P9d("-e", f"x={tree}", listen=["-l", text], ready=False)
        s.refuses("p9d: --listen", *words)
    with Device() as s:
        P9d("-e", f"x={tree}", listen=["-l", f"vhost-user:{s.path},tag=t"], ready=False).refuses("another server")


@suite.test
def options_socket_is_for_the_owner():
    with Device() as s:
        equal(os.stat(s.path).st_mode & 0o777, 0o600)
    check(not os.path.exists(s.path), "the socket is left")


@suite.test
def options_capabilities():
    """--print-capabilities, whatever else is given: JSON with the type, and nothing is done."""
    for more in ((), ("-e", "/nonexistent"), ("--socket-path=/nonexistent/s", "--tag=t"), ("--no-such-option",)):
        out, err = common.lib.run(common.P9D, "--print-capabilities", *more)
        equal(json.loads(out), {"type": "9p", "features": []})
        equal(err, b"")


@suite.test
def options_as_managers_give_them():
    """--socket-path=PATH --tag=TAG, --fd=N (a connected socket, or one that listens); it ends on SIGTERM, in front."""
    tree, where = make_tree(), fresh("sock")
    with Device(tree=tree, path=where + "/s", listen=[f"--socket-path={where}/s", "--tag=manager"]) as s:
        m = vu.Monitor(s.path)
        m.hello()
        equal(m.config(0, 9), b"\7\0manager")
        m.close()
        works(s.guest())
        check(s.process.poll() is None)
        check(s.stop(sig=signal.SIGTERM) < 5)
    ours, theirs = socket.socketpair()
    s = Device(tree=tree, path=ours, listen=[f"--fd={theirs.fileno()}", "--tag=t"], pass_fds=[theirs.fileno()])
    theirs.close()
    works(s.guest())
    ours.close()
    equal(s.process.wait(10), 0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where + "/l")
        listener.listen(4)
        with Device(tree=tree, path=where + "/l", listen=[f"--fd={listener.fileno()}", "--tag=t"],
                    pass_fds=[listener.fileno()]) as s:
            works(s.guest())
            works(s.guest())
    for args, words in (((f"--socket-path={where}/s",), ("--tag",)), (("--tag=t",), ("--socket-path", "--fd")),
                        ((f"--socket-path={where}/s", "--fd=5", "--tag=t"), ("--socket-path", "--fd")),
                        (("--fd=x", "--tag=t"), ("--fd",)), (("--fd=77", "--tag=t"), ("EBADF",)),
                        ((f"--socket-path={where}/s", f"--tag={'x' * 32}"), ("31",))):
        P9d("-e", f"x={tree}", listen=list(args), ready=False).refuses(*words)


@suite.test
def options_description_file():
    """The file that monitors' managers look for names a program and its type."""
    out = subprocess.run(["meson", "introspect", "--installed", os.path.dirname(common.P9D)], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, check=False).stdout
    if not out:
        raise common.Skip("no meson directory")
    path = next((have for have, to in json.loads(out).items() if to.endswith("/qemu/vhost-user/50-p9d.json")), None)
    check(path, "50-p9d.json is not installed")
    with open(path, encoding="utf-8") as f:
        what = json.load(f)
    equal(what["type"], "9p")
    check(what["binary"].startswith("/") and what["binary"].endswith("/p9d") and what["description"], what)
