# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the commands share: one p9d, its tree, and how a p9 is run."""
import os
import subprocess

import suite as lib
from suite import Server, Skip, check, equal, until  # noqa: F401

suite = lib.Suite("commands")
TOP = suite.directory
SHARE = os.path.join(TOP, "share")
SOCKET = os.path.join(TOP, "s")
ADDRESS = f"unix:{SOCKET}"
state = {"p9": None, "p9d": None, "server": None, "count": 0}


def start(p9d, p9):
    os.mkdir(SHARE)
    state.update(p9=p9, p9d=p9d)
    state["server"] = Server([p9d, "-l", ADDRESS, "--socket-mode", "0666", "-e", SHARE + ",dev,xattr=all"], [SOCKET], TOP)


def stop():
    server = state["server"]
    if server and server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def fresh(name="d"):
    """A new directory here."""
    state["count"] += 1
    path = os.path.join(TOP, f"{name}{state['count']}")
    os.mkdir(path)
    return path


def shared(name="e"):
    """A new directory on the server: its path there, and here."""
    state["count"] += 1
    name = f"{name}{state['count']}"
    os.mkdir(os.path.join(SHARE, name))
    return "/" + name, os.path.join(SHARE, name)


def p9(*arguments, address=ADDRESS, code=0, env=None, timeout=60, cwd=None, user=None):
    """Runs p9; raises unless it exits with `code` (None: any). Returns (stdout, stderr) as bytes."""
    got = subprocess.run([state["p9"], "-s", address, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, timeout=timeout, check=False, env={**os.environ, **(env or {})}, cwd=cwd,
                         **({"user": user, "group": user, "extra_groups": []} if user else {}))
    if code is not None and got.returncode != code:
        raise AssertionError(f"p9 {' '.join(map(str, arguments))}: exit code {got.returncode}, want {code}: "
                             f"{got.stderr.decode(errors='replace')[-1500:]}")
    return got.stdout, got.stderr


def spawn(*arguments, address=ADDRESS, **options):
    return subprocess.Popen([state["p9"], "-s", address, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


def lines(raw):
    return raw.decode(errors="surrogateescape").splitlines()


def write(path, data=b"", mode=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)
    if mode is not None:
        os.chmod(path, mode)
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


def pattern(n, seed=1):
    """Bytes without a period that a lost chunk could hide in."""
    return b"".join((i * 2654435761 + seed).to_bytes(8, "little") for i in range(n // 8 + 1))[:n]


def one_error(err, *parts):
    """One line of complaint, with these in it."""
    text = lines(err)
    check(len(text) == 1, "not one line:", text)
    for part in parts:
        check(part in text[0], f"no {part!r} in", text)
