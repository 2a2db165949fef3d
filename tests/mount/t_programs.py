# SPDX-License-Identifier: BSD-2-Clause
"""Programs that people run on a file system, and those that were written to torment one."""

import io
import os
import shutil
import sqlite3

import tarfile
import time

import rig
from rig import USER, Child, Pair, Skip, check, child, equal, fresh, program, size, suite


def needs(name):
    path = shutil.which(name)
    if not path:
        raise Skip(f"{name} is not installed (tools/deps.sh check)")
    return path


# ---- fio ----

def fio(where, mib, direct, mapped):
    base = [needs("fio"), f"--directory={where}", "--fallocate=none", "--verify_state_save=0", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
            "--randrepeat=1", "--minimal"]
    program(*base, "--name=random4k", "--rw=randwrite", "--bs=4k", f"--size={mib}m", "--fsync=64")
    program(*base, "--name=odd", "--rw=randwrite", "--bs=13k", f"--size={mib}m")
    program(*base, "--name=large", "--rw=write", "--bs=1m", f"--size={4 * mib}m", "--end_fsync=1")
    program(*base, "--name=mixed", "--rw=randrw", "--bs=16k", f"--size={mib}m", "--numjobs=2")
    if direct:
        program(*base, "--name=direct", "--rw=randwrite", "--bs=64k", f"--size={mib}m", "--direct=1")
        program(*base, "--name=deep", "--rw=randwrite", "--bs=4k", f"--size={mib}m", "--direct=1", "--ioengine=libaio",
                "--iodepth=16")
    if mapped:
        program(*base, "--name=mapped", "--ioengine=mmap", "--rw=randwrite", "--bs=4k", f"--size={mib}m")


@suite.test
def fio_with_verify_cache_none():
    with Pair("cache=none") as p:
        fio(p.where, size(2, 8, 128), True, False)


@suite.test
def fio_with_verify():
    with Pair() as p:
        fio(p.where, size(2, 8, 128), True, True)


@suite.test
def fio_with_verify_writeback():
    with Pair("cache=loose,writeback") as p:
        fio(p.where, size(2, 8, 128), False, True)


# ---- bonnie++, dbench, stress-ng ----

@suite.test
def bonnie():
    with Pair("", user=USER) as p:
        megabytes = size(32, 64, 1024)
        program(needs("bonnie++"), "-d", p.where, "-r", megabytes // 2, "-s", f"{megabytes}:64k", "-n", "1", "-f", "-q", "-m",
                "mount", seconds=300, user=USER)


@suite.test
def dbench():
    needs("dbench")
    with Pair() as p:
        out = program("dbench", "-D", p.where, "-t", size(2, 4, 60), "-c", "/usr/share/dbench/client.txt", "3", seconds=180)
        out = out.replace("failed to create barrier semaphore", "")  # where there is no System V IPC; it does without
        check("Throughput" in out and "failed" not in out.lower(), out[-2000:])


