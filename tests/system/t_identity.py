# SPDX-License-Identifier: BSD-2-Clause
"""Whom p9d acts as: users and groups of the host, squashing, peers that are not root, bits that a write must clear.

Users that every Debian has: bin (2), games (5), www-data (33), nobody (65534). Groups of a user are those of the host's
database; where the test needs some, it runs p9d with an /etc/group of its own, in a mount namespace of its own.
"""
import errno
import os
import pwd
import shutil
import stat
import struct
import subprocess
import threading
import time

from common import P9d, Skip, TOP, as_user, check, denied, equal, free_port, fresh, put, suite, until
from ninep import (NONUNAME, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SET_GID, SET_MODE, SET_SIZE, SET_UID, Conn, Error)

A, B = 33, 5  # www-data and games
NOBODY = 65534
CAP_FSETID = 1 << 4
SHARED = 4242  # a group that the /etc/group of with_groups() gives to A


def gid_of(uid):
    return pwd.getpwuid(uid).pw_gid


def tcp(export, *more, **server):
    port = free_port()
    s = P9d("-e", export, *more, listen=["-l", f"tcp:127.0.0.1:{port}"], **server)
    s.address = ("127.0.0.1", port)
    return s


def attach(s, uid, uname="", aname=""):
    c = Conn(getattr(s, "address", s.socket))
    c.attach(0, aname, uid, uname)
    return c


