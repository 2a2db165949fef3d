# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the device share: a p9d with a device, and a front-end that is through with its start."""
import os
import time

import common
import frontend as vu
from common import P9d, check, fresh, put, until

DATA = bytes((i * 7 + i // 251) & 0xFF for i in range(600000))


class Device(P9d):
    """A p9d with one device that shares self.tree as export x. more: further options of p9d; options: of the device; path:
    its socket; listen: other options instead of all that."""

    def __init__(self, *more, options="", tree=None, path=None, listen=None, **popen):
        self.tree = tree or make_tree()
        common._count[0] += 1
        self.path = path or os.path.join(common.TOP, f"v{common._count[0]}")
        super().__init__("-e", f"x={self.tree}", *more,
                         listen=listen or ["-l", f"vhost-user:{self.path},tag=share{options}"], **popen)

    def monitor(self, **options):
        return vu.Monitor(self.path, **options)

    def guest(self, msize=65536, queues=1, num=128, features=vu.FEATURES, version=True, mem=None, protocol=vu.OURS, ack=True,
              attach=True):
        """A guest that has mounted the share; its monitor and its memory are guest.monitor and guest.mem."""
        m = self.monitor(ack=ack)
        m.hello(protocol)
        mem = mem or vu.Memory()
        rings = [vu.Ring(mem, num, features) for _ in range(queues)]
        m.set_features(features)
        share(m, mem, protocol)
        for i, r in enumerate(rings):
            m.start(i, r)
        g = vu.Guest(rings, msize, version=version)
        g.monitor = m
        if version and attach:
            g.attach(0, "x")
        return g

    def gone(self, seconds=10):
        """Waits until no connection and no fid is left."""
        until(lambda: self.stats()[:2] == (0, 0), seconds, f"connections, fids left: {self.stats()[:2]}")


def share(m, mem, protocol=vu.OURS):
    if protocol & vu.SLOTS:
        for r in mem.regions:
            m.add_region(r)
    else:
        m.mem_table(mem)


def make_tree():
    d = fresh("tree", 0o777)
    put(d + "/f", DATA)
    put(d + "/small", b"small")
    os.mkdir(d + "/dir")
    for i in range(300):
        put(f"{d}/dir/entry-with-a-name-of-some-length-{i:03}")
    return d


def works(g, path="f"):
    """The session is alive: opens, reads, clunks."""
    f = g.open(0, path)
    check(g.read(f, 3, 64) == DATA[3:67] or path != "f", "wrong data")
    g.clunk(f)


def quiet_for(seconds):
    """For what must not happen: there is nothing to wait for."""
    time.sleep(seconds)
