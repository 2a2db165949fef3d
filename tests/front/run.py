#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Tests of p9 over vhost-user: every kind of command with p9d's device, ends of the link, and devices that lie.

usage: tests/front/run.py [--p9 PATH] [--p9d PATH] [--only TEXT]
"""
import argparse
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
sys.dont_write_bytecode = True
import backend  # noqa: E402
from suite import ROOT, Skip, check, equal, until  # noqa: E402

TOP = tempfile.mkdtemp(prefix="p9front-")
TESTS = []
RSTAT, RLERROR = 25, 7


def test(function):
    TESTS.append(function)
    return function


def p9(address, *args, data=None, seconds=40):
    r = subprocess.run([OPT.p9, "-s", address, *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=seconds)
    check(r.returncode >= 0, f"p9 {args} ended by signal {-r.returncode}", r.stderr[-2000:])
    check(b"Sanitizer" not in r.stderr and b"runtime error" not in r.stderr, r.stderr[-3000:].decode())
    return r


def good(address, *args, **more):
    r = p9(address, *args, **more)
    check(r.returncode == 0, args, r.returncode, r.stderr[-600:].decode())
    return r.stdout


class P9d:
    count = 0

    def __init__(self, *more, options=""):
        P9d.count += 1
        self.tree, self.path = f"{TOP}/tree{P9d.count}", f"{TOP}/v{P9d.count}"
        os.makedirs(self.tree, exist_ok=True)
        self.address = "vhost-user:" + self.path
        self.options, self.more = options, more
        self.start()

    def start(self):
        self.log = open(self.path + ".log", "ab")
        self.process = subprocess.Popen([OPT.p9d, "-l", f"vhost-user:{self.path},tag=t{self.options}",
                                         "-e", f"x={self.tree},squash=none", *self.more],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(lambda: os.path.exists(self.path) and b"sharing" in open(self.path + ".log", "rb").read(), 20, "p9d")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        code = self.process.wait(20)
        text = open(self.path + ".log", errors="replace").read()
        if kind is None:
            check(code in (0, -signal.SIGKILL), "p9d ended with", code)
            check("Sanitizer" not in text and "runtime error" not in text, text[-3000:])


# ---- with p9d ----
@test
def files_go_there_and_come_back():
    with P9d() as d:
        data = os.urandom(30_000_001)
        open(TOP + "/data", "wb").write(data)
        for msize in ("4096", "65536", "1048576"):
            good(d.address, "-m", msize, "put", TOP + "/data", f"copy{msize}")
            equal(hashlib.sha1(open(f"{d.tree}/copy{msize}", "rb").read()).hexdigest(), hashlib.sha1(data).hexdigest(), msize)
            equal(good(d.address, "-m", msize, "cat", f"copy{msize}") == data, True, "cat " + msize)


@test
def trees_names_and_attributes():
    with P9d() as d:
        for i in range(300):
            os.makedirs(f"{d.tree}/t/d{i % 7}", exist_ok=True)
            open(f"{d.tree}/t/d{i % 7}/f{i}", "w").write(str(i))
        os.symlink("x" * 4000, f"{d.tree}/t/long")
        good(d.address, "get", "-r", "t", TOP + "/got")
        subprocess.run(["diff", "-r", "--no-dereference", f"{d.tree}/t", TOP + "/got"], check=True)
        equal(len(good(d.address, "ls", "t/d0").split()), 43)
        equal(good(d.address, "readlink", "t/long").strip(), b"x" * 4000)
        good(d.address, "mkdir", "new")
        good(d.address, "mv", "t/d1", "new/moved")
        good(d.address, "rm", "-r", "t")
        equal(sorted(os.listdir(d.tree)), ["new"])


@test
def several_queues():
    with P9d(options=",queues=4") as d:
        open(d.tree + "/f", "wb").write(bytes(range(256)) * 20000)
        for n in (1, 3, 4):
            equal(len(good(f"{d.address},queues={n}", "cat", "f")), 5120000)
        r = p9(f"{d.address},queues=5", "ls")
        check(r.returncode == 3 or r.returncode, r.returncode)
        check(b"the device has 4 queues, not 5 (EINVAL)" in r.stderr, r.stderr)


@test
def a_tag_can_be_asked_for():
    with P9d() as d:
        good(d.address + ",tag=t", "ls")
        check(b'the device\'s tag is "t", not "other" (ENODEV)' in p9(d.address + ",tag=other", "ls").stderr)


@test
def conform():
    with P9d() as d:
        r = p9(d.address, "conform", seconds=500)
        check(r.returncode == 0, r.stdout[-1500:].decode(), r.stderr[-500:].decode())


@test
def bench():
    with P9d() as d:
        for load in "getattr walk small create read write randread randwrite readdir".split():
            for depth in ("1", "32"):
                good(d.address, "bench", "-q", depth, "-t", "0.2", "-z", "8", "-n", "200", load)
        good(d.address, "bench", "-c", "3", "-q", "4", "-t", "0.2", "small")


@test
def mount():
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    with P9d() as d:
        where = TOP + "/mnt"
        os.makedirs(where, exist_ok=True)
        good(d.address, "mount", where)
        try:
            data = os.urandom(9_000_000)
            open(where + "/big", "wb").write(data)
            equal(open(d.tree + "/big", "rb").read() == data, True)
            for i in range(200):
                open(f"{where}/f{i}", "w").write(str(i))
            equal(sorted(os.listdir(where)), sorted(os.listdir(d.tree)))
            equal(open(where + "/big", "rb").read() == data, True)
            d.process.kill()
            d.process.wait()
            try:
                os.stat(where + "/f1000")
                raise AssertionError("the server is dead, the mount does not say so")
            except OSError as e:
                check(not isinstance(e, FileNotFoundError), e)
        finally:
            subprocess.run(["umount", "-l", where], check=True)


@test
def p9d_is_killed_in_mid_request():
    with P9d() as d:
        open(d.tree + "/f", "wb").truncate(1 << 36)
        r = subprocess.Popen([OPT.p9, "-s", d.address, "cat", "f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        r.stdout.read(1 << 20)
        d.process.kill()
        d.process.wait()
        _, err = r.communicate(timeout=30)
        equal(r.returncode, 1, err[-500:])
        equal(err.count(b"the device closed the connection (ECONNRESET)"), 1, err)
        os.unlink(d.path)
        open(d.path + ".log", "wb").close()
        d.start()
        good(d.address, "ls")   # a new dial works


@test
def nobody_is_there():
    r = p9(f"vhost-user:{TOP}/nobody", "ls")
    check(b"No such file or directory (ENOENT)" in r.stderr and b"tag=share DIR" in r.stderr, r.stderr)


# ---- devices that lie ----
def lie(words, answer=None, **how):
    """p9 stat against such a device ends by itself, with these words."""
    P9d.count += 1
    path = f"{TOP}/b{P9d.count}"
    device = backend.Device(path, answer or (lambda *_: None), **how)
    began = time.monotonic()
    r = p9("vhost-user:" + path, "stat", "a")
    device.close()
    check(r.returncode != 0, "it believed", r.stdout)
    check(words in r.stderr.decode(), f"{r.stderr.decode()!r} does not say {words!r}")
    return time.monotonic() - began


def tag(request):
    return struct.unpack("<H", request[5:7])[0]


@test
def an_honest_answer_of_the_same_device():
    lie("Permission denied (EACCES)", lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13)))


LIES = {
    "longer than its room": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), length=1 << 20),
    "an answer of 11 bytes that says it has 12": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), size=12),
    "an answer of 10 bytes that says it has 11":
        lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), length=10, size=11),
    "an answer of 3 bytes": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), length=3),
    "an answer to no request": lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13), head=9),
    "more answers than requests": lambda d, q, p: d.used_entry(p[0], 11, step=1000),
    "tag that is not in flight": lambda d, q, p: d.give(p, RLERROR, 77, struct.pack("<I", 13)),
    "closed the connection": lambda d, q, p: d.sock.shutdown(2),
    "found fault with one": lambda d, q, p: os.write(d.fds[backend.SET_ERR], struct.pack("=Q", 1)),
    "speaks without being asked": lambda d, q, p: d.sock.send(b"hello"),
}


@test
def lies_in_the_ring():
    for words, answer in LIES.items():
        lie(words, answer)
    lie("an answer to no request", lambda d, q, p: d.used_entry(0xFFFFFFFF, 11))
    lie("an answer to no request", lambda d, q, p: d.used_entry(d.num, 11))

    def twice(d, q, p):
        d.used_entry(p[0], 0)   # "flushed": without an answer
        d.used_entry(p[0], 11)
    lie("more answers than requests", twice)


@test
def a_device_that_scribbles_over_everything():
    def scribble(d, q, p):
        d.write(d.desc, b"\xff" * 16 * d.num)
        d.write(d.avail, b"\xff" * (6 + 2 * d.num))
        d.give(p, RLERROR, tag(q), struct.pack("<I", 13))
    lie("Permission denied (EACCES)", scribble)


@test
def lies_in_the_control_conversation():
    def on(what, reply):
        def control(d, request, flags, payload):
            if request == what:
                reply(d, request)
            return request == what
        return control
    shut = lambda d, r: d.sock.shutdown(2)  # noqa: E731
    for request in (1, 15, 17, 24, 2, 5, 8, 9, 10, 12, 13, 14, 18):
        lie("the device closed the connection (ECONNRESET)", control=on(request, shut))
    lie("came no answer, but message 2", control=on(1, lambda d, r: d.reply(2, bytes(8))))
    lie("came no answer", control=on(1, lambda d, r: d.reply(1, bytes(8), flags=1)))
    lie("has 4 bytes", control=on(1, lambda d, r: d.reply(1, bytes(4))))
    lie("has 100000 bytes", control=on(1, lambda d, r: d.sock.send(struct.pack("=III", 1, 5, 100000))))
    lie("the device refuses message 5", control=on(5, lambda d, r: d.reply(5, b"\1" + bytes(7))))
    lie("is no 9P device", features=backend.FEATURES & ~1)
    lie("older than VIRTIO 1.0", features=backend.FEATURES & ~(1 << 32))
    lie("has 0 queues", control=on(17, lambda d, r: d.reply(17, bytes(8))))


@test
def devices_with_fewer_features():
    answer = lambda d, q, p: d.give(p, RLERROR, tag(q), struct.pack("<I", 13))  # noqa: E731
    for less in (1 << 28, 1 << 29, 1 << 28 | 1 << 29, 1 << 30):
        lie("Permission denied (EACCES)", answer, features=backend.FEATURES & ~less)
    lie("Permission denied (EACCES)", answer, protocol=0)


@test
def a_device_that_never_answers():
    took = lie("did not answer for 10 s", control=lambda d, r, f, p: r == 1)
    check(9 < took < 30, took)


def main():
    global OPT
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--p9", default=os.path.join(ROOT, "build", "p9"))
    ap.add_argument("--p9d", default=os.path.join(ROOT, "build", "p9d"))
    ap.add_argument("--only", default="")
    OPT = ap.parse_args()
    passed = failed = skipped = 0
    for t in TESTS:
        name = t.__name__.replace("_", " ")
        if OPT.only not in name:
            continue
        try:
            t()
            passed += 1
            print("ok     ", name, flush=True)
        except Skip as e:
            skipped += 1
            print("skipped", name, "-", e, flush=True)
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            print("FAILED ", name, "-", e, flush=True)
    shutil.rmtree(TOP, ignore_errors=True)
    print(f"front: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
