#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Compares the C files with what clang-format makes of them (.clang-format, version 14); --fix rewrites them.

Macros are left as they are written: those that expand a .def open and close braces that clang-format cannot pair.
Lists that read better in rows of one's own can stand between /* clang-format off */ and /* clang-format on */.
usage: tools/format.py [--fix] [FILE...]
"""
import concurrent.futures
import difflib
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIRS = ("src", "include", "guest", "tests", "fuzz", "bench", "tools")
# file -> why it is left out
EXCLUDED = {}
OFF, ON = "// clang-format off", "// clang-format on"  # ours; those of the files are /* */


def find_tool():
    for name in ("clang-format-14", "clang-format"):
        if shutil.which(name):
            return name
    sys.exit("format: clang-format-14 is not installed (tools/deps.sh check)")


def files():
    for top in DIRS:
        for where, _, names in os.walk(os.path.join(ROOT, top)):
            for name in sorted(names):
                path = os.path.relpath(os.path.join(where, name), ROOT)
                if name.endswith((".c", ".h")) and path not in EXCLUDED:
                    yield path


def shield(text):
    """Puts every #define between marks that make clang-format skip it."""
    out, inside, off = [], False, False
    for line in text.splitlines():
        if "/* clang-format o" in line:
            off = "/* clang-format off" in line
        starts = not inside and not off and re.match(r"\s*#\s*define\b", line)
        if starts:
            out.append(OFF)
            inside = True
        out.append(line)
        if inside and not line.endswith("\\"):
            out.append(ON)
            inside = False
    return "\n".join(out) + "\n"


def unshield(text):
    return "".join(line for line in text.splitlines(True) if line.strip() not in (OFF, ON))


def formatted(tool, path, text):
    got = subprocess.run([tool, "--assume-filename=" + path], input=shield(text), text=True, cwd=ROOT,
                         stdout=subprocess.PIPE, check=True)
    return unshield(got.stdout)


def main():
    args = sys.argv[1:]
    fix = "--fix" in args
    names = [os.path.relpath(os.path.abspath(a), ROOT) for a in args if not a.startswith("-")]
    tool, good, bad = find_tool(), 0, 0

    def compare(path):
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            text = f.read()
        return path, text, formatted(tool, path, text)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compare, names or files()))
    for path, text, want in results:
        if want == text:
            good += 1
            continue
        if fix:
            with open(os.path.join(ROOT, path), "w", encoding="utf-8") as f:
                f.write(want)
            print(f"format: {path}: rewritten")
            good += 1
            continue
        bad += 1
        diff = difflib.unified_diff(text.splitlines(), want.splitlines(), path, path + " (formatted)", lineterm="", n=1)
        print("\n".join(list(diff)[:40]))
    print(f"format: {good} files clean, {bad} not" + (" (tools/format.py --fix rewrites them)" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
