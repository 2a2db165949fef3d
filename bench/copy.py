#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures get, put and cp of p9 against p9d, and prints the ratios that are asked of them side by side.

Small files: a tree of 20,000, with -q 64 and one request at a time (-q 1), in turns; asked: 3 times as fast.
One large file: get to /dev/null and to a file, and `p9 bench read` of the same file, in turns; asked: 90 % of its MB/s.
What a file here costs by itself is measured, too, by cp(1) of the same file between the same file systems. Who writes
one first pays for memory that comes from the host, so that a copy which does not count goes before, and the two take turns.
Figures are medians of the rounds. usage: bench/copy.py [--build DIR] [--where DIR] [--rounds N] [--files N] [--size MIB]
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
from suite import Server  # noqa: E402


def make_small(top, files):
    for i in range(files):
        where = os.path.join(top, f"d{i // 100:04}")
        os.makedirs(where, exist_ok=True)
        with open(os.path.join(where, f"f{i % 100:02}"), "wb") as f:
            f.write(bytes([i & 255]) * (200 + i * 37 % 3000))


def timed(*command):
    begin = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def row(what, value, unit, want=None, got=None):
    verdict = "" if want is None else f"   {got:5.2f} of {want:g} asked: {'ok' if got >= want else 'NOT REACHED'}"
    print(f"{what:<34}{value:10.2f} {unit}{verdict}")
    sys.stdout.flush()
    return want is None or got >= want


class Bench:
    def __init__(self, args):
        self.args = args
        self.top = tempfile.mkdtemp(prefix="p9-copy-", dir=args.where)
        self.share = os.path.join(self.top, "share")
        os.mkdir(self.share)
        socket = os.path.join(self.top, "s")
        self.server = Server([os.path.join(args.build, "p9d"), "-l", f"unix:{socket}", self.share], [socket], self.top)
        self.p9 = [os.path.join(args.build, "p9"), "-s", f"unix:{socket}"]

    def path(self, name):
        return os.path.join(self.top, name)

    def remove(self, path):
        shutil.rmtree(path, ignore_errors=True)

    def small(self):
        make_small(self.path("small"), self.args.files)
        times = {}
        for _ in range(self.args.rounds):
            for depth in ("64", "1"):
                self.remove(os.path.join(self.share, "t"))
                self.remove(self.path("back"))
                self.remove(os.path.join(self.share, "u"))
                for what, command in (("put", ["put", "-r", self.path("small"), "/t"]),
                                      ("get", ["get", "-r", "/t", self.path("back")]), ("cp", ["cp", "-r", "/t", "/u"])):
                    times.setdefault((what, depth), []).append(timed(*self.p9, "-q", depth, *command))
        ok = True
        for what in ("put", "get", "cp"):
            many, one = (statistics.median(times[what, d]) for d in ("64", "1"))
            row(f"{what} -r, {self.args.files} files, -q 1", one, "s")
            ok &= row(f"{what} -r, {self.args.files} files, -q 64", many, "s", 3 if what != "cp" else None, one / many)
        return ok

    def bench_read(self):
        out = subprocess.run([*self.p9, "bench", "-t", "2", "--json", "--file", "/big", "read"], check=True,
                             stdout=subprocess.PIPE).stdout
        return json.loads(out)["mb_per_s"]

    def large(self):
        size = self.args.size << 20
        big = os.path.join(self.share, "big")
        block = os.urandom(1 << 20)
        with open(big, "wb") as f:
            for _ in range(self.args.size):
                f.write(block)
        rates = {}
        copy = self.path("big")
        writers = {"file": [*self.p9, "get", "/big", copy], "cp(1)": ["cp", "--reflink=never", big, copy]}
        for turn in range(self.args.rounds):
            rates.setdefault("bench", []).append(self.bench_read())
            rates.setdefault("null", []).append(size / 1e6 / timed(*self.p9, "get", "/big", "/dev/null"))
            timed(*writers["cp(1)"])
            for what in sorted(writers, reverse=turn % 2 == 1):
                os.unlink(copy)
                rates.setdefault(what, []).append(size / 1e6 / timed(*writers[what]))
            os.unlink(copy)
        mid = {what: statistics.median(v) for what, v in rates.items()}
        row("p9 bench read", mid["bench"], "MB/s")
        ok = row(f"get of {self.args.size} MiB, to /dev/null", mid["null"], "MB/s", 0.9, mid["null"] / mid["bench"])
        row(f"get of {self.args.size} MiB, to a file", mid["file"], "MB/s")
        row("cp(1), the same file, no 9P", mid["cp(1)"], "MB/s")
        row("get to a file, of bench read", mid["file"] / mid["bench"], "")
        row("get to a file, of cp(1)", mid["file"] / mid["cp(1)"], "")
        return ok

    def close(self):
        self.server.stop()
        shutil.rmtree(self.top, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--where", default="/dev/shm" if os.path.isdir("/dev/shm") else None, help="a fast file system")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB")
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    bench = Bench(args)
    try:
        ok = bench.small() & bench.large()
    finally:
        bench.close()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
