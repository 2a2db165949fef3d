#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Tests of `p9 mount`, on /dev/fuse: random operations beside a local directory, real programs, and everything that can go
wrong with a server, a network, a program or the mount itself.

usage: tests/mount/run.py [--p9d PATH] [--p9 PATH] [--tools DIR] [--only TEXT,...] [--quick | --full] [--list]
  --only     tests whose name contains one of these
  --quick    small amounts: does it work, roughly
  --full     large ones, for a night
  --tools    where differential and fsx were built (build/tests/mount)
  --instead  COMMAND BENEATH MOUNTPOINT in p9 mount's place, e.g. 'bindfs -f': tests the tests

Needs root. Runs in a mount namespace of its own, so that nothing stays mounted. A machine without /dev/fuse is skipped with
that reason, but is a failure when CI is set in the environment. Last line: "mount: N passed, N failed".
"""
import argparse
import importlib
import os
import signal
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SUITES = ("random", "programs", "limits", "hostile", "faults")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.path.join(ROOT, "build")
    parser.add_argument("--p9d", default=os.path.join(build, "p9d"))
    parser.add_argument("--p9", default=os.path.join(build, "p9"))
    parser.add_argument("--tools", default=os.path.join(build, "tests", "mount"))
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--instead", default="", metavar="COMMAND")
    opt = parser.parse_args()
    opt.exports = {}
    opt.beneath_of = opt.exports.__getitem__
    opt.env = {**os.environ}
    return opt


def no_fuse():
    """Why there is no FUSE here, or None."""
    try:
        mode = os.stat("/dev/fuse").st_mode
        if not stat.S_ISCHR(mode):
            return "/dev/fuse is no device"
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"/dev/fuse: {e.strerror}"
    return None


def own_namespace():
    """Starts again in a mount namespace of its own, with a /dev/fuse that everybody may open, as distributions have it."""
    if os.environ.get("P9_MOUNT_TEST") == "1":
        return
    os.environ["P9_MOUNT_TEST"] = "1"
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])


def leave_others(libc):
    """Lets go of our namespace's copies of others' FUSE mounts: these could not end while we run."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as f:
        others = [line.split()[1] for line in f if line.split()[2].startswith("fuse.")]
    for path in reversed(others):
        libc.umount2(os.fsencode(path.encode().decode("unicode_escape")), 2)  # MNT_DETACH


def open_device(top):
    if os.stat("/dev/fuse").st_mode & 0o006 == 0o006:
        return
    device = os.path.join(top, "fuse")
    os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    os.chmod(device, 0o666)
    subprocess.run(["mount", "--bind", device, "/dev/fuse"], check=True)


def scratch():
    """Files go to memory if there is room: nothing is to wait for a disk here."""
    try:
        s = os.statvfs("/dev/shm")
        if s.f_bavail * s.f_frsize > 2 << 30 and os.access("/dev/shm", os.W_OK):
            os.environ["TMPDIR"] = "/dev/shm"
    except OSError:
        pass


def main():
    opt = parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, HERE)
    sys.stdout.reconfigure(line_buffering=True)
    if not opt.list:
        if os.geteuid() != 0:
            sys.exit("mount: needs root: it acts as other users, and tears mounts down")
        why = no_fuse()
        if why and os.environ.get("CI"):
            print(f"FAILED  FUSE: {why}\nmount: 0 passed, 1 failed")
            return 1
        if why:
            print(f"skip    everything: {why}\nmount: 0 passed, 0 failed, 1 skipped")
            return 0
        own_namespace()
    scratch()
    import rig
    rig.OPT = opt
    rig.common.P9D, rig.common.P9 = os.path.abspath(opt.p9d), os.path.abspath(opt.p9)
    opt.tools = os.path.abspath(opt.tools)
    for name in SUITES:
        if os.path.exists(os.path.join(HERE, f"t_{name}.py")):
            importlib.import_module("t_" + name)
    words, without = opt.only.split(","), [w for w in opt.skip.split(",") if w]
    rig.suite.tests = [t for t in rig.suite.tests if any(w in t[0] for w in words) and not any(w in t[0] for w in without)]
    if opt.list:
        print("\n".join(name for name, _ in rig.suite.tests))
        os.rmdir(rig.TOP)
        return 0
    for path in (rig.common.P9D, rig.common.P9, os.path.join(opt.tools, "differential"), os.path.join(opt.tools, "fsx")):
        if not os.access(path, os.X_OK):
            sys.exit(f"mount: {path} is not there")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers and mounts are cleaned up on the way out
    leave_others(rig.libc)
    open_device(rig.TOP)
    return rig.suite.run()


if __name__ == "__main__":
    sys.exit(main())
