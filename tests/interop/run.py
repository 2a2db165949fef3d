#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""diod's client tools against p9d, and p9 against diod's server: two implementations of 9P2000.L that share no code.

usage: tests/interop/run.py [--build DIR] [--only TEXT] [--oracle]
  --oracle   run diod's tools against diod itself: what they expect, and whether these tests are right
"""
import argparse
import concurrent.futures
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from suite import ROOT, Server, Skip, Suite, check, connects, equal, free_port, run  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--build", default="build")
parser.add_argument("--only", default="")
parser.add_argument("--oracle", action="store_true")
args = parser.parse_args()

suite = Suite("interop")
P9D, P9 = (os.path.join(ROOT, args.build, name) for name in ("p9d", "p9"))
TOP = suite.directory
TREE, RO, CTL = (os.path.join(TOP, name) for name in ("tree", "ro", "ctl"))
SOCKET = os.path.join(TOP, "p9.sock")
PORT = free_port()
TCP = f"127.0.0.1:{PORT}"
BIG = os.urandom(1 << 20) * 5 + b"end"
MANY = 3000


def make_tree(top):
    """Files of many kinds, the same for both directions."""
    os.makedirs(os.path.join(top, "dir", "sub", "deep"))
    for name, content, mode in (("small", b"hello\n", 0o644), ("empty", b"", 0o644), ("big", BIG, 0o644),
                                ("secret", b"root only\n", 0o600), ("dir/sub/deep/file", b"deep\n", 0o644),
                                ("sp ace\u00e9", b"name\n", 0o644)):
        path = os.path.join(top, name)
        with open(path, "wb") as f:
            f.write(content)
        os.chmod(path, mode)
    os.symlink("small", os.path.join(top, "link"))
    os.link(os.path.join(top, "small"), os.path.join(top, "hard"))
    os.mkfifo(os.path.join(top, "fifo"))
    os.mkdir(os.path.join(top, "many"))
    for i in range(MANY):
        with open(os.path.join(top, "many", f"entry-{i:05}"), "wb"):
            pass


def lines(text):
    return text.decode().splitlines()


make_tree(TREE)
make_tree(RO)
os.mkdir(CTL)
# diod serves these itself as a tree of its own named ctl; for its tools files will do.
for name, content in (("date", b"1700000000.5 0.0\n"), ("connections", b"localhost 2\n"), ("null", b""),
                      ("zero", bytes(1 << 20)), ("version", b"p9d\n"), ("exports", TREE.encode() + b" - - -\n")):
    with open(os.path.join(CTL, name), "wb") as f:
        f.write(content)

# ---- diod's tools, our server ----
server = None


@suite.test
def start_the_server():
    global server
    if args.oracle:
        command = ["/usr/sbin/diod", "-f", "-n", "-l", TCP, "-l", SOCKET, "-e", TREE, "-e", RO, "-e", "ctl", "-L",
                   "stderr"]
    else:
        check(os.path.exists(P9D), f"{args.build}/p9d is not built")
        command = [P9D, "-l", f"tcp:{TCP}", "-l", f"unix:{SOCKET}", "-e", f"{TREE},squash=none,checks=server",
                   "-e", f"{RO},ro", "-e", f"ctl={CTL},squash=none"]
    server = Server(command, [("127.0.0.1", PORT), SOCKET], TOP, codes=(0, 1) if args.oracle else (0,))


def tool(name, *arguments, address=TCP, aname=TREE, **options):
    check(server, "no server")
    where = ["-s", address] + (["-a", aname] if aname else [])
    return run(f"/usr/sbin/{name}", *where, *arguments, **options)


def for_both(function):
    """A test over TCP and one over the Unix socket."""
    for transport, address in (("tcp", TCP), ("unix", SOCKET)):
        def test(address=address):
            function(address)
        test.__name__ = f"{function.__name__}_{transport}"
        suite.test(test)
    return function


@for_both
def diodls_names(address):
    out, _ = tool("diodls", address=address)
    equal(sorted(lines(out)), sorted(os.listdir(TREE)))


@for_both
def diodls_long(address):
    out, _ = tool("diodls", "-l", address=address)
    rows = {r.split(None, 8)[8]: r.split(None, 8) for r in lines(out)}
    # diodls walks to each name it lists, "." too; p9d refuses that name (EINVAL), diodls says so and goes on.
    rows.pop(".", None)
    equal(sorted(rows), sorted(os.listdir(TREE) + [".."]))
    for name in ("small", "big", "empty", "secret"):
        st = os.lstat(os.path.join(TREE, name))
        equal(int(rows[name][4]), st.st_size, f"size of {name}")
        equal(int(rows[name][1]), st.st_nlink, f"links of {name}")
    equal(rows["secret"][0][:10], "-rw-------")
    equal(rows["dir"][0][:10], "drwxr-xr-x")


@for_both
def diodls_many_entries_each_once(address):
    out, _ = tool("diodls", "many", address=address)
    names = [n.strip() for n in lines(out) if n.startswith("entry-")]
    equal(len(names), MANY)
    equal(sorted(names), [f"entry-{i:05}" for i in range(MANY)])


@suite.test
def diodls_many_entries_with_a_small_msize():
    out, _ = tool("diodls", "-m", "4096", "many")
    equal(sorted(n for n in lines(out) if n.startswith("entry-")), [f"entry-{i:05}" for i in range(MANY)])


@for_both
def diodcat_small(address):
    equal(tool("diodcat", "small", address=address)[0], b"hello\n")
    equal(tool("diodcat", "empty", address=address)[0], b"")
    equal(tool("diodcat", "dir/sub/deep/file", address=address)[0], b"deep\n")
    equal(tool("diodcat", "sp ace\u00e9", address=address)[0], b"name\n")
    equal(tool("diodcat", "small", "dir/sub/deep/file", "small", address=address)[0], b"hello\ndeep\nhello\n")


@for_both
def diodcat_big(address):
    for msize in ("4096", "8192", "65536", "1048576", "16777216"):
        out, _ = tool("diodcat", "-m", msize, "big", address=address)
        equal(hashlib.sha256(out).hexdigest(), hashlib.sha256(BIG).hexdigest(), f"msize {msize}")


@for_both
def diodcat_what_is_not_in_memory(address):
    """Pages of the file are dropped first: an answer that waits for the disk is an answer, not EAGAIN."""
    path = os.path.join(TREE, "big")
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    check(tool("diodcat", "big", address=address)[0] == BIG, "content differs")


@for_both
def diodcat_says_what_is_missing(address):
    _, err = tool("diodcat", "nope", address=address, code=1)
    check(b"No such file" in err, err)
    _, err = tool("diodcat", "small/below", address=address, code=1)
    check(b"Not a directory" in err or b"No such file" in err, err)


@for_both
def unknown_aname_is_refused(address):
    _, err = tool("diodls", address=address, aname=TOP + "/nothing", code=1)
    check(b"attach" in err, err)


@suite.test
def aname_below_an_export():
    if args.oracle:
        raise Skip("diod exports whole directories only")
    equal(tool("diodcat", "deep/file", aname=TREE + "/dir/sub")[0], b"deep\n")
    tool("diodls", aname=TREE + "/../ro", code=1)
    tool("diodls", aname=TREE + "/link/..", code=1)


@for_both
def another_user_is_held_to_permissions(address):
    equal(tool("diodcat", "-u", "65534", "small", address=address)[0], b"hello\n")
    _, err = tool("diodcat", "-u", "65534", "secret", address=address, code=1)
    check(b"ermission denied" in err, err)
    equal(tool("diodcat", "-u", "0", "secret", address=address)[0], b"root only\n")


@suite.test
def root_is_squashed_on_tcp_unless_told_otherwise():
    if args.oracle:
        raise Skip("diod does not squash")
    equal(tool("diodcat", "small", aname=RO)[0], b"hello\n")
    _, err = tool("diodcat", "secret", aname=RO, code=1)
    check(b"ermission denied" in err, err)
    equal(tool("diodcat", "secret", aname=RO, address=SOCKET)[0], b"root only\n")


@suite.test
def from_a_privileged_port():
    equal(tool("diodcat", "-p", "small")[0], b"hello\n")


@suite.test
def eight_tools_at_once():
    def one(i):
        return tool("diodcat", "big", address=SOCKET if i % 2 else TCP)[0]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for out in pool.map(one, range(24)):
            check(out == BIG, "content differs")


@suite.test
def dioddate_reads_ctl():
    out, _ = tool("dioddate", aname=None)
    check(b"20" in out and b":" in out, out)


@suite.test
def diodshowmount_reads_ctl():
    equal(tool("diodshowmount", "-l", aname=None)[0], b"localhost\n")


@suite.test
def diodload_reads_and_writes():
    _, err = tool("diodload", "-r", "2", "-n", "4", aname=None)
    rate = int(err.split(b"ops/s")[0].split()[-1])
    check(rate > 100, err)
    print(f"        diodload: {err.decode().strip()}")


@suite.test
def diodload_getattrs():
    _, err = tool("diodload", "-g", "-r", "2", "-n", "4", aname=None)
    rate = int(err.split(b"ops/s")[0].split()[-1])
    check(rate > 100, err)
    print(f"        diodload: {err.decode().strip()}")


@suite.test
def diodmount_up_to_the_mount():
    """All that mount.diod does before mount(2): connect, negotiate, authenticate."""
    _, err = run("/usr/sbin/diodmount", "-f", "-n", "-v", f"127.0.0.1:{TREE}", TOP, "-o", f"port={PORT}")
    check(b"mount -t 9p" in err, err)


@suite.test
def the_server_ends_cleanly():
    check(server, "no server")
    server.stop()
    check(args.oracle or not os.path.exists(SOCKET), "the socket is still there")
    check(not connects(("127.0.0.1", PORT)), "the port is still open")


# ---- our client, diod's server ----
DIOD_PORT = free_port()
DIOD_SOCKET = os.path.join(TOP, "diod.sock")
WORK = os.path.join(TOP, "work")
diod = None


def p9(*arguments, address=None, **options):
    check(diod, "no diod")
    return run(P9, "-s", address or f"tcp:127.0.0.1:{DIOD_PORT}", "-a", WORK, *arguments, **options)


def host(*names):
    return os.path.join(WORK, *names)


def content(*names):
    with open(host(*names), "rb") as f:
        return f.read()


def ours(function):
    if not args.oracle:
        suite.test(function)
    return function


@ours
def start_diod():
    global diod
    check(os.path.exists(P9), f"{args.build}/p9 is not built")
    make_tree(WORK)
    diod = Server(["/usr/sbin/diod", "-f", "-n", "-l", f"127.0.0.1:{DIOD_PORT}", "-l", DIOD_SOCKET, "-e", WORK, "-L",
                   "stderr"], [("127.0.0.1", DIOD_PORT), DIOD_SOCKET], TOP, codes=(0, 1))


@ours
def p9_ls():
    equal(sorted(lines(p9("ls")[0])), sorted(n for n in os.listdir(WORK)))
    equal(sorted(lines(p9("ls", address=f"unix:{DIOD_SOCKET}")[0])), sorted(os.listdir(WORK)))


@ours
def p9_ls_many():
    equal(sorted(lines(p9("ls", "/many")[0])), [f"entry-{i:05}" for i in range(MANY)])
    equal(len(lines(p9("-m", "4096", "ls", "/many")[0])), MANY)


@ours
def p9_ls_long():
    out = lines(p9("ls", "-l")[0])
    row = next((r for r in out if r.endswith(" small") and "->" not in r), "no line")
    check(row.startswith("-rw-r--r--"), row)
    check(any("link -> small" in r for r in out), out)


@ours
def p9_cat():
    equal(p9("cat", "/small")[0], b"hello\n")
    equal(p9("cat", "/dir/sub/deep/file")[0], b"deep\n")
    equal(p9("cat", "/sp ace\u00e9")[0], b"name\n")
    check(p9("cat", "/big")[0] == BIG, "content differs")
    check(p9("-m", "4096", "cat", "/big")[0] == BIG, "content differs with msize 4096")


@ours
def p9_errors():
    _, err = p9("cat", "/nope", code=1)
    check(b"No such file or directory (ENOENT)" in err, err)
    _, err = p9("ls", "/small/x", code=1)
    check(b"/small/x" in err, err)
    run(P9, "-s", f"tcp:127.0.0.1:{free_port()}", "ls", code=3)


@ours
def p9_put_and_get():
    local = os.path.join(TOP, "local")
    with open(local, "wb") as f:
        f.write(BIG)
    p9("put", local, "/put")
    check(content("put") == BIG, "content differs")
    p9("get", "/put", local + ".back")
    with open(local + ".back", "rb") as f:
        check(f.read() == BIG, "content differs on the way back")


@ours
def p9_get_and_put_trees():
    p9("get", "-r", "/dir", os.path.join(TOP, "got"))
    with open(os.path.join(TOP, "got", "sub", "deep", "file"), "rb") as f:
        equal(f.read(), b"deep\n")
    p9("put", "-r", os.path.join(TOP, "got"), "/again")
    equal(content("again", "sub", "deep", "file"), b"deep\n")


@ours
def p9_mkdir_and_rm():
    p9("mkdir", "/made")
    check(os.path.isdir(host("made")))
    p9("mkdir", "-p", "/made/a/b/c")
    check(os.path.isdir(host("made", "a", "b", "c")))
    p9("rm", "/made", code=1)
    p9("rm", "-r", "/made")
    check(not os.path.exists(host("made")))


@ours
def p9_mv():
    p9("put", os.path.join(TOP, "local"), "/from")
    p9("mv", "/from", "/dir/to")
    check(not os.path.exists(host("from")) and os.path.exists(host("dir", "to")))


@ours
def p9_links():
    p9("ln", "-s", "../small", "/dir/sym")
    equal(os.readlink(host("dir", "sym")), "../small")
    equal(p9("readlink", "/dir/sym")[0], b"../small\n")
    p9("ln", "/small", "/dir/hard")
    equal(os.stat(host("dir", "hard")).st_ino, os.stat(host("small")).st_ino)


@ours
def p9_chmod_chown_truncate():
    p9("chmod", "0640", "/small")
    equal(os.stat(host("small")).st_mode & 0o7777, 0o640)
    p9("chown", "1:2", "/small")
    equal((os.stat(host("small")).st_uid, os.stat(host("small")).st_gid), (1, 2))
    p9("truncate", "-s", "3", "/small")
    equal(content("small"), b"hel")


@ours
def p9_stat_and_df():
    out = p9("stat", "/big")[0]
    check(str(len(BIG)).encode() in out, out)
    check(len(lines(p9("df")[0])) >= 1)


@ours
def p9_rm_of_many_directories_at_once():
    """diod has no Tunlinkat; several directories find that out at the same time."""
    for i in range(100):
        os.makedirs(host("crowd", f"d{i}"))
    p9("rm", "-r", "/crowd")
    check(not os.path.exists(host("crowd")), "not removed")


@ours
def p9_as_another_user():
    _, err = p9("-u", "65534", "cat", "/secret", code=1)
    check(b"EACCES" in err, err)
    equal(p9("-u", "0", "cat", "/secret")[0], b"root only\n")


@ours
def p9_many_requests_at_once():
    out, _ = p9("bench", "-q", "16", "-t", "1", "getattr", timeout=120)
    check(out, "bench prints nothing")


@ours
def stop_diod():
    check(diod, "no diod")
    diod.stop()


try:
    code = suite.run(args.only)
finally:
    for s in (server, diod):
        if s and s.process.poll() is None:
            s.process.kill()
            s.process.wait()
sys.exit(code)
