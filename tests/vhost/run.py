#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Tests of p9d's vhost-user device with a front-end of our own (frontend.py): no VM, no kernel module.

usage: tests/vhost/run.py [--p9d PATH] [--only TEXT] [--list]
  --only    tests whose name contains TEXT; several with commas

Each test starts servers of its own. What the kernel lacks is skipped, with the reason; not being root is an error.
"""
import argparse
import importlib
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "system")]
sys.dont_write_bytecode = True
import common  # noqa: E402

SUITES = ("messages", "rings", "memory", "session", "options", "hostile")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p9d", default=os.path.join(common.lib.ROOT, "build", "p9d"))
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("vhost: needs root: it mounts, and acts as other users")
    common.P9D, common.suite.name = os.path.abspath(args.p9d), "vhost"
    if not os.access(common.P9D, os.X_OK):
        sys.exit(f"vhost: {common.P9D} is not there")
    for name in SUITES:
        importlib.import_module("v_" + name)
    if args.only:
        words = args.only.split(",")
        common.suite.tests = [t for t in common.suite.tests if any(w in t[0] for w in words)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if args.list:
        print("\n".join(name for name, _ in common.suite.tests))
        return 0
    return common.suite.run()


if __name__ == "__main__":
    sys.exit(main())
