#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures a mount: p9 mount (p9d behind a Unix socket), Debian's sshfs (an sshd of our own on loopback) and bindfs (FUSE
without any protocol), each with its defaults, on the same directories; writes the table into BENCHMARKING.md.

A round goes through the rows; in a row the three take turns. Each measurement begins with a fresh mount, so that nothing is
cached but by the host beneath. The table has medians of the rounds; ratios are taken within a round.

usage: bench/mount.py [--only ROW] [--rounds N] [--quick] [--no-write] [--p9-options LIST] [--cpu]
"""
import argparse
import contextlib
import os
import pwd
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import fixture

FILES, DIRS, SMALL, BIG, READS, AGAIN = 5000, 50, 4096, 512 << 20, 8192, 10
AGAINST_SSHFS, AGAINST_BINDFS = 1.0, 1.5
NAMES = ("p9 mount", "sshfs", "bindfs")


# ---- what is measured; each takes the mounted directory and returns nothing ----

def tree_paths(top):
    return [os.path.join(top, "tree", f"d{i % DIRS}", f"file-{i}") for i in range(FILES)]


def stat_all(top):
    for path in tree_paths(top):
        os.stat(path)


def stat_again(top):
    for _ in range(AGAIN):
        stat_all(top)


def ls(top):
    subprocess.run(["ls", "-lR", os.path.join(top, "tree")], stdout=subprocess.DEVNULL, check=True)


def create_unlink(top):
    for i in range(FILES // 2):
        os.close(os.open(os.path.join(top, f"new-{i}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    for i in range(FILES // 2):
        os.unlink(os.path.join(top, f"new-{i}"))


def make_names(top):
    for i in range(FILES // 2):
        os.close(os.open(os.path.join(top, f"old-{i}"), os.O_CREAT | os.O_WRONLY, 0o644))


def rename(top):
    for i in range(FILES // 2):
        os.rename(os.path.join(top, f"old-{i}"), os.path.join(top, f"moved-{i}"))


def write_small(top):
    data = b"x" * SMALL
    for i in range(FILES):
        fd = os.open(os.path.join(top, f"small-{i}"), os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, data)
        os.close(fd)


def read_small(top):
    for path in tree_paths(top):
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, SMALL + 1)
        os.close(fd)


def write_big(top):
    data = b"y" * (1 << 20)
    fd = os.open(os.path.join(top, "big-new"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    for _ in range(BIG >> 20):
        os.write(fd, data)
    os.close(fd)


def read_big(top):
    fd = os.open(os.path.join(top, "big"), os.O_RDONLY)
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)


def read_random(top):
    fd = os.open(os.path.join(top, "big"), os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    draw = random.Random(1)
    for _ in range(READS):
        os.pread(fd, 4096, draw.randrange(BIG >> 12) << 12)
    os.close(fd)


def git_status(top):
    done = subprocess.run(["git", "-c", "safe.directory=*", "status", "--porcelain"], cwd=os.path.join(top, "git"), check=True,
                          stdout=subprocess.PIPE, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"})
    if done.stdout.strip():
        raise SystemExit(f"bench: git status finds changes: {done.stdout[:200]}")


class Row:
    """memory: on a tmpfs, where the disk's journal would be most of what is measured. before: not timed, on the mount;
    amount: operations or bytes, for the figure that is shown. kernel: answered by the kernel alone, without a request to any
    of the three, so that it has no targets."""

    def __init__(self, name, run, amount, unit, memory=False, before=None, kernel=False):
        self.name, self.run, self.amount, self.unit, self.kernel = name, run, amount, unit, kernel
        self.memory, self.before = memory, before
        self.times = {n: [] for n in NAMES}
        self.cpu = {n: [] for n in NAMES}
        self.failed = set()


ROWS = [
    Row("stat of 5,000 files, nothing cached", stat_all, FILES, "/s"),
    Row("the same again, ten times", stat_again, FILES * AGAIN, "/s", before=stat_all, kernel=True),
    Row("ls -lR of 5,000 files", ls, FILES, "/s"),
    Row("create and unlink of empty files", create_unlink, FILES // 2, "/s", True),
    Row("rename", rename, FILES // 2, "/s", True, before=make_names),
    Row("write of 5,000 files of 4 KiB", write_small, FILES, "/s", True),
    Row("read of 5,000 files of 4 KiB", read_small, FILES, "/s"),
    Row("write of 512 MiB", write_big, BIG, "MB/s", True),
    Row("read of 512 MiB", read_big, BIG, "MB/s"),
    Row("read of 4 KiB anywhere", read_random, READS, "/s"),
    Row("git status of 5,000 files", git_status, 1, " runs/s"),
]


# ---- the three ----

class Mounts:
    """How each of the three is mounted. Mounting is not measured."""

    def __init__(self, opt, run):
        self.opt, self.run, self.process = opt, run, None
        self.where = os.path.join(run, "mnt")
        os.mkdir(self.where)
        self.p9d = self.sshd = None

    def start_p9d(self, disk, memory):
        sock = os.path.join(self.run, "s")
        self.p9d = fixture.Server("p9d", [self.opt.p9d, "-l", f"unix:{sock}", "-e", f"disk={disk}", "-e", f"memory={memory}",
                                          "--log", "error"], [f"unix:{sock}"], "disk", os.path.join(self.run, "p9d.log"))

    def start_sshd(self):
        """An sshd for this user alone, with keys made for it."""
        d = os.path.join(self.run, "ssh")
        os.mkdir(d, 0o700)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(d, key)], check=True)
        shutil.copy(os.path.join(d, "user.pub"), os.path.join(d, "authorized"))
        self.port = fixture.free_port()
        with open(os.path.join(d, "config"), "w", encoding="ascii") as f:
            f.write(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized\n"
                    "PasswordAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
                    f"PidFile none\nSubsystem sftp {self.sftp_server()}\n")
        with contextlib.suppress(OSError):
            os.makedirs("/run/sshd", exist_ok=True)
        self.sshd = subprocess.Popen([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", os.path.join(d, "config")],
                                     stdin=subprocess.DEVNULL, stderr=open(os.path.join(d, "log"), "wb"))
        self.ssh = ["-p", str(self.port), "-o", f"IdentityFile={d}/user", "-o", "StrictHostKeyChecking=no", "-o",
                    "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]

    @staticmethod
    def sftp_server():
        for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"):
            if os.path.exists(path):
                return path
        return "internal-sftp"

    def command(self, name, directory, aname):
        if name == "p9 mount":
            options = ["-o", self.opt.p9_options] if self.opt.p9_options else []
            return [self.opt.p9, "-s", self.p9d.addrs[0], "-a", aname, "mount", "-f", *options, self.where]
        if name == "sshfs":
            user = pwd.getpwuid(os.geteuid()).pw_name
            return ["sshfs", "-f", *self.ssh, f"{user}@127.0.0.1:{directory}", self.where]
        return ["bindfs", "-f", directory, self.where]

    def mount(self, name, directory, aname):
        with open(os.path.join(self.run, "mount.log"), "wb") as log:
            self.process = subprocess.Popen(self.command(name, directory, aname), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        end = time.monotonic() + 15
        while not os.path.ismount(self.where):
            if self.process.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.run, "mount.log"), errors="replace") as f:
                    raise SystemExit(f"bench: {name} does not mount: {f.read()[-1000:]}")
            time.sleep(0.01)
        os.listdir(self.where)

    def umount(self):
        for _ in range(100):
            if subprocess.run(["fusermount3", "-u", self.where], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        if os.path.ismount(self.where):
            subprocess.run(["fusermount3", "-u", "-z", self.where], check=False)
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.p9d:
            self.p9d.stop()
        if self.sshd:
            self.sshd.send_signal(signal.SIGTERM)
            self.sshd.wait()


def measure(mounts, row, name, directories):
    """One row, once, with one of the three: seconds, and the CPU time that the machine spent on it."""
    directory = directories[row.memory]
    mounts.mount(name, directory, "memory" if row.memory else "disk")
    try:
        if row.before:
            row.before(mounts.where)
        busy, began = fixture.busy_seconds(), time.monotonic()
        row.run(mounts.where)
        took = time.monotonic() - began
        cpu = fixture.busy_seconds() - busy
    except OSError as e:
        row.failed.add(f"{name}: {row.name}: {e}")
        took = cpu = None
    finally:
        mounts.umount()
    if row.memory:
        for entry in os.listdir(directory):
            os.unlink(os.path.join(directory, entry))
    row.times[name].append(took)
    row.cpu[name].append(cpu)


# ---- figures ----

def ratio(row, one, other):
    values = [a / b for a, b in zip(row.times[one], row.times[other]) if a and b]
    return statistics.median(values) if values else None


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def rate(row, name):
    t = median(row.times[name])
    if not t:
        return "failed"
    value = row.amount / t
    return f"{value / 1e6:,.0f} MB/s" if row.unit == "MB/s" else f"{value:,.{0 if value >= 100 else 1}f}{row.unit}"


def verdict(row):
    faster, slower = ratio(row, "sshfs", "p9 mount"), ratio(row, "p9 mount", "bindfs")
    if row.failed or faster is None or slower is None:
        return faster, slower, "failed"
    if row.kernel:
        return faster, slower, "the kernel alone"
    return faster, slower, "PASS" if faster >= AGAINST_SSHFS and slower <= AGAINST_BINDFS else "miss"


def make_table(rows, with_cpu=False):
    head = ["workload", *NAMES, "p9 mount is faster than sshfs", "target", "time against bindfs", "target", "result"]
    if with_cpu:
        head += [f"CPU s {n}" for n in NAMES]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        faster, slower, result = verdict(row)
        show = lambda v: f"{v:.2f}×" if v is not None else ""
        cells = [row.name + (" (tmpfs)" if row.memory else ""), *(rate(row, n) for n in NAMES), show(faster), "" if row.kernel else f"≥ {AGAINST_SSHFS:g}",
                 show(slower), "" if row.kernel else f"≤ {AGAINST_BINDFS:g}", result]
        if with_cpu:
            cells += [f"{median(row.cpu[n]):.2f}" if median(row.cpu[n]) is not None else "" for n in NAMES]
        lines.append("| " + " | ".join(cells) + " |")
        lines += [f"<!-- {text} -->" for text in sorted(row.failed)]
    return "\n".join(lines)


def make_files(disk):
    for d in range(DIRS):
        os.makedirs(os.path.join(disk, "tree", f"d{d}"))
    data = os.urandom(SMALL)
    for path in tree_paths(disk):
        with open(path, "wb") as f:
            f.write(data)
    with open(os.path.join(disk, "big"), "wb") as f:
        for _ in range(BIG >> 20):
            f.write(os.urandom(1 << 16) * 16)
    git = os.path.join(disk, "git")
    shutil.copytree(os.path.join(disk, "tree"), os.path.join(git, "tree"))
    for args in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-c", "core.fsync=none", *args], cwd=git, check=True)
    os.sync()
    for where, _, names in os.walk(disk):  # all of it into the host's cache
        for name in names:
            with open(os.path.join(where, name), "rb") as f:
                while f.read(1 << 20):
                    pass
    time.sleep(1.1)  # so that git need not look into files that are as new as its index
    subprocess.run(["git", "status", "--porcelain"], cwd=git, check=True, stdout=subprocess.DEVNULL)


def parse_args():
    p = argparse.ArgumentParser(prog="bench/mount.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    fixture.add_options(p)
    p.add_argument("--memory-dir", default=fixture.memory_dir(), metavar="DIR", help="a tmpfs, for the rows that say so")
    p.add_argument("--only", action="append", metavar="TEXT", help="rows whose name contains this (may be given again)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--p9-options", default="", metavar="LIST", help="for p9 mount -o; a table with some is not written")
    p.add_argument("--without", action="append", default=[], metavar="NAME", help="leave sshfs or bindfs out")
    p.add_argument("--cpu", action="store_true", help="show the machine's CPU time, too")
    p.add_argument("--no-write", action="store_true", help="leave BENCHMARKING.md as it is")
    opt = p.parse_args()
    opt.rows = [r for r in ROWS if not opt.only or any(w in r.name for w in opt.only)]
    if opt.quick:
        opt.rounds, opt.no_write = 1, True
    if not opt.rows:
        p.error("--only: no such row")
    return opt


def main():
    opt = parse_args()
    if not os.path.exists("/dev/fuse"):
        print("bench: mount: no /dev/fuse, nothing is measured")
        return 1 if opt.strict else 0
    names = [n for n in NAMES if n not in opt.without]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with fixture.Scratch(opt.memory_dir) as memory, fixture.Scratch(opt.dir) as disk, fixture.Scratch() as run:
        make_files(disk)
        mounts = Mounts(opt, run)
        try:
            mounts.start_p9d(disk, memory)
            if "sshfs" in names:
                mounts.start_sshd()
            for turn in range(opt.rounds):
                for row in opt.rows:
                    for name in names[turn % len(names):] + names[:turn % len(names)]:
                        measure(mounts, row, name, {False: disk, True: memory})
                print(f"round {turn + 1} of {opt.rounds}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        finally:
            mounts.stop()
    table = make_table(opt.rows, opt.cpu)
    print(table)
    missed = sum(verdict(r)[2] in ("miss", "failed") for r in opt.rows)
    if not (opt.no_write or opt.only or opt.p9_options or opt.without):
        fixture.write_results("mount", f"Measured {time.strftime('%Y-%m-%d')} on {fixture.machine()}; {opt.rounds} rounds.\n\n"
                              f"{table}\n")
    print(f"bench: mount: {missed} of {len(opt.rows)} rows miss a target" if missed else "bench: mount: every target is met")
    return 1 if missed and opt.strict else 0


if __name__ == "__main__":
    sys.exit(main())