# Those of the kernel's client (tests/guest/stress.sh), in groups that run side by side.
STRESSORS = (
    ("access", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dup", "fallocate"),
    ("fcntl", "filename", "flock", "fstat", "getdent", "hdd", "link", "lockf", "locka"),
    ("lockofd", "mknod", "open", "rename", "seek", "symlink", "touch", "unlink", "utime", "xattr",
     "sync-file"),
)


def stress(options, group):
    """Status 3 and 4: a stressor found that it can do nothing here (no fallocate, ...). Anything wrong is 2."""
    known = program(needs("stress-ng"), "--stressors").split()
    with Pair(options) as p:
        args = []
        for name in [n for n in group if n in known]:
            args += [f"--{name}", "1", f"--{name}-ops", str(size(50, 400, 100000))]
        out = program(needs("stress-ng"), "--temp-path", p.where, "--verify", "--timeout", size(3, 8, 120), *args, seconds=240,
                      codes=(0, 3, 4))
        bad = [line for line in out.splitlines() if "fail:" in line or "unexpected" in line]
        check(not bad, "\n".join(bad[:12]))
        left = child(lambda: os.listdir(p.where))
        check(not left, f"it left behind: {left}")


def add_stress(number, options):
    def test():
        stress(options, STRESSORS[number])
    test.__name__ = f"stress-ng {number + 1} of {len(STRESSORS)}" + (f", {options}" if options else "")
    suite.test(test)


for group in range(len(STRESSORS)):
    add_stress(group, "")
add_stress(0, "cache=none")


@suite.test
def stress_ng_mappings():
    with Pair() as p:
        out = program(needs("stress-ng"), "--temp-path", p.where, "--verify", "--timeout", size(2, 5, 60), "--mmap", "1",
                      "--mmap-file", "--mmap-bytes", "8m", "--mmap-ops", "200", "--msync", "1", "--msync-bytes", "8m",
                      "--msync-ops", "2000", seconds=120, codes=(0, 3, 4))
        bad = [line for line in out.splitlines() if "fail:" in line]
        check(not bad, "\n".join(bad[:12]))


# ---- git and make ----

def make_project(top, modules=12):
    """A C project whose program adds up what its modules return."""
    os.makedirs(os.path.join(top, "src"))
    with open(os.path.join(top, "src", "all.h"), "w", encoding="ascii") as f:
        f.writelines(f"long module_{i}(long);\n" for i in range(modules))
    for i in range(modules):
        with open(os.path.join(top, "src", f"module_{i}.c"), "w", encoding="ascii") as f:
            f.write(f'#include <string.h>\n#include "all.h"\nstatic char pad[{1000 * i + 10}];\n'
                    f"long module_{i}(long n)\n{{\n\tmemset(pad, {i}, sizeof pad);\n"
                    f"\treturn pad[sizeof pad - 1] + n * {i};\n}}\n")
    calls = " + ".join(f"module_{i}(2)" for i in range(modules))
    with open(os.path.join(top, "src", "main.c"), "w", encoding="ascii") as f:
        f.write(f'#include <stdio.h>\n#include "all.h"\nint main(void)\n{{\n\tprintf("%ld\\n", {calls});\n\treturn 0;\n}}\n')
    with open(os.path.join(top, "Makefile"), "w", encoding="ascii") as f:
        f.write("objects = $(patsubst %.c,%.o,$(wildcard src/*.c))\nprogram: $(objects)\n\t$(CC) -o $@ $^\n"
                "%.o: %.c src/all.h\n\t$(CC) -O1 -c -o $@ $<\nclean:\n\trm -f program $(objects)\n")
    return sum(3 * i for i in range(modules))


def git(where, *args, **more):
    return program("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "core.fsync=none", "-c", "gc.auto=0", *args,
                   cwd=where, env={"HOME": rig.TOP, "GIT_CONFIG_NOSYSTEM": "1"}, **more)


def git_and_make(options):
    needs("git")
    source = fresh("project")
    total = make_project(source)
    git(source, "init", "-q", "-b", "main")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "all")
    with Pair(options) as p:
        git(p.where, "clone", "-q", "--no-hardlinks", source, "work")
        work = p.mount.path("work")
        equal(git(work, "status", "--porcelain"), "", "git status of a fresh clone")
        program("make", "-s", "-j2", cwd=work)
        equal(program("./program", cwd=work).strip(), str(total), "what the program says")
        check("is up to date" in program("make", cwd=work), "make builds again what is built")
        program("sh", "-c", "echo >> src/module_3.c", cwd=work)
        check("module_3.c" in git(work, "status", "--porcelain", "-uno"), "git does not see a change")
        check("module_3" in program("make", cwd=work), "make does not see a change")
        git(work, "checkout", "-q", "src/module_3.c")
        program("make", "-s", "clean", cwd=work)
        equal(git(work, "status", "--porcelain"), "", "git status in the end")
        git(work, "gc", "-q", "--aggressive")
        check("error" not in git(work, "fsck", "--full"), "git fsck")
        program("rm", "-r", work)
        equal(os.listdir(p.beneath), [], "left beneath")


@suite.test
def git_clone_status_make():
    git_and_make("")


@suite.test
def git_clone_status_make_cache_none():
    git_and_make("cache=none")


# ---- sqlite ----

