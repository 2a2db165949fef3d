#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Tests of p9d --takeover: one p9d goes on in the place of another, and clients notice nothing but a pause.

usage: tests/takeover/run.py [--p9d PATH] [--p9 PATH] [--fsx PATH] [--only TEXT] [--slow] [--list]
  --only    tests whose name contains TEXT; several with commas
  --slow    those too that take minutes

Each test starts servers of its own. What the kernel lacks is skipped, with the reason; not being root is an error.
"""
import argparse
import importlib
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "system"), os.path.join(HERE, "..", "vhost")]
sys.dont_write_bytecode = True
import common  # noqa: E402

SUITES = ("state", "device", "fail", "fault", "load")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p9d", default=os.path.join(common.lib.ROOT, "build", "p9d"))
    parser.add_argument("--p9", default=os.path.join(common.lib.ROOT, "build", "p9"))
    parser.add_argument("--only", default="")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("takeover: needs root: it mounts, and acts as other users")
    common.P9D, common.P9, common.SLOW = os.path.abspath(args.p9d), os.path.abspath(args.p9), args.slow
    common.suite.name = "takeover"
    for program in (common.P9D, common.P9):
        if not os.access(program, os.X_OK):
            sys.exit(f"takeover: {program} is not there")
    for name in SUITES:
        importlib.import_module("k_" + name)
    common.suite.tests = [t for t in common.suite.tests if t[0].split()[0] in SUITES]
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
