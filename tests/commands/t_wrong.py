# SPDX-License-Identifier: BSD-2-Clause
"""get, put and cp when it goes wrong: errors of single files, full disks, ^C, links that end, servers that lie."""
import os
import signal
import struct
import subprocess
import threading
import time

import common
from common import check, equal, fresh, lines, one_error, p9, pattern, read, shared, spawn, suite, write
from peers import RREAD, TREAD, TWRITE, Liar, Relay
from suite import Server, Skip, until

ROOT_USER = os.geteuid() == 0


def relay(**how):
    path = os.path.join(fresh("r"), "s")
    return Relay(path, common.SOCKET, **how), f"unix:{path}"


@suite.test
def other_files_are_copied():
    """A file that may not be read is one line; everything else comes."""
    if not ROOT_USER:
        raise Skip("root may act as another user")
    remote, local = shared()
    for i in range(20):
        write(f"{local}/t/f{i}", b"x", 0o600 if i in (3, 7) else 0o644)
    os.mkdir(f"{local}/t/closed", 0o700)
    out = fresh()
    os.chmod(out, 0o777)
    _, err = p9("get", "-r", f"{remote}/t", f"{out}/t", code=1, user=65534)
    equal(sorted(line.split(": ")[2] for line in lines(err)), [f"{remote}/t/closed", f"{remote}/t/f3", f"{remote}/t/f7"])
    equal(len([n for n in os.listdir(f"{out}/t") if n.startswith("f")]), 18)
    os.chmod(local, 0o777)
    _, err = p9("cp", "-r", f"{remote}/t", f"{remote}/u", code=1, user=65534)
    equal(len(lines(err)), 3)
    equal(len([n for n in os.listdir(f"{local}/u") if n.startswith("f")]), 18)


@suite.test
def full_disk_here_and_there():
    if not ROOT_USER:
        raise Skip("mounts need root")
    remote, local = shared()
    mounted = f"{local}/small"
    os.mkdir(mounted)
    got = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mounted], check=False, stderr=subprocess.PIPE)
    if got.returncode:
        raise Skip(f"no mount: {got.stderr.decode().strip()}")
    server = Server([common.state["p9d"], "-l", f"unix:{local}/s", mounted], [f"{local}/s"], common.TOP)
    try:
        here = fresh()
        write(f"{here}/t/a", b"a")
        write(f"{here}/t/big", pattern(3 << 20))
        write(f"{here}/t/z", b"z")
        _, err = p9("-q", "1", "put", "-r", f"{here}/t", "/t", address=f"unix:{local}/s", code=1)
        one_error(err, "big", "ENOSPC")
        equal(sorted(os.listdir(f"{mounted}/t")), ["a", "z"])
        subprocess.run(["rm", "-r", f"{mounted}/t"], check=True)
        write(f"{local}/src/a", b"a")
        write(f"{local}/src/big", pattern(3 << 20))
        _, err = p9("-q", "1", "get", "-r", f"{remote}/src", f"{mounted}/got", code=1)
        one_error(err, "big", "ENOSPC")
        equal(sorted(os.listdir(f"{mounted}/got")), ["a"])
    finally:
        server.stop()
        subprocess.run(["umount", "-l", mounted], check=True)


@suite.test
def the_default_socket_is_nobody_elses():
    """In /tmp anybody can make a socket of the name that p9 would look for."""
    user, path = 34, "/tmp/p9-34.sock"
    env = {"XDG_RUNTIME_DIR": "", "P9_SERVER": ""}

    def look():
        return subprocess.run([common.state["p9"], "ls"], user=user, group=user, extra_groups=[], env=env, check=False,
                              stderr=subprocess.PIPE, stdout=subprocess.PIPE, timeout=60)
    if os.geteuid() != 0 or os.path.lexists(path):
        raise Skip("needs root, and that nobody uses it")
    s = Server([common.state["p9d"], "-l", f"unix:{path}", "--socket-mode", "0666", common.SHARE], [path], common.TOP)
    try:
        equal(look().returncode, 0, "root's")
        os.chown(path, 33, 33)
        got = look()
        equal(got.returncode, 3)
        one_error(got.stderr, path, "another user", "-s")
        os.chown(path, user, user)
        equal(look().returncode, 0, "one's own")
    finally:
        s.stop()


