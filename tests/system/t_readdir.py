# SPDX-License-Identifier: BSD-2-Clause
"""Large directories: linear time, bounded memory, each entry once, also while others come and go."""
import os
import random
import subprocess
import sys
import threading

import common
from common import P9d, Skip, check, equal, fresh, libc, suite
from ninep import entries_of

MIB = 1 << 20
MAKE = """
import os, sys
d = os.open(sys.argv[1], os.O_RDONLY)
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    os.mknod("e%07d" % i, 0o100644, dir_fd=d)
"""


def on_tmpfs():
    d = fresh("tmpfs")
    if libc.mount(b"tmpfs", os.fsencode(d), b"tmpfs", 0, b"size=4g,nr_inodes=2m") < 0:
        raise Skip("tmpfs does not mount")
    return d


def make(d, first, last):
    subprocess.run([sys.executable, "-c", MAKE, d, str(first), str(last)], check=True)


def listing(c, fid, count, after_each=None):
    """The names of all entries from the beginning; after_each(how many) is called after each reply."""
    offset, names = 0, []
    while True:
        got = list(entries_of(c.wait(c.ask("readdir", fid, offset, count))))
        if not got:
            return names
        names += [e[0] for e in got]
        check(got[-1][1] != offset, "the offset does not move")
        offset = got[-1][1]
        if after_each:
            after_each(len(names))


@suite.test
def readdir_very_many_entries():
    n, d = 200_000 if common.sanitized() and not common.SLOW else 1_000_000, on_tmpfs()
    try:
        make(d, 0, n)
        with P9d("-e", f"x={d}") as s:
            c = s.conn(msize=65536)
            before = s.rss()
            f = c.open(0)
            cpu = [(0, s.work())]
            names = listing(c, f, 60000, lambda have: cpu.append((have, s.work())))
            equal(len(names), n + 2)
            equal(len(set(names)), n + 2, "different names")
            check(s.rss() - before < 4 * MIB or common.sanitized(), f"{(s.rss() - before) / MIB:.1f} MiB more")
            middle = min(cpu, key=lambda x: abs(x[0] - n // 2))[1]
            first, second = middle - cpu[0][1], cpu[-1][1] - middle
            check(second < 3 * first + 0.1, f"processor time: {first:.3f} s for the first half, {second:.3f} for the second")
    finally:
        libc.umount2(os.fsencode(d), 2)


@suite.test
def readdir_while_others_come_and_go():
    """On tmpfs and on the disk's file system: every entry that nobody touches exactly once."""
    for where in ("tmpfs", "disk"):
        d = on_tmpfs() if where == "tmpfs" else fresh("disk")
        stop = threading.Event()

        def churn(d=d, stop=stop):
            rnd = random.Random(1)
            while not stop.is_set():
                name = f"{d}/c{rnd.randrange(3000)}"
                try:
                    os.unlink(name)
                except FileNotFoundError:
                    os.mknod(name, 0o100644)
        thread = threading.Thread(target=churn)
        try:
            make(d, 0, 5000)
            stable = {b"e%07d" % i for i in range(5000)}
            thread.start()
            with P9d("-e", f"x={d}") as s:
                c = s.conn(msize=16384)
                for count in (16000, 700, 4000):
                    f = c.open(0)
                    names = listing(c, f, count)
                    seen = [x for x in names if x in stable]
                    equal(len(set(seen)), 5000, f"{where}, count {count}: missing {len(stable - set(seen))}")
                    equal(len(seen), 5000, f"{where}, count {count}: some came twice")
                    c.clunk(f)
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()
            if where == "tmpfs":
                libc.umount2(os.fsencode(d), 2)


@suite.test
def readdir_goes_on_at_any_offset_it_has_given():
    d = fresh()
    make(d, 0, 300)
    with P9d("-e", f"x={d}") as s:
        c = s.conn()
        f, g = c.open(0), c.open(0)
        all_ = c.entries(f, 0, 60000)
        while True:
            more = c.entries(f, all_[-1][1], 60000)
            if not more:
                break
            all_ += more
        equal(len(all_), 302)
        for i in (0, 5, 150, 299, 300, 3):  # through another fid, forth and back
            rest = c.entries(g, all_[i][1], 60000)
            equal([e[0] for e in rest][:20], [e[0] for e in all_[i + 1:i + 21]], f"after entry {i}")
        equal(c.outcome(c._readdir(g, 0, 10)), 22, "no room for one entry")
        equal(c.entries(g, 0, 60)[0][0], all_[0][0], "after that")
        for bogus in (1, 12345, 2**31, 2**62, 2**63 - 1):
            c.outcome(c._readdir(g, bogus, 4096))
        equal(c.entries(g, 0, 60000)[0][0], all_[0][0])
        c.unlinkat(0, "e0000000", 0)
        equal(c.entries(g, all_[-1][1], 4096), [])
