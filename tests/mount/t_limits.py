# SPDX-License-Identifier: BSD-2-Clause
"""Amounts: many open files, many lookups, a disk that is full, deep and wide directories."""
import os
import resource

import rig
from rig import Pair, Skip, check, child, equal, fresh, outcome, program, put, size, suite, until


def drop_caches(what="2"):
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write(what)
    except OSError as e:
        raise Skip(f"drop_caches: {e.strerror}") from None


def open_files(p, n):
    """n files open at a time, half of them without a name."""
    fds = []
    for i in range(n):
        fd = os.open(p.mount.path(f"file{i}"), os.O_RDWR | os.O_CREAT, 0o644)
        os.write(fd, b"%d" % i)
        fds.append(fd)
    for i, fd in enumerate(fds):
        equal(os.pread(fd, 10, 0), b"%d" % i, "read")
        if i % 2:
            os.unlink(p.mount.path(f"file{i}"))
    for i, fd in enumerate(fds):
        os.pwrite(fd, b"again", 0)
        equal(os.fstat(fd).st_nlink, 1 - i % 2, "links")
        equal(os.pread(fd, 5, 0), b"again", "read")
    for fd in fds:
        os.close(fd)


@suite.test
def ten_thousand_open_files():
    """The server needs three descriptors for each; where it may not have them, as many files as it can."""
    n = 10000
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(old[1], 4 * n),) * 2)
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (old[1],) * 2)
        if old[1] < 3 * n + 1000:
            n = (old[1] - 1000) // 3
            print(f"    {n} files only: no process here may have more than {old[1]} descriptors")
    try:
        with Pair() as p:
            child(lambda: open_files(p, n), 240)
            names = os.listdir(p.beneath)
            equal(len(names), (n + 1) // 2, "files beneath")
            for name in names:
                os.unlink(os.path.join(p.beneath, name))
            drop_caches()
            until(lambda: p.server.stats()[1] < 50, 20, f"fids left: {p.server.stats()[1]}; it")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (old[0], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def lookups(options, files, rounds):
    """Every file is looked up in every round: all that the kernel knew of them, it was made to forget."""
    with Pair(options) as p:
        for d in range(files // 500):
            os.mkdir(os.path.join(p.beneath, f"d{d}"))
            for i in range(500):
                put(os.path.join(p.beneath, f"d{d}", f"f{i}"))
        paths = [p.mount.path(f"d{d}", f"f{i}") for d in range(files // 500) for i in range(500)]

        def work():
            for path in paths:
                os.stat(path)
        rss = []
        for _ in range(rounds):
            child(work, 200)
            drop_caches()
            until(lambda: p.server.stats()[1] < 40, 30, f"fids left: {p.server.stats()[1]}; it")
            rss.append(p.mount.rss())
        early, late = max(rss[:max(1, len(rss) // 3)]), rss[-1]
        print(f"    {files * rounds} lookups; memory after the first round {rss[0] >> 10} KiB, in the end {late >> 10} KiB")
        check(late < early + (2 << 20) + early // 5, f"memory grows: {[r >> 10 for r in rss]} KiB")


@suite.test
def lookups_and_forgets_leave_nothing():
    lookups("", 10000, size(3, 12, 100))


@suite.test
def lookups_and_forgets_leave_nothing_cache_none():
    lookups("cache=none", 5000, size(3, 6, 100))


def full_disk(options, mib=8):
    """ENOSPC reaches write, fsync or close. What was confirmed by fsync is there; afterwards all goes on."""
    where = fresh("small")
    program("mount", "-t", "tmpfs", "-o", f"size={mib}m", "small", where)
    try:
        with Pair(options, where) as p:
            def fill():
                fd = os.open(p.mount.path("big"), os.O_RDWR | os.O_CREAT)
                good, errors = 0, []
                os.write(fd, b"s" * 65536)
                os.fsync(fd)
                for _ in range(mib * 16 * 2):
                    got = outcome(os.write, fd, b"x" * 65536)
                    if not isinstance(got, int):
                        errors.append(got)
                        break
                    good += got
                errors.append(outcome(os.fsync, fd))
                errors.append(outcome(os.close, fd))
                return good, errors
            good, errors = child(fill)
            check("ENOSPC" in errors, f"no ENOSPC: {errors} after {good} bytes")
            check(all(e in ("ENOSPC", None) for e in errors), f"another error: {errors}")

            def after():
                with open(p.mount.path("big"), "rb") as f:
                    data = f.read()
                check(data[:65536] == b"s" * 65536, "what was synced is gone")
                got = outcome(lambda: [os.mkdir(p.mount.path(f"d{i}")) for i in range(3)])
                os.truncate(p.mount.path("big"), 65536)
                with open(p.mount.path("again"), "wb") as f:
                    f.write(b"y" * (1 << 20))
                    f.flush()
                    os.fsync(f.fileno())
                with open(p.mount.path("again"), "rb") as f:
                    equal(len(f.read()), 1 << 20, "written after room was made")
                os.unlink(p.mount.path("big"))
                return got
            child(after)
            check(not os.path.exists(os.path.join(where, "big")), "still there beneath")
    finally:
        program("umount", "-l", where)


@suite.test
def full_disk_is_told():
    full_disk("")


@suite.test
def full_disk_is_told_cache_none():
    full_disk("cache=none")


@suite.test
def full_disk_is_told_with_writeback():
    full_disk("cache=loose,writeback")


@suite.test
def a_directory_of_many_entries():
    n = size(3000, 30000, 200000)
    with Pair() as p:
        for i in range(n):
            os.close(os.open(os.path.join(p.beneath, f"{i:x}-{'n' * (i % 60)}"), os.O_CREAT | os.O_WRONLY))
        equal(child(lambda: sorted(os.listdir(p.where)) == sorted(os.listdir(p.beneath)), 120), True, "the same names")

        def scan():
            with os.scandir(p.where) as entries:
                return sum(e.is_file() and e.stat().st_size == 0 for e in entries)
        equal(child(scan, 120), n, "files that scandir finds")


@suite.test
def deep_directories():
    """A path longer than PATH_MAX, reached step by step."""
    with Pair() as p:
        def work():
            depth, name = 120, "n" * 100
            os.chdir(p.where)
            for _ in range(depth):
                os.mkdir(name)
                os.chdir(name)
            with open("file", "wb") as f:
                f.write(b"deep")
            equal(os.stat("file").st_size, 4, "size")
            os.unlink("file")
            for _ in range(depth):
                os.chdir("..")
                os.rmdir(name)
            return os.listdir(p.where)
        equal(child(work), [], "left")


@suite.test
def names_of_all_kinds():
    with Pair() as p:
        names = [b"x" * 255, b"\xff\xfe", b"new\nline", b"tab\t", b" ", b"...", b"-rf", "\u00e4\u20ac\U0001f600".encode()]

        def work():
            for i, name in enumerate(names):
                with open(os.path.join(os.fsencode(p.where), name), "wb") as f:
                    f.write(b"%d" % i)
            equal(sorted(os.listdir(os.fsencode(p.where))), sorted(names), "names")
            for i, name in enumerate(names):
                with open(os.path.join(os.fsencode(p.where), name), "rb") as f:
                    equal(f.read(), b"%d" % i, str(name))
            equal(outcome(os.stat, p.mount.path("y" * 256)), "ENAMETOOLONG", "256 bytes")
        child(work)
        equal(sorted(os.listdir(os.fsencode(p.beneath))), sorted(names), "names beneath")