def hold_after(n, kind):
    """A judge that lets n messages of a kind through and then waits; and the event that it does."""
    seen, held, gate = [0], threading.Event(), threading.Event()

    def judge(k, frame):
        seen[0] += k == kind
        if k == kind and seen[0] > n:
            held.set()
            gate.wait(120)
        return frame
    return judge, held, gate


def interrupted(command, source, target, copy, data, kind, judge_of):
    judge, held, gate = hold_after(4, kind)
    between, address = relay(**{judge_of: judge})
    p = spawn(command, "--progress", source, target, address=address)
    check(held.wait(60), "nothing came")
    until(lambda: os.path.exists(copy) and os.path.getsize(copy) > 0, 60, "what was let through does not arrive")
    p.send_signal(signal.SIGINT)
    time.sleep(0.1)
    gate.set()
    _, err = p.communicate(timeout=60)
    between.close()
    text = err.decode()
    equal(p.returncode, 1, text)
    check("interrupted" in text, text)
    part = os.path.getsize(copy) if os.path.exists(copy) else 0
    check(0 < part < len(data), f"{part} bytes of it: {text}")
    check("--continue" in text, text)
    p9(command, "--continue", "--check", source, target)
    check(read(copy) == data, "--continue did not complete it")


@suite.test
def interrupted_copies_stay_and_go_on():
    data = pattern(24 << 20)
    remote, local = shared()
    here = fresh()
    write(f"{local}/f", data)
    write(f"{here}/f", data)
    interrupted("get", f"{remote}/f", f"{here}/got", f"{here}/got", data, RREAD, "reply")
    interrupted("put", f"{here}/f", f"{remote}/put", f"{local}/put", data, TWRITE, "request")
    interrupted("cp", f"{remote}/f", f"{remote}/cp", f"{local}/cp", data, TWRITE, "request")


@suite.test
def a_link_that_ends_is_said_once():
    """Every request in flight is told; the user is told once, and of the file that stays behind."""
    remote, local = shared()
    here = fresh()
    for i in range(300):
        write(f"{local}/t/d{i % 5}/f{i}", pattern(20000, i))
        write(f"{here}/t/d{i % 5}/f{i}", pattern(20000, i))
    for command in (("get", "-a", f"{remote}/t", f"{here}/got"), ("put", "-a", f"{here}/t", f"{remote}/put"),
                    ("cp", "-aH", f"{remote}/t", f"{remote}/cp"), ("rm", "-r", f"{remote}/t"), ("find", remote, "-size", "+1"),
                    ("du", remote), ("ls", "-lR", remote), ("tree", remote), ("cat", f"{remote}/t/d0/f0"),
                    ("stat", remote, remote), ("get", "--check", f"{remote}/t/d0/f0", f"{here}/x")):
        for after in (6, 60, 200):
            seen = [0]

            def judge(kind, frame):
                seen[0] += 1
                return frame if seen[0] < after else None
            between, address = relay(reply=judge)
            p = spawn(*command, address=address)
            _, err = p.communicate(timeout=60)
            between.close()
            complaints = [line for line in lines(err) if "--continue" not in line]
            ended = p.returncode == 0
            check(ended or len(complaints) == 1 and p.returncode in (1, 3), command, after, p.returncode, complaints)


