#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Enforces who may include whom below src/ and guest/, by reading the #include lines. Prints every edge that is not allowed.

A directory may include itself, what its row allows, include/p9 and the descriptions in proto/. Control flows from left
to right through the tree (ARCHITECTURE.md); an include against it is a layer that leaks.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# directory of src/ (or guest/, beside it) -> directories it may include
ALLOWED = {
    "wire": "",
    "engine": "wire",
    "vfs": "engine wire",
    "virtio": "",
    "guest": "engine virtio",
    "guest/demo": "guest engine virtio",
    "base": "",
    "front": "virtio base wire",
    "client": "front engine base wire",
    "server": "wire base",
    "transport": "base virtio",
    "backend": "base",
    "p9d": "server transport backend base wire",
    "p9": "client front mount base engine wire",
    "mount": "base",
}
# Within these, parts never include each other; a part is a subdirectory or a file's stem. What stands here is common
# to all parts of the directory.
PARTS = {
    "transport": ("stream", "transport"),
    "backend": ("backend", "ops", "defaults"),
}
# Built without a C library: only what every compiler brings, and string.h for memcpy and friends.
FREESTANDING = ("wire", "engine", "vfs", "virtio", "guest", "guest/demo")
FREESTANDING_HEADERS = ("stdbool.h", "stddef.h", "stdint.h", "stdarg.h", "limits.h", "string.h")
# A connection is one loop's; threads and locks are made only here. The client has one thread when asked (p9_client_thread).
THREADED = ("base", "backend", "client", "p9d")
THREAD_HEADERS = ("pthread.h", "threads.h", "stdatomic.h")


def includes(path):
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            m = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
            if m:
                yield number, m.group(1) == "<", m.group(2)


def directory_of(path):
    """The row that a path belongs to; paths are below src/, or begin with guest/."""
    return "guest/demo" if path.startswith("guest/demo/") else path.split("/")[0]


def full_path(path):
    return os.path.join(ROOT, path if path.startswith("guest/") else "src/" + path)


def part_of(directory, path):
    """The part of transport/ or backend/ that a path below src/ belongs to, or None when it is common to all."""
    rest = path.split("/")[1:]
    part = rest[0] if len(rest) > 1 else re.sub(r"\.\w+$", "", rest[0])
    return None if part in PARTS[directory] else part


def judge_system(directory, target):
    if directory in FREESTANDING and target not in FREESTANDING_HEADERS:
        return f"{directory} is freestanding: <{target}> is not for it"
    if target in THREAD_HEADERS and directory not in THREADED:
        return f"<{target}> is for {', '.join(THREADED)} only"
    return None


def judge(path, target):
    """Why path (below src/) must not include target (as written between quotes), or None."""
    directory = directory_of(path)
    if target.endswith(".def") and "/" not in target:
        return None
    if target.startswith("p9/") and os.path.exists(os.path.join(ROOT, "include", target)) or target == "p9/messages.h":
        return None
    beside = os.path.normpath(os.path.join(os.path.dirname(path), target))
    full = beside if os.path.exists(full_path(beside)) else target
    if not os.path.exists(full_path(full)):
        return f"\"{target}\" is neither in src/ nor in include/p9"
    other = directory_of(full)
    if other != directory and other not in ALLOWED[directory].split():
        return f"{directory} -> {other} ({target}) is not allowed; {directory}: {ALLOWED[directory] or '(nothing)'}"
    if other == directory and directory in PARTS:
        mine, theirs = part_of(directory, path), part_of(directory, full)
        if mine and theirs and mine != theirs:
            return f"{directory}/{mine} -> {directory}/{theirs} ({target}): parts of {directory} do not know each other"
    return None


def main():
    files = edges = bad = 0
    src = os.path.join(ROOT, "src")
    for where, _, names in (*os.walk(src), *os.walk(os.path.join(ROOT, "guest"))):
        for name in sorted(names):
            path = os.path.relpath(os.path.join(where, name), src)
            path = path[3:] if path.startswith("../") else path
            directory = directory_of(path)
            if not name.endswith((".c", ".h")):
                continue
            files += 1
            if directory not in ALLOWED:
                print(f"{path}: no row for {directory} in tools/layers.py")
                bad += 1
                continue
            for number, system, target in includes(full_path(path)):
                edges += 1
                why = judge_system(directory, target) if system else judge(path, target)
                if why:
                    print(f"{os.path.relpath(full_path(path), ROOT)}:{number}: {why}")
                    bad += 1
    print(f"layers: {files} files, {edges} includes, {bad} not allowed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