def with_groups():
    """A command that runs p9d where A is in the group SHARED."""
    group = os.path.join(TOP, "group")
    with open("/etc/group", encoding="utf-8") as f:
        lines = f.read()
    put(group, (lines + f"p9shared:x:{SHARED}:{pwd.getpwuid(A).pw_name}\n").encode())
    command = ("unshare", "-m", "--propagation", "private", "sh", "-c", f"mount --bind {group} /etc/group && exec \"$0\" \"$@\"")
    if subprocess.run([*command, "getent", "group", "p9shared"], check=False, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode:
        raise Skip("no mount namespaces")
    return command


def open_dir():
    return fresh("id", 0o777)


# ---- who owns what is made ----
@suite.test
def identity_new_files_belong_to_the_user():
    d = open_dir()
    with P9d("-e", f"x={d}") as unix, tcp(f"x={d}") as net:
        for s, name in ((unix, "unix"), (net, "tcp")):
            for uid in (A, B):
                c = attach(s, uid)
                c.create(0, f"{name}{uid}")
                c.mkdir(0, f"{name}{uid}d", 0o755, NONUNAME)
                c.symlink(0, f"{name}{uid}l", "t", NONUNAME)
                c.mknod(0, f"{name}{uid}p", stat.S_IFIFO | 0o644, 0, 0, NONUNAME)
                for kind in ("", "d", "l", "p"):
                    st = os.lstat(f"{d}/{name}{uid}{kind}")
                    equal((st.st_uid, st.st_gid), (uid, gid_of(uid)), name + kind)


@suite.test
def identity_host_decides_over_tcp():
    d = open_dir()
    put(d + "/secret", b"a's", 0o600, (A, gid_of(A)))
    os.mkdir(d + "/private")
    os.chmod(d + "/private", 0o700)
    os.chown(d + "/private", A, gid_of(A))
    put(d + "/roots", b"root's", 0o600)
    with tcp(f"x={d}") as s:
        a, b = attach(s, A), attach(s, B)
        equal(a.read(a.open(0, "secret"), 0, 10), b"a's")
        for what in (lambda: b.open(0, "secret"), lambda: b.setattr(b.walk(0, "secret"), SET_SIZE),
                     lambda: b.open(0, "private"), lambda: b.walk(0, "private", "x"),
                     lambda: b.create(b.walk(0, "private"), "n"), lambda: b.open(0, "roots")):
            denied((errno.EACCES, errno.ENOENT), what)
        for what in (lambda: b.setattr(b.walk(0, "secret"), SET_MODE, 0o777),
                     lambda: b.setattr(b.walk(0, "secret"), SET_UID, uid=B),
                     lambda: a.setattr(a.walk(0, "secret"), SET_GID, gid=gid_of(B))):
            denied(errno.EPERM, what)
        equal(os.stat(d + "/secret").st_mode & 0o777, 0o600)


@suite.test
def identity_groups_of_the_host_count():
    d = open_dir()
    put(d + "/team", b"team's", 0o640, (0, SHARED))
    with tcp(f"x={d}", before=with_groups()) as s:
        a, b = attach(s, A), attach(s, B)
        equal(a.read(a.open(0, "team"), 0, 10), b"team's")
        denied(errno.EACCES, lambda: b.open(0, "team"))
        a.create(0, "mine", gid=SHARED)
        equal(os.stat(d + "/mine").st_gid, SHARED, "the gid that was asked for")
        b.create(0, "yours", gid=SHARED)
        equal(os.stat(d + "/yours").st_gid, gid_of(B), "a gid that is not permitted")
        a.setattr(a.walk(0, "mine"), SET_GID, gid=gid_of(A))
        a.setattr(a.walk(0, "mine"), SET_GID, gid=SHARED)
        a.setattr(a.walk(0, "mine"), SET_MODE, 0o2755)
        equal(os.stat(d + "/mine").st_mode & 0o7777, 0o2755)


def thread_status(pid, tid):
    """/proc's lines by their names; None when the thread has ended."""
    try:
        with open(f"/proc/{pid}/task/{tid}/status", encoding="ascii") as f:
            return dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None


@suite.test
def identity_threads_wear_what_they_should():
    """Groups and capabilities of p9d's threads, as the kernel has them, between and during work for users."""
    d = open_dir()
    ids = set()
    with P9d("-e", f"x={d}", before=with_groups()) as s:
        conns = [attach(s, A), attach(s, B), attach(s, 0), attach(s, 12345)]
        allowed = {(str(A), str(gid_of(A)), f"{gid_of(A)} {SHARED}"), (str(B), str(gid_of(B)), f"{gid_of(B)}"),
                   ("12345",), ("0",)}
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            for c in conns:
                c.getattr(0)
                for tid in os.listdir(f"/proc/{s.pid}/task"):
                    status = thread_status(s.pid, tid)
                    if not status:
                        continue
                    check(not int(status["CapEff"], 16) & CAP_FSETID, "CAP_FSETID is effective")
                    check(not int(status["CapPrm"], 16) & CAP_FSETID, "CAP_FSETID is permitted")
                    fsuid, fsgid = status["Uid"].split()[3], status["Gid"].split()[3]
                    groups = " ".join(sorted(status["Groups"].split(), key=int))
                    ids.add((fsuid, fsgid, groups))
                    if fsuid in (str(A), str(B)):
                        check((fsuid, fsgid, groups) in allowed, f"a thread is {fsuid}:{fsgid} with groups {groups}")
                    elif fsuid == "12345":
                        check(groups in ("", "12345", "65534"), f"unknown user has groups {groups}")
        check(len(ids) > 1, ids)


@suite.test
def identity_unknown_user_gets_no_group():
    """n_uname 27 with no such user must not be in the group 27 (sudo)."""
    uid = next(g for g in range(20, 64) if not known(g))
    d = open_dir()
    put(d + "/group", b"group's", 0o040, (0, uid))
    os.chmod(d + "/group", 0o040)
    with tcp(f"x={d}") as s:
        c = attach(s, uid)
        c.create(0, "n")
        check(os.stat(d + "/n").st_gid != uid, f"user {uid}, who is not known, has the group {uid}")
        denied(errno.EACCES, lambda: c.open(0, "group"))


def known(uid):
    try:
        pwd.getpwuid(uid)
        return True
    except KeyError:
        return False


# ---- root, and who may say who they are ----
@suite.test
def identity_root_is_squashed_on_tcp():
    d = open_dir()
    with tcp(f"x={d}") as s:
        c = attach(s, 0)
        c.create(0, "a")
        attach(s, NONUNAME, "root").create(0, "b")
        attach(s, NONUNAME, "0").create(0, "c")
        for name in "abc":
            equal(os.stat(f"{d}/{name}").st_uid, NOBODY, name)
    with tcp(f"x={d},squash=none") as s:
        attach(s, 0).create(0, "root")
        equal(os.stat(d + "/root").st_uid, 0)
    with P9d("-e", f"x={d}") as s, P9d("-e", f"x={d},squash=root") as squash, P9d("-e", f"x={d},squash=all") as all_:
        for server, name, uid, want in ((s, "unix", 0, 0), (squash, "squash", 0, NOBODY), (squash, "user", A, A),
                                        (all_, "all", A, NOBODY), (all_, "all0", 0, NOBODY)):
            attach(server, uid).create(0, name)
            equal(os.stat(f"{d}/{name}").st_uid, want, name)
        attach(all_, NONUNAME, "no such user").create(0, "anybody")
        equal(os.stat(d + "/anybody").st_uid, NOBODY)


@suite.test
def identity_root_is_squashed_on_a_tcp_socket_given_as_descriptor():
    """As inetd, or a socket unit with Accept=yes, gives it."""
    import socket
    d = open_dir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours:
        s = P9d("-e", f"x={d}", listen=["-l", "stdio"], stdin=ours.fileno(), stdout=ours.fileno(), ready=False)
    c = Conn(client)
    c.attach(0, "", 0)
    c.create(0, "f")
    c.close()
    s.process.wait(60)
    equal(os.stat(d + "/f").st_uid, NOBODY, "owner of what root makes over TCP")


@suite.test
def identity_names():
    d = open_dir()
    with P9d("-e", f"x={d}") as s:
        attach(s, NONUNAME, pwd.getpwuid(A).pw_name).create(0, "by-name")
        equal(os.stat(d + "/by-name").st_uid, A)
        attach(s, A, "no-such-user").create(0, "by-number")  # cannot be looked up, and need not be
        equal(os.stat(d + "/by-number").st_uid, A)
        attach(s, A, pwd.getpwuid(B).pw_name).create(0, "both")
        equal(os.stat(d + "/both").st_uid, A, "n_uname counts")
        for uname in ("no-such-user", "", "x" * 300, "\n\x1b[1m"):
            denied((errno.EPERM, errno.EACCES), lambda uname=uname: attach(s, NONUNAME, uname))
        log = until(lambda: s.output() if "no-such-user" in s.output() else "")
        line = next(x for x in log.splitlines() if "no-such-user" in x)
        check("squash=all" in line or "--identity" in line, f"the log names no option: {line}")
        check("\x1b" not in log, "an escape sequence reaches the log")


@suite.test
def identity_a_peer_who_is_not_root_is_only_itself():
    d = open_dir()
    put(d + "/secret", b"s", 0o600, (B, gid_of(B)))
    with P9d("-e", f"x={d}", "--socket-mode", "0666") as s:
        def peer():
            attach(s, A).create(0, "own")
            attach(s, NONUNAME, pwd.getpwuid(A).pw_name)
            for uid, uname in ((0, ""), (B, ""), (NONUNAME, "root"), (NONUNAME, pwd.getpwuid(B).pw_name)):
                denied(errno.EPERM, lambda uid=uid, uname=uname: attach(s, uid, uname))
            c = attach(s, A)
            denied(errno.EACCES, lambda: c.open(0, "secret"))
            denied(errno.EPERM, lambda: c.setattr(c.walk(0, "secret"), SET_MODE, 0o777))
            denied(errno.EPERM, lambda: c.attach(1, "", B))
        as_user(A, gid_of(A), peer)
        equal(os.stat(d + "/own").st_uid, A)
        check("connect as root or as that user" in s.output())
    with P9d("-e", f"x={d}") as s:  # mode 0600
        def refused():
            try:
                attach(s, A)
            except PermissionError:
                return
            raise AssertionError("somebody else may connect to a socket of mode 0600")
        as_user(A, gid_of(A), refused)


@suite.test
def identity_single():
    d = open_dir()
    with P9d("-e", f"x={d}", "--identity", "single") as s:
        attach(s, A).create(0, "f")
        attach(s, NONUNAME, "no such user").create(0, "g")
        equal((os.stat(d + "/f").st_uid, os.stat(d + "/g").st_uid), (0, 0))
    where = fresh("sock", 0o777)
    os.chown(d + "/f", A, gid_of(A))
    user = ("setpriv", "--reuid", A, "--regid", gid_of(A), "--clear-groups")
    with P9d("-e", f"x={d}", before=user, listen=["-l", f"unix:{where}/s"]) as s:
        s.socket = where + "/s"
        c = attach(s, 0)
        c.create(0, "h")
        equal(os.stat(d + "/h").st_uid, A)
        denied(errno.EACCES, lambda: c.open(0, "g", flags=O_RDWR))
    s = P9d("-e", f"x={d}", "--identity", "users", before=user, ready=False)
    s.refuses("--identity users", "needs root")


# ---- never as another ----
@suite.test
def identity_two_users_on_one_connection():
    """2000 files, made by turns, in batches, by four users of one connection."""
    d, users = open_dir(), [A, B, 0, 2]
    with P9d("-e", f"x={d}") as s:
        c = Conn(s.socket)
        for i, uid in enumerate(users):
            c.attach(i, "", uid)
        for batch in range(10):
            tags = []
            for i in range(200):
                who = (i * 7 + i // 13) % 4
                fid = 10000 + i
                tags.append(c._walk(who, fid))
                tags.append(c._lcreate(fid, f"f{batch}-{i}-{users[who]}", O_RDWR | O_EXCL, 0o600, NONUNAME))
                tags.append(c._clunk(fid))
            equal({c.outcome(t) for t in tags}, {0})
        wrong = [n for n in os.listdir(d) if os.stat(f"{d}/{n}").st_uid != int(n.rsplit("-", 1)[1])]
        equal(len(os.listdir(d)), 2000)
        check(not wrong, f"{len(wrong)} belong to another: {wrong[:5]}")


@suite.test
def identity_users_at_once_on_many_connections():
    """As above with the calls on workers too: fsync and reads that are not cached between them."""
    d, users, bad = open_dir(), [A, B, 0, 2], []
    with tcp(f"x={d},squash=none") as s:
        def work(uid, n):
            try:
                c = attach(s, uid)
                for i in range(120):
                    f = c.create(0, f"g{n}-{i}-{uid}", mode=0o600)
                    c.write(f, 0, b"x")
                    if i % 40 == 0:
                        c.fsync(f, 0)
                    c.clunk(f)
                    if i % 3 == 0 and uid:
                        other = users[(users.index(uid) + 1) % 4]
                        name = f"g{n}-{i}-{other}"
                        try:
                            c.open(0, name)
                            bad.append(f"{uid} opened {name}")
                        except Error as e:
                            if e.code not in (errno.EACCES, errno.ENOENT):
                                bad.append(f"{name}: {e}")
            except Exception as e:  # pylint: disable=broad-except
                bad.append(repr(e))
        threads = [threading.Thread(target=work, args=(uid, n)) for n in range(2) for uid in users]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        bad += [n for n in os.listdir(d) if os.stat(f"{d}/{n}").st_uid != int(n.rsplit("-", 1)[1])]
        check(not bad, bad[:5])


@suite.test
def identity_attach_stays_with_its_fids():
    """fids that come from A's attach never do what B may, whichever way they were made."""
    d = open_dir()
    put(d + "/a", b"a", 0o600, (A, gid_of(A)))
    os.mkdir(d + "/sub")
    os.chmod(d + "/sub", 0o777)
    with tcp(f"x={d}", "-e", f"y={d}") as s:
        c = Conn(s.address)
        c.attach(0, "x", A)
        c.attach(1, "x", B)
        c.attach(2, "", B)  # the list of exports
        c.attach(3, "y", B)
        for root, names in ((1, ("a",)), (2, ("x", "a")), (2, ("y", "a")), (3, ("a",))):
            denied(errno.EACCES, lambda root=root, names=names: c.open(root, *names))
        equal(c.read(c.open(0, "a"), 0, 5), b"a")
        sub = c.walk(2, "x", "sub")
        c.create(sub, "b")
        equal(os.stat(d + "/sub/b").st_uid, B)
        denied(errno.EEXIST, lambda: c.attach(1, "x", A))
        denied(errno.EACCES, lambda: c.open(1, "a"))


# ---- bits ----
def special_file(d, mode=0o6777, owner=(A, 5)):
    path = put(d + "/s", b"content", mode, owner)
    os.chmod(path, mode)
    return path


def bits(path):
    return os.stat(path).st_mode & 0o7777


@suite.test
def identity_writes_clear_setuid():
    """Whoever writes, by a fid that was opened before: set-user-id, set-group-id and file capabilities are gone."""
    d = open_dir()
    caps = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    actions = {
        "write": lambda c, f: c.write(f, 0, b"x"), "append": lambda c, f: c.write(f, 7, b"x"),
        "truncate": lambda c, f: c.setattr(f, SET_SIZE, size=1), "truncate by a closed fid":
        lambda c, f: c.setattr(c.walk(0, "s"), SET_SIZE, size=1), "open with O_TRUNC":
        lambda c, f: c.open(0, "s", flags=O_WRONLY | O_TRUNC)}
    with P9d("-e", f"x={d}") as s, tcp(f"x={d},squash=none") as net:
        for server in (s, net):
            for uid in (A, B, 0):
                for what, act in actions.items():
                    path = special_file(d)
                    c = attach(server, uid)
                    f = c.open(0, "s", flags=O_RDWR)
                    try:
                        os.setxattr(path, "security.capability", caps)
                    except OSError as e:
                        raise Skip(f"no file capabilities: {e}") from None
                    os.chmod(path, 0o6777)
                    act(c, f)
                    equal(bits(path), 0o777, f"{what} by {uid}")
                    check("security.capability" not in os.listxattr(path), f"{what} by {uid}: capabilities stay")
                    c.close()
                    os.unlink(path)


@suite.test
def identity_chown_clears_setuid():
    d = open_dir()
    with P9d("-e", f"x={d}") as s:
        for uid, change in ((0, {"uid": B}), (0, {"gid": 2}), (A, {"gid": 2})):
            path = special_file(d)
            os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
            c = attach(s, uid)
            c.setattr(c.walk(0, "s"), SET_UID if "uid" in change else SET_GID, **change)
            equal(bits(path), 0o777, f"chown {change} by {uid}")
            check("security.capability" not in os.listxattr(path), "capabilities stay")
            os.unlink(path)


@suite.test
def identity_setgid_directory():
    d = open_dir()
    os.mkdir(d + "/team")
    os.chown(d + "/team", 0, SHARED)
    os.chmod(d + "/team", 0o2777)
    with tcp(f"x={d}") as s, P9d("-e", f"x={d}") as unix:
        for server, name in ((s, "tcp"), (unix, "unix")):
            c = attach(server, B)  # who is not in that group
            team = c.walk(0, "team")
            c.create(team, name + "f", mode=0o2755)
            c.mkdir(team, name + "d", 0o755, NONUNAME)
            f, sub = os.stat(f"{d}/team/{name}f"), os.stat(f"{d}/team/{name}d")
            equal((f.st_gid, sub.st_gid), (SHARED, SHARED), f"{name}: group is inherited")
            check(not f.st_mode & stat.S_ISGID, f"{name}: set-group-id for a group that the user is not in")
            check(sub.st_mode & stat.S_ISGID, f"{name}: set-group-id of a directory is inherited")


@suite.test
def identity_chmod_setgid():
    """A file of a group that the user is not in: root and kernels that have checked may set the bit, others lose it."""
    d = open_dir()
    put(d + "/s", b"", 0o755, (B, SHARED))
    with P9d("-e", f"x={d}") as unix, tcp(f"x={d},squash=none") as net, P9d("-e", f"x={d},checks=server") as checked:
        for server, uid, want in ((unix, 0, 0o2755), (unix, B, 0o2755), (net, 0, 0o2755), (net, B, 0o755),
                                  (checked, B, 0o755)):
            os.chmod(d + "/s", 0o755)
            c = attach(server, uid)
            c.setattr(c.walk(0, "s"), SET_MODE, 0o2755)
            equal(bits(d + "/s"), want, f"chmod g+s by {uid} on {server.command[2]}")


@suite.test
def identity_client_has_checked():
    """Over a socket from root the peer's kernel knows best: what it allows is done, with the user's ids."""
    d = open_dir()
    put(d + "/a", b"a", 0o600, (A, gid_of(A)))
    os.mkdir(d + "/sticky")
    os.chmod(d + "/sticky", 0o1777)
    put(d + "/sticky/a", b"a", 0o600, (A, gid_of(A)))
    with P9d("-e", f"x={d}") as s:
        b = attach(s, B)
        b.setattr(b.walk(0, "a"), SET_GID, gid=SHARED)  # a group that 9P could not tell
        equal(os.stat(d + "/a").st_gid, SHARED)
        equal(b.read(b.open(0, "a"), 0, 1), b"a")
        b.renameat(b.walk(0, "sticky"), "a", b.walk(0, "sticky"), "b")
        b.create(0, "own", gid=SHARED)
        equal((os.stat(d + "/own").st_uid, os.stat(d + "/own").st_gid), (B, SHARED))
    with P9d("-e", f"x={d},checks=server") as s:
        b = attach(s, B)
        sticky = b.walk(0, "sticky")
        denied((errno.EPERM, errno.EACCES), lambda: b.renameat(sticky, "b", sticky, "c"))
        denied((errno.EPERM, errno.EACCES), lambda: b.unlinkat(sticky, "b", 0))
        denied(errno.EACCES, lambda: b.open(0, "a"))
        denied(errno.EPERM, lambda: b.setattr(b.walk(0, "own"), SET_GID, gid=2))


@suite.test
def identity_client_checks_are_not_believed_of_users():
    """checks=client on a socket that everybody may connect to: a peer that is not root is no kernel."""
    d = open_dir()
    put(d + "/secret", b"root's", 0o600)
    with P9d("-e", f"x={d},checks=client", "--socket-mode", "0666") as s:
        def peer():
            c = attach(s, A)
            denied(errno.EACCES, lambda: c.open(0, "secret"))
        as_user(A, gid_of(A), peer)


@suite.test
def identity_locks_do_not_open_for_writing():
    """A read lock by one who only reads must not make a program of the host busy."""
    d = open_dir()
    shutil.copy("/bin/true", d + "/prog")
    os.chmod(d + "/prog", 0o777)
    with P9d("-e", f"x={d}") as s:
        c = attach(s, 0)
        equal(c.lock(c.open(0, "prog", flags=O_RDONLY), 0, 0, 0), 0)
        try:
            subprocess.run([d + "/prog"], check=True)
        except OSError as e:
            raise AssertionError(f"a program with a read lock on it: {e}") from None