@suite.test
def check_finds_a_difference():
    def flip(kind, frame):
        return frame[:-1] + bytes([frame[-1] ^ 1]) if kind == TWRITE else frame
    here = fresh()
    remote, local = shared()
    write(f"{here}/f", pattern(100000))
    between, address = relay(request=flip)
    p9("put", f"{here}/f", f"{remote}/bad", address=address)
    check(read(f"{local}/bad") != pattern(100000))
    _, err = p9("put", "--check", f"{here}/f", f"{remote}/bad2", address=address, code=1)
    one_error(err, "f", "differs at byte 99999")
    check(not os.path.exists(f"{local}/bad2"), "a wrong copy stays")
    between.close()
    seen = [0]

    def once(kind, frame):
        seen[0] += kind == RREAD
        return frame[:-1] + bytes([frame[-1] ^ 1]) if kind == RREAD and seen[0] == 1 else frame
    between, address = relay(reply=once)
    write(f"{local}/f", pattern(100000))
    _, err = p9("get", "--check", f"{remote}/f", f"{here}/got", address=address, code=1)
    one_error(err, "differs")
    between.close()


@suite.test
def names_that_lead_elsewhere():
    """Whatever a server lists, nothing is written but below the target."""
    for names, dirs in ((["..", "good"], [".."]), (["../out", "good"], []), (["/etc/out", "good"], []),
                        (["a/b", "good"], []), ([".", "good"], ["."]), (["", "good"], []), (["x\0y", "good"], [])):
        top = fresh()
        path = os.path.join(top, "s")
        liar = Liar(path, names, dirs)
        os.makedirs(f"{top}/in/here")
        p9("get", "-r", "/", f"{top}/in/here", address=f"unix:{path}", code=None)
        liar.close()
        found = sorted(os.path.relpath(os.path.join(w, n), top) for w, ds, fs in os.walk(top) for n in ds + fs)
        check(set(found) <= {"s", "in", "in/here", "in/here/good"}, names, found)


@suite.test
def links_in_the_target_are_not_followed():
    remote, local = shared()
    write(f"{local}/t/d/f", b"new")
    write(f"{local}/t/f", b"new")
    top = fresh()
    os.makedirs(f"{top}/outside")
    write(f"{top}/outside/f", b"old")
    os.makedirs(f"{top}/got/t")
    os.symlink("../../outside", f"{top}/got/t/d")
    os.symlink("../../outside/f", f"{top}/got/t/f")
    _, err = p9("get", "-r", f"{remote}/t", f"{top}/got", code=1)
    equal(len(lines(err)), 2, err.decode())
    equal((os.listdir(f"{top}/outside"), read(f"{top}/outside/f")), (["f"], b"old"))
    os.makedirs(f"{local}/outside")
    os.makedirs(f"{local}/got/t")
    os.symlink("../../outside", f"{local}/got/t/d")
    p9("cp", "-r", f"{remote}/t", f"{remote}/got", code=1)
    equal(os.listdir(f"{local}/outside"), [])


@suite.test
def files_that_change_meanwhile():
    """One that shrinks is copied as far as it goes; one that grows is no failure."""
    remote, local = shared()
    here = fresh()
    for what, size in (("shrinks", 1 << 20), ("grows", 30 << 20)):
        write(f"{local}/{what}", pattern(16 << 20))
        done = [False]

        def change(kind, frame):
            if kind == TREAD and not done[0]:
                done[0] = True
                os.truncate(f"{local}/{what}", size)
            return frame
        between, address = relay(request=change)
        p9("get", f"{remote}/{what}", f"{here}/{what}", address=address)
        between.close()
        equal(os.path.getsize(f"{here}/{what}"), size, what)


@suite.test
def a_server_that_writes_nothing():
    def nothing(kind, frame):
        return frame[:7] + struct.pack("<I", 0) if kind == TWRITE + 1 else frame
    here = fresh()
    remote, local = shared()
    write(f"{here}/f", pattern(5000))
    between, address = relay(reply=nothing)
    _, err = p9("put", f"{here}/f", f"{remote}/f", address=address, code=1)
    one_error(err, "EIO")
    check(not os.path.exists(f"{local}/f"))
    between.close()
