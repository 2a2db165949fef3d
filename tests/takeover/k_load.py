# SPDX-License-Identifier: BSD-2-Clause
"""A second one takes over, and a third, while programs work that check what they read: p9's own bench and copies, a mount
with programs on it; over Unix, TCP and shared memory. No connection may be made anew: clients that reconnect by
themselves would hide one that was lost."""
import filecmp
import os
import re
import shutil
import subprocess
import threading

import common
from common import Skip, check, equal, fresh, put, suite, until
from handover import Again, Line, every

TRANSPORTS = ("unix", "tcp", "vhost")
FSX = os.path.join(common.lib.ROOT, "build", "tests", "mount", "fsx")


class Served(Line):
    """A Line on one transport; .address is what p9 -s takes."""

    def __init__(self, transport, *args):
        path = os.path.join(fresh(), "s")
        port = common.free_port()
        listen, self.address = {
            "unix": (f"unix:{path}", f"unix:{path}"),
            "tcp": (f"tcp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}"),
            "vhost": (f"vhost-user:{path},tag=share,queues=2", f"vhost-user:{path}"),
        }[transport]
        super().__init__(*args, listen=["-l", listen])


def p9(address, *words, seconds=120):
    env = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "")}
    got = subprocess.run([common.P9, "-s", address, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, timeout=seconds, check=False, env=env)
    err = got.stderr.decode(errors="replace")
    check(got.returncode == 0, f"p9 {' '.join(map(str, words))}: {got.returncode}: {err[-1500:]}")
    check("reconnect" not in err and "lost" not in err, err)
    return got.stdout.decode(errors="replace")


def bench(transport):
    d = fresh("bench", 0o777)
    with Served(transport, "-e", f"x={d},squash=none") as s, Again(s, every(0.5)) as again:
        for workload in ("randread", "randwrite", "create", "walk", "readdir"):
            n = again.count
            out = p9(s.address, "bench", "-c", 1 if transport == "vhost" else 4, "-q", 8, "-t", int(every(3)), "-n", 500,
                     workload)
            check(again.count > n + 1, f"only {again.count - n} hand-overs while {workload} ran")
            check(re.search(r"\d", out), out)


def big_tree(top):
    data = os.urandom(3 << 20)
    for i in range(12):
        os.mkdir(f"{top}/d{i}")
        for k in range(60):
            at = (i * 60 + k) * 3571 % (2 << 20)
            put(f"{top}/d{i}/f{k}", data[at:at + (k * k * 37) % 30000])
        put(f"{top}/d{i}/large", data * (1 + i % 3))
    return top


def same(a, b):
    left = sorted(os.path.relpath(os.path.join(w, n), a) for w, _, names in os.walk(a) for n in names)
    equal(sorted(os.path.relpath(os.path.join(w, n), b) for w, _, names in os.walk(b) for n in names), left)
    wrong = filecmp.cmpfiles(a, b, left, shallow=False)[1:]
    equal(wrong, ([], []), "files that differ")


def copies(transport):
    """put and get with --check, all the time somebody takes over."""
    local, d = big_tree(fresh()), fresh("copy", 0o777)
    with Served(transport, "-e", f"x={d},squash=none") as s, Again(s, every(0.3)) as again:
        turn = 0
        while again.count < 8 and not again.error:
            p9(s.address, "put", "-r", "--check", local, f"/up{turn}")
            back = os.path.join(fresh(), "back")
            p9(s.address, "get", "-r", "--check", f"/up{turn}", back)
            same(local, f"{d}/up{turn}")
            same(local, back)
            shutil.rmtree(back)
            shutil.rmtree(f"{d}/up{turn}")
            turn += 1


class Mount:
    """`p9 mount -f`; every program on it has a time limit."""

    def __init__(self, address, options):
        if not os.path.exists("/dev/fuse"):
            raise Skip("no /dev/fuse")
        self.where, self.log = fresh("mnt"), os.path.join(common.TOP, "mount.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([common.P9, "-s", address, "mount", "-f", "-o", options, self.where],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until(lambda: self.process.poll() is not None or os.path.ismount(self.where), 20, "it does not mount")
        with open(self.log, encoding="utf-8", errors="replace") as log:
            check(self.process.poll() is None, log.read())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        subprocess.run([common.P9, "umount", self.where], timeout=20, check=kind is None, stdin=subprocess.DEVNULL)
        if kind is not None:
            common.libc.umount2(os.fsencode(self.where), 3)
            self.process.kill()
        self.process.wait(240)  # it stays while a test beside us has a copy of the mount in a namespace of its own
        with open(self.log, encoding="utf-8", errors="replace") as log:
            out = log.read()
        check(kind or not re.search(r"lost|again|reconnect|Sanitizer", out), out)


def program(*words, seconds=240):
    got = subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         timeout=seconds, check=False)
    check(got.returncode == 0, f"{words[0]}: {got.returncode}: {got.stdout.decode(errors='replace')[-2000:]}")


def reader_writer(where, done, errors):
    """Small files that are made, renamed, read back and removed, by a thread that looks at all of it."""
    try:
        n = 0
        while not done.is_set():
            a, b = f"{where}/t{n}", f"{where}/u{n}"
            data = os.urandom(100 + n * 37 % 9000)
            with open(a, "wb") as f:
                f.write(data)
            os.rename(a, b)
            with open(b, "rb") as f:
                equal(f.read(), data)
                os.unlink(b)
                f.seek(0)
                equal(f.read(), data, "a file without a name")
            n += 1
        check(n > 5, n)
    except BaseException as e:  # pylint: disable=broad-except
        errors.append(e)


def mount(transport, options):
    """fsx, which remembers what it has written, and two more programs, on one mount."""
    d = fresh("under", 0o777)
    if not os.access(FSX, os.X_OK):
        raise Skip(f"{FSX} is not built")
    with Served(transport, "-e", f"x={d},squash=none") as s, Mount(s.address, options) as m:
        done, errors = threading.Event(), []
        threads = [threading.Thread(target=reader_writer, args=(fresh_in(m.where, i), done, errors)) for i in range(2)]
        for t in threads:
            t.start()
        try:
            with Again(s, every(0.7)) as again:
                seed = 0
                while again.count < 5 and not again.error:
                    seed += 1
                    program(FSX, "--seed", seed, "--ops", 1500, *(("--unlink",) if seed % 2 else ()), f"{m.where}/file",
                            "--beneath", f"{d}/file")
        finally:
            done.set()
            for t in threads:
                t.join()
        check(not errors, errors)
        check("connected" not in s.output().split("took")[1], "a connection was made anew: " + s.output())


def fresh_in(where, i):
    path = f"{where}/work{i}"
    os.mkdir(path)
    return path


def fio():
    """fio's own verification, on a mount over TCP, one who takes over every second."""
    if not shutil.which("fio"):
        raise Skip("no fio (tools/deps.sh check)")
    d = fresh("fio", 0o777)
    with Served("tcp", "-e", f"x={d},squash=none") as s, Mount(s.address, "cache=none") as m, Again(s, every(1)) as again:
        while again.count < 4 and not again.error:
            program("fio", "--name=v", "--verify_state_save=0", f"--directory={m.where}", "--rw=randwrite", "--bs=16k", "--size=24m",
                    "--verify=crc32c", "--numjobs=2", "--ioengine=psync", "--do_verify=1", "--verify_fatal=1",
                    "--group_reporting", "--fallocate=none")


def add(name, function, *args):
    def test():
        function(*args)
    test.__name__ = name
    suite.test(test)


for kind in TRANSPORTS:
    add(f"load_bench_over_{kind}", bench, kind)
    add(f"load_copies_over_{kind}", copies, kind)
    add(f"load_mount_over_{kind}", mount, kind, "cache=none" if kind != "tcp" else "cache=loose")
add("load_fio_verifies", fio)