def sqlite_writer(path, who, n, journal):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    equal(db.execute(f"pragma journal_mode={journal}").fetchone()[0], journal, "journal mode")
    db.execute("pragma synchronous=normal")
    for i in range(n):
        while True:
            try:
                db.execute("begin immediate")
                break
            except sqlite3.OperationalError as e:
                check("locked" in str(e) or "busy" in str(e), str(e))
        count = db.execute("select n from counter").fetchone()[0]
        db.execute("insert into t values (?, ?, ?)", (who, i, os.urandom(300).hex()))
        db.execute("update counter set n = ?", (count + 1,))
        db.execute("rollback" if i % 10 == 9 else "commit")
    db.close()


def sqlite_two(options, journal, n):
    with Pair(options) as p:
        path = p.mount.path("db")

        def begin():
            db = sqlite3.connect(path)
            db.execute(f"pragma journal_mode={journal}")
            db.execute("create table t (who int, i int, x text, primary key (who, i))")
            db.execute("create table counter (n int)")
            db.execute("insert into counter values (0)")
            db.commit()
            db.close()

        def end():
            db = sqlite3.connect(path)
            return (db.execute("pragma integrity_check").fetchone()[0], db.execute("select count(*) from t").fetchone()[0],
                    db.execute("select n from counter").fetchone()[0])
        child(begin)
        writers = [Child(lambda w=w: sqlite_writer(path, w, n, journal)) for w in range(2)]
        for w in writers:
            w.result(180)
        kept = 2 * (n - n // 10)
        equal(child(end), ("ok", kept, kept), "integrity, rows, counter")
        # What the server's host has is whole, too.
        db = sqlite3.connect(os.path.join(p.beneath, "db"))
        equal(db.execute("pragma integrity_check").fetchone()[0], "ok", "integrity beneath")
        db.close()


def add_sqlite(journal, options):
    def test():
        sqlite_two(options, journal, size(30, 150, 5000))
    test.__name__ = f"sqlite, two writers, journal_mode={journal}" + (f", {options}" if options else "")
    suite.test(test)


add_sqlite("delete", "")
add_sqlite("wal", "")
add_sqlite("delete", "cache=none")
add_sqlite("wal", "cache=loose")


# ---- tar ----

def make_archive(path, n):
    """n files in directories of 100, every tenth a symbolic or a hard link; modes and times of all kinds."""
    data = os.urandom(20000)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for d in range((n + 99) // 100):
            info = tarfile.TarInfo(f"tree/d{d % 10}/d{d}")
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1000000000 + d
            tar.addfile(info)
            for i in range(min(100, n - 100 * d)):
                info = tarfile.TarInfo(f"tree/d{d % 10}/d{d}/file-{i}")
                info.mode, info.mtime = (0o644, 0o600, 0o755, 0o444)[i % 4], 900000000 + 1000 * d + i
                if i % 20 == 18:
                    info.type, info.linkname = tarfile.SYMTYPE, f"file-{i - 1}"
                elif i % 20 == 19:
                    info.type, info.linkname = tarfile.LNKTYPE, f"tree/d{d % 10}/d{d}/file-{i - 2}"
                    info.mode, info.mtime = (0o644, 0o600, 0o755, 0o444)[(i - 2) % 4], 900000000 + 1000 * d + i - 2
                else:
                    info.size = (d * 100 + i) * 37 % 9000
                tar.addfile(info, io.BytesIO(data[i:i + info.size]))


def unpack(options, n):
    archive = os.path.join(fresh("tar"), "a.tar")
    make_archive(archive, n)
    with Pair(options) as p:
        began = time.monotonic()
        program("tar", "-xf", archive, "-C", p.where, seconds=200)
        wrote = time.monotonic()
        program("tar", "-xf", archive, "-C", p.local)
        program("diff", "-r", "--no-dereference", p.local, p.where, seconds=200)
        read = time.monotonic()
        program("tar", "-df", archive, "-C", p.where, seconds=200)
        program("diff", "-r", "--no-dereference", p.local, p.beneath)
        print(f"    {n} files: tar -x {wrote - began:.1f} s, diff -r {read - wrote:.1f} s")
        program("rm", "-rf", p.mount.path("tree"), seconds=200)
        equal(os.listdir(p.beneath), [], "left beneath")
    shutil.rmtree(os.path.dirname(archive))


@suite.test
def tar_of_20000_files_and_diff():
    unpack("", size(2000, 20000, 100000))


@suite.test
def tar_and_diff_cache_none():
    unpack("cache=none", size(500, 1500, 20000))
