# SPDX-License-Identifier: BSD-2-Clause
"""Random operations: the differential test and the data test, with caches off and on, as root and as a user."""
import os

from rig import OPT, USER, Mount, Pair, fresh, mounted, check, program, size, suite  # noqa: F401
import rig

CACHES = ("none", "attr", "loose")


def tool(name):
    return os.path.join(rig.OPT.tools, name)


def differential(options, seeds, ops, processes=2, user=None, *more):
    if "loose" in options:
        more += ("--own-times",)
    with Pair(options, user=user) as p:
        for seed in seeds:
            program(tool("differential"), "--seed", seed, "--ops", ops, "--procs", processes, *more, p.local, p.where, p.beneath,
                    seconds=60 + ops // 50, user=user)


def add(function, name):
    function.__name__ = name
    suite.test(function)


def add_differential(cache):
    def test():
        # Seeds that are even test flock, the others the locks of fcntl.
        n = size(1500, 17500, 100000)
        differential(f"cache={cache}", (1, 2), n)
    add(test, f"differential, cache={cache}")


for name in CACHES:
    add_differential(name)


@suite.test
def differential_with_writeback():
    differential("cache=loose,writeback", (3, 4), size(1000, 6000, 50000))


@suite.test
def differential_as_a_user():
    differential("", (5, 6), size(1000, 8000, 50000), 2, USER)


@suite.test
def differential_of_four_processes():
    differential("", (7,), size(500, 5000, 30000), 4)


def shared(options, mounts, rounds, processes):
    with Pair(options) as p:
        others = [Mount(f"unix:{p.server.socket}", options) for _ in range(mounts - 1)]
        try:
            program(tool("differential"), "--shared", *(("--own-times",) if "loose" in options else ()), "--seed", 1, "--ops", rounds, "--procs", processes, p.where,
                    *(m.where for m in others), "--beneath", p.beneath, seconds=300)
        except BaseException:
            for m in others:
                m.destroy()
            raise
        for m in others:
            with m:
                pass


def add_shared(cache, mounts):
    def test():
        shared(f"cache={cache}", mounts, size(200, 1000, 20000), 4)
    add(test, f"one directory for four processes, cache={cache}, {mounts} mounts")


for name in CACHES:
    add_shared(name, 1)
# With cache=loose a mount need not see what another has done.
add_shared("none", 2)
add_shared("attr", 2)


def fsx(options, variants, ops, user=None):
    with Pair(options, user=user) as p:
        for seed, variant in enumerate(variants, 1):
            program(tool("fsx"), "--seed", seed, "--ops", ops, *variant, p.mount.path(f"file{seed}"), "--beneath",
                    os.path.join(p.beneath, f"file{seed}"), seconds=120 + ops // 50, user=user)


VARIANTS = ((), ("--unlink",), ("--append",), ("--no-mmap", "--append"), ("--direct", "--append"))


def add_fsx(options):
    def test():
        fsx(options, VARIANTS, size(1000, 6000, 100000))
    add(test, f"data of one file, {options}")


for name in CACHES:
    add_fsx(f"cache={name}")
add_fsx("cache=loose,writeback")


@suite.test
def data_of_one_file_as_a_user():
    fsx("", VARIANTS[:2], size(500, 4000, 50000), USER)
