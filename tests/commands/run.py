#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The commands of p9 against p9d: what they print, what they copy, and what they do when it goes wrong.

usage: tests/commands/run.py [--p9d PROGRAM] [--p9 PROGRAM] [--only TEXT]
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common  # noqa: E402
from suite import ROOT  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--p9d", default=os.path.join(ROOT, "build", "p9d"))
    parser.add_argument("--p9", default=os.path.join(ROOT, "build", "p9"))
    parser.add_argument("--only", default="", help="tests with this in their name")
    args = parser.parse_args()
    common.start(os.path.abspath(args.p9d), os.path.abspath(args.p9))
    import t_look  # noqa: F401 pylint: disable=import-outside-toplevel,unused-import
    import t_copy  # noqa: F401 pylint: disable=import-outside-toplevel,unused-import
    import t_wrong  # noqa: F401 pylint: disable=import-outside-toplevel,unused-import
    import t_lock  # noqa: F401 pylint: disable=import-outside-toplevel,unused-import
    try:
        code = common.suite.run(args.only)
    finally:
        common.stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
