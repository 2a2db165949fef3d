# SPDX-License-Identifier: BSD-2-Clause
"""get, put and cp when all goes well: what is kept, what is left out, where it goes."""
import hashlib
import os
import pty
import re
import socket
import stat
import subprocess

from common import ADDRESS, check, equal, fresh, lines, one_error, p9, pattern, read, shared, state, suite, write
from suite import Skip

ROOT_USER = os.geteuid() == 0
SIZES = (0, 1, 4095, 4096, 4097, 70000, 1048575, 1048576, 3000001)


def make_tree(top):
    for i, n in enumerate(SIZES):
        write(f"{top}/sizes/f{i}", pattern(n, i))
    write(f"{top}/a/b/deep", b"deep\n", 0o640)
    write(f"{top}/a/setuid", b"s", 0o4755)
    write(f"{top}/readonly", b"r", 0o444)
    write(f"{top}/odd \xff\n name".encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"), b"odd")
    os.makedirs(f"{top}/empty")
    os.chmod(f"{top}/empty", 0o2750)
    os.symlink("nowhere", f"{top}/dangling")
    os.symlink("a/b", f"{top}/to-dir")
    os.link(f"{top}/a/b/deep", f"{top}/a/hard")
    os.link(f"{top}/a/b/deep", f"{top}/hard2")
    os.link(f"{top}/dangling", f"{top}/dangling2")
    with open(f"{top}/sparse", "wb") as f:
        f.truncate(8 << 20)
        f.seek(3 << 20)
        f.write(b"data in the middle")
    os.mkfifo(f"{top}/fifo", 0o600)
    for i, (where, dirs, files) in enumerate(os.walk(top, topdown=False)):
        for name in files + dirs:
            os.utime(os.path.join(where, name), ns=(10**18 + i, 10**18 + 123456789 + i), follow_symlinks=False)
    if ROOT_USER:
        os.chown(f"{top}/a/b/deep", 1234, 2345)
        os.lchown(f"{top}/dangling", 77, 78)
        os.chmod(f"{top}/a/b/deep", 0o640)
    return top


def try_xattr(path, name, value):
    try:
        os.setxattr(path, name, value)
        return True
    except OSError:
        return False


def describe(top, keep_all, specials=True):
    """Everything about a tree that a copy should have."""
    tree, links = {}, {}
    for where, dirs, files in os.walk(top):
        for name in dirs + files + ([""] if where == top else []):
            path = os.path.join(where, name) if name else where
            st = os.lstat(path)
            kind = stat.S_IFMT(st.st_mode)
            if kind == stat.S_IFIFO and not specials:
                continue
            what = [kind, st.st_mtime_ns]
            if kind == stat.S_IFREG:
                what += [st.st_size, hashlib.sha256(read(path)).hexdigest()]
            if kind == stat.S_IFLNK:
                what.append(os.readlink(path))
            else:
                what.append(st.st_mode & (0o7777 if keep_all else 0o1777 if kind == stat.S_IFDIR else 0o777))
            if keep_all:
                what += [st.st_uid, st.st_gid]
                links.setdefault(st.st_ino if kind != stat.S_IFDIR else path, []).append(path[len(top):])
                if kind in (stat.S_IFREG, stat.S_IFDIR):
                    what += [(n, os.getxattr(path, n)) for n in sorted(os.listxattr(path)) if n.startswith("user.")]
            tree[path[len(top):]] = what
    return tree, sorted(sorted(v) for v in links.values() if len(v) > 1)


def same(a, b, keep_all, specials=True):
    (one, links), (two, others) = describe(a, keep_all, specials), describe(b, keep_all, specials)
    for path in sorted(set(one) | set(two)):
        equal(two.get(path), one.get(path), path)
    equal(others, links, "hard links")


@suite.test
def trees_with_everything():
    top = make_tree(fresh("tree"))
    with_xattrs = try_xattr(f"{top}/a/b/deep", "user.one", b"1\0\xff") and try_xattr(f"{top}/a", "user.dir", b"d" * 3000)
    if with_xattrs:
        try_xattr(f"{top}/readonly", "user.empty", b"")
    remote, local = shared()
    back = fresh("back")
    p9("put", "-a", top, f"{remote}/put")
    same(top, f"{local}/put", True)
    p9("get", "-a", f"{remote}/put", f"{back}/get")
    same(top, f"{back}/get", True)
    p9("cp", "-a", f"{remote}/put", f"{remote}/cp")
    same(top, f"{local}/cp", True)
    for path in (f"{local}/put", f"{back}/get", f"{local}/cp"):
        blocks = os.stat(f"{path}/sparse").st_blocks
        check(blocks <= 128, f"{path}/sparse has {blocks} blocks")
    if not with_xattrs:
        raise Skip("without extended attributes, which this file system has not")


@suite.test
def trees_plain():
    """Without -a: permission bits and the time of change, of links, too."""
    top = make_tree(fresh("tree"))
    remote, local = shared()
    back = fresh("back")
    for args, copy in ((("put", "-r", top, f"{remote}/put"), f"{local}/put"),
                       (("get", "-r", f"{remote}/put", f"{back}/get"), f"{back}/get"),
                       (("cp", "-r", f"{remote}/put", f"{remote}/cp"), f"{local}/cp")):
        _, err = p9(*args, code=1 if args[0] == "put" else 0)
        if args[0] == "put":
            check(len(lines(err)) == 1 and b"FIFO" in err, err)
        same(top, copy, False, False)
        equal(os.stat(f"{copy}/a/hard").st_nlink, 1)
        equal(os.stat(f"{copy}/a/setuid").st_mode & 0o7777, 0o755)


@suite.test
def at_any_depth_and_msize():
    top = make_tree(fresh("tree"))
    remote, local = shared()
    back = fresh("back")
    for i, options in enumerate((("-q", "1"), ("-q", "2"), ("-q", "700"), ("-m", "4096"), ("-m", "65536", "-q", "5"))):
        p9(*options, "put", "-a", "--check", top, f"{remote}/p{i}")
        same(top, f"{local}/p{i}", True)
        p9(*options, "get", "-a", "--check", f"{remote}/p{i}", f"{back}/g{i}")
        same(top, f"{back}/g{i}", True)
        p9(*options, "cp", "-a", "--check", f"{remote}/p{i}", f"{remote}/c{i}")
        same(top, f"{local}/c{i}", True)


@suite.test
def many_links_of_many_files():
    top = fresh("tree")
    for i in range(50):
        write(f"{top}/x{i % 7}/f{i}", pattern(i * 300, i))
        for k in range(1, 5):
            os.makedirs(f"{top}/y{k}/z", exist_ok=True)
            os.link(f"{top}/x{i % 7}/f{i}", f"{top}/y{k}/z/l{i}")
    remote, local = shared()
    p9("put", "-rH", top, f"{remote}/put")
    p9("cp", "-rH", f"{remote}/put", f"{remote}/cp")
    p9("get", "-rH", f"{remote}/cp", f"{top}.back")
    for copy in (f"{local}/put", f"{local}/cp", f"{top}.back"):
        equal(describe(copy, True)[1], describe(top, True)[1])
        for i in range(50):
            equal(read(f"{copy}/y4/z/l{i}"), pattern(i * 300, i))
    p9("put", "-rH", "--continue", f"{top}/.", f"{remote}/put")
    equal(describe(f"{local}/put", True)[1], describe(top, True)[1])


@suite.test
def a_link_far_below_the_target():
    top = fresh("tree")
    deep = "/".join(["some-name"] * 40)
    write(f"{top}/{deep}/f", b"far")
    os.link(f"{top}/{deep}/f", f"{top}/near")
    remote, local = shared()
    p9("put", "-rH", top, f"{remote}/t")
    equal(os.stat(f"{local}/t/near").st_ino, os.stat(f"{local}/t/{deep}/f").st_ino)
    p9("-m", "4096", "cp", "-rH", f"{remote}/t", f"{remote}/u")
    equal(os.stat(f"{local}/u/near").st_ino, os.stat(f"{local}/u/{deep}/f").st_ino)


@suite.test
def operands():
    here = fresh()
    for n in "abc":
        write(f"{here}/{n}", n.encode())
    remote, local = shared()
    p9("put", f"{here}/a", f"{here}/b", remote)
    equal(sorted(os.listdir(local)), ["a", "b"])
    p9("put", f"{here}/c", f"{remote}/renamed")
    equal(read(f"{local}/renamed"), b"c")
    out = fresh()
    p9("get", f"{remote}/a", f"{remote}/b", out)
    equal((read(f"{out}/a"), read(f"{out}/b")), (b"a", b"b"))
    p9("get", f"{remote}/renamed", cwd=out)
    equal(read(f"{out}/renamed"), b"c")
    equal(p9("get", f"{remote}/a", f"{remote}/b", "-")[0], b"ab")
    p9("cp", f"{remote}/a", f"{remote}/b", f"{remote}/new", code=1)
    p9("mkdir", f"{remote}/dir")
    p9("cp", f"{remote}/a", f"{remote}/b", f"{remote}/dir")
    equal(sorted(os.listdir(f"{local}/dir")), ["a", "b"])
    _, err = p9("cp", f"{remote}/dir", f"{remote}/dir2", code=1)
    check(b"EISDIR" in err and b"-r" in err, err)
    p9("cp", "-r", f"{remote}/dir", f"{remote}/dir2")
    equal(sorted(os.listdir(f"{local}/dir2")), ["a", "b"])
    p9("cp", "-r", f"{remote}/dir/.", f"{remote}/dir2")
    equal(sorted(os.listdir(f"{local}/dir2")), ["a", "b"])
    p9("cp", "-r", f"{remote}/dir", f"{remote}/dir2")
    equal(sorted(os.listdir(f"{local}/dir2")), ["a", "b", "dir"])
    p9("get", "-r", f"{remote}/dir", f"{out}/made")
    equal(sorted(os.listdir(f"{out}/made")), ["a", "b"])
    p9("put", "-r", f"{here}/.", f"{remote}/dot")  # made
    p9("put", "-r", f"{here}/.", f"{remote}/dot")
    equal(sorted(os.listdir(f"{local}/dot")), ["a", "b", "c"])
    _, err = p9("get", f"{remote}/a", f"{remote}/missing", f"{remote}/b", out, code=1)
    check(len(lines(err)) == 1 and b"missing" in err, err)
    for command in (("cp", f"{remote}/a"), ("get",), ("put",), ("cp", "--nonsense", "a", "b")):
        p9(*command, code=2)


@suite.test
def cp_refuses_what_cp_refuses():
    remote, local = shared()
    write(f"{local}/d/f", b"content")
    os.link(f"{local}/d/f", f"{local}/d/same")
    for to in ("d/f", "d/same", "d"):
        p9("cp", f"{remote}/d/f", f"{remote}/{to}", code=1)
        equal(read(f"{local}/d/f"), b"content", to)
    for to in ("d/new", "d", "d/sub/new"):
        os.makedirs(f"{local}/d/sub", exist_ok=True)
        _, err = p9("cp", "-r", f"{remote}/d", f"{remote}/{to}", code=1)
        check(b"into itself" in err, err)
        check(not os.path.exists(f"{local}/d/new") and not os.path.exists(f"{local}/d/d"))
    p9("cp", "-r", remote, f"{remote}/d/deeper", code=1)


@suite.test
def over_what_is_there():
    remote, local = shared()
    here = fresh()
    write(f"{here}/f", b"short")
    write(f"{local}/f", pattern(100000))
    write(f"{local}/target", b"untouched")
    p9("put", f"{here}/f", f"{remote}/f")
    equal(read(f"{local}/f"), b"short")
    write(f"{here}/big", pattern(100000))
    p9("get", f"{remote}/f", f"{here}/big")
    equal(read(f"{here}/big"), b"short")
    os.symlink("target", f"{local}/t/x") if os.path.isdir(f"{local}/t") else None
    # a link in the way of a file of a tree is not written through
    os.mkdir(f"{local}/tree")
    os.symlink("../target", f"{local}/tree/f")
    os.mkdir(f"{here}/tree")
    write(f"{here}/tree/f", b"new")
    p9("put", "-r", f"{here}/tree", remote, code=1)
    equal(read(f"{local}/target"), b"untouched")
    # a link takes the place of a link
    os.unlink(f"{here}/tree/f")
    os.symlink("elsewhere", f"{here}/tree/f")
    p9("put", "-r", f"{here}/tree", remote)
    equal(os.readlink(f"{local}/tree/f"), "elsewhere")
    p9("cp", f"{remote}/f", "/dev-null-is-not-here/x", code=1)
    p9("get", f"{remote}/f", "/dev/null")


@suite.test
def continue_goes_on():
    data = pattern(20 << 20)
    here = fresh()
    remote, local = shared()
    write(f"{here}/f", data)
    os.utime(f"{here}/f", ns=(5, 10**18 + 5))
    for part in (0, 1, 1 << 20, (9 << 20) + 123, len(data) - 1):
        for args, copy in ((("put", f"{here}/f", f"{remote}/f"), f"{local}/f"),
                           (("cp", f"{remote}/f", f"{remote}/g"), f"{local}/g"),
                           (("get", f"{remote}/f", f"{here}/g"), f"{here}/g")):
            write(copy, data[:part])
            p9(args[0], "--continue", *args[1:])
            check(read(copy) == data, f"{args}: not whole after {part} bytes")
            equal(os.stat(copy).st_mtime_ns, 10**18 + 5)
    # what is complete is not copied again, what has another time is
    write(f"{local}/f", b"\0" * len(data))
    os.utime(f"{local}/f", ns=(5, 10**18 + 5))
    p9("put", "--continue", f"{here}/f", f"{remote}/f")
    check(read(f"{local}/f") != data, "it was copied though size and time were the same")
    p9("put", "--continue", "--check", f"{here}/f", f"{remote}/f")
    check(read(f"{local}/f") == data, "--check does not find that what was there differs")
    write(f"{here}/g", b"\0" * len(data))
    os.utime(f"{here}/g", ns=(5, 10**18 + 5))
    p9("get", "--continue", "--check", f"{remote}/f", f"{here}/g")
    check(read(f"{here}/g") == data, "get --continue --check")
    # longer than the source: anew
    write(f"{here}/g", data + b"more")
    p9("get", "--continue", f"{remote}/f", f"{here}/g")
    check(read(f"{here}/g") == data, "a longer one")


@suite.test
def continue_a_tree():
    top = make_tree(fresh("tree"))
    remote, local = shared()
    p9("put", "-a", top, f"{remote}/t")
    os.unlink(f"{local}/t/sizes/f5")
    with open(f"{local}/t/sizes/f8", "r+b") as f:
        f.truncate(1500000)
    untouched = os.stat(f"{local}/t/sizes/f7").st_ctime_ns
    os.unlink(f"{local}/t/fifo")
    p9("put", "-a", "--continue", f"{top}/.", f"{remote}/t")
    same(top, f"{local}/t", True)
    equal(os.stat(f"{local}/t/sizes/f7").st_ctime_ns, untouched, "a complete file was touched")


@suite.test
def sparse_on_request():
    here = fresh()
    remote, local = shared()
    write(f"{here}/zeros", b"\0" * (4 << 20) + b"end")
    p9("put", f"{here}/zeros", f"{remote}/full")
    p9("put", "--sparse", f"{here}/zeros", f"{remote}/thin")
    p9("cp", "-S", f"{remote}/full", f"{remote}/thin2")
    p9("get", "-S", f"{remote}/full", f"{here}/thin")
    full = os.stat(f"{local}/full").st_blocks
    check(full >= 8192, full)
    for path in (f"{local}/thin", f"{local}/thin2", f"{here}/thin"):
        equal(read(path), b"\0" * (4 << 20) + b"end")
        check(os.stat(path).st_blocks <= 64, path, os.stat(path).st_blocks)
    # all hole, and a hole at the end
    for name, data in (("hole", 0), ("tail", 5)):
        with open(f"{here}/{name}", "wb") as f:
            f.write(b"x" * data)
            f.truncate(3000000)
        p9("put", f"{here}/{name}", f"{remote}/{name}")
        p9("cp", f"{remote}/{name}", f"{remote}/{name}2")
        p9("get", f"{remote}/{name}2", f"{here}/{name}2")
        for path in (f"{local}/{name}", f"{local}/{name}2", f"{here}/{name}2"):
            equal(read(path), b"x" * data + b"\0" * (3000000 - data))
            check(os.stat(path).st_blocks <= 64, path)


@suite.test
def special_files():
    if not ROOT_USER:
        raise Skip("devices need root")
    top = fresh("tree")
    os.mknod(f"{top}/null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mkfifo(f"{top}/fifo", 0o620)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{top}/sock")
    os.chown(f"{top}/fifo", 5, 6)
    remote, local = shared()
    p9("put", "-rpD", top, f"{remote}/t")
    p9("cp", "-a", f"{remote}/t", f"{remote}/u")
    p9("get", "-a", f"{remote}/u", f"{top}.back")
    sock.close()
    for copy in (f"{local}/t", f"{local}/u", f"{top}.back"):
        for name in ("null", "fifo", "sock"):
            a, b = os.lstat(f"{top}/{name}"), os.lstat(f"{copy}/{name}")
            equal((b.st_mode, b.st_rdev, b.st_uid, b.st_gid, b.st_mtime_ns),
                  (a.st_mode, a.st_rdev, a.st_uid, a.st_gid, a.st_mtime_ns), f"{copy}/{name}")


@suite.test
def owners_that_cannot_be_given_away():
    """Like cp -p: no complaint, and no set-id bits that would be another's."""
    if not ROOT_USER:
        raise Skip("needs two users")
    remote, local = shared()
    write(f"{local}/s", b"s", 0o6755)
    os.chown(f"{local}/s", 1234, 1234)
    os.chmod(f"{local}/s", 0o6755)
    os.chmod(local, 0o777)
    p9("cp", "-p", f"{remote}/s", f"{remote}/t", user=65534)
    st = os.stat(f"{local}/t")
    equal((st.st_uid, st.st_mode & 0o7777), (65534, 0o755))


@suite.test
def growing_and_odd_files():
    if not os.path.isdir("/proc/self"):
        raise Skip("no /proc")
    here = fresh()
    remote, local = shared()
    p9("put", "/proc/self/cmdline", f"{remote}/cmd")  # says it is empty and is not
    check(b"put" in read(f"{local}/cmd"))
    write(f"{here}/x", b"1")
    read_end, write_end = os.pipe()
    os.write(write_end, b"from a pipe")
    os.close(write_end)
    p = subprocess.run([state["p9"], "-s", ADDRESS, "put", "/dev/stdin", f"{remote}/pipe"], stdin=read_end, check=False,
                       stderr=subprocess.PIPE, timeout=60)
    os.close(read_end)
    equal((p.returncode, p.stderr), (0, b""))
    equal(read(f"{local}/pipe"), b"from a pipe")


def on_terminal(*arguments):
    master, slave = pty.openpty()
    p = subprocess.Popen([state["p9"], "-s", ADDRESS, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=slave)
    os.close(slave)
    out = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        out += part
    os.close(master)
    equal(p.wait(60), 0)
    return out.decode()


@suite.test
def progress():
    here = fresh()
    remote, _ = shared()
    write(f"{here}/t/big", pattern(8 << 20) * 40)
    out = on_terminal("put", f"{here}/t/big", f"{remote}/big")
    if "\r" in out:  # it took long enough to show
        check(re.search(r"big  [\d.]+[KMG]  [\d.]+[KMG]?/s", out), out[-300:])
    _, err = p9("put", f"{here}/t/big", f"{remote}/big2")
    equal(err, b"")
    _, err = p9("put", "--progress", "-r", f"{here}/t", f"{remote}/t")
    last = lines(err)[-1]
    check(re.fullmatch(r"p9: .*t  320M  [\d.]+[KMG]/s(  \d+ files)?  in [\d.]+ s", last), err)
    check(b"\r" not in err and b"\033" not in err, err)


@suite.test
def a_slash_asks_for_a_directory():
    """`put x /f/` must not overwrite f."""
    remote, local = shared()
    here = fresh()
    write(f"{here}/x", b"new")
    for top in (local, here):
        write(f"{top}/f", b"old")
        write(f"{top}/t/y", b"y")
    for command, source, target, top in (("put", f"{here}/x", remote, local), ("cp", f"{remote}/t/y", remote, local),
                                         ("mv", f"{remote}/t/y", remote, local), ("get", f"{remote}/t/y", here, here)):
        for name in ("f", "none"):
            _, err = p9(command, source, f"{target}/{name}/", code=1)
            one_error(err, f"{target}/{name}/", "ENOTDIR")
        equal((read(f"{top}/f"), os.path.lexists(f"{top}/none")), (b"old", False), command)
        equal(read(f"{local}/t/y"), b"y", command)
    p9("put", "-r", f"{here}/t", f"{remote}/none/")
    p9("get", "-r", f"{remote}/t", f"{here}/none/")
    p9("mv", f"{remote}/t", f"{remote}/moved/")
    equal([read(f"{top}/y") for top in (f"{local}/none", f"{here}/none", f"{local}/moved")], [b"y"] * 3)


@suite.test
def continue_leaves_special_files():
    """A FIFO or socket that an earlier copy made is no error; another kind of file in its place is."""
    remote, local = shared()
    here = fresh()
    for top in (f"{local}/t", f"{here}/t"):
        write(f"{top}/f", b"f")
        os.mkfifo(f"{top}/pipe")
        os.mknod(f"{top}/sock", stat.S_IFSOCK | 0o644)
    for command, source, target, copy in (("get", f"{remote}/t", f"{here}/got", f"{here}/got"),
                                          ("put", f"{here}/t", f"{remote}/put", f"{local}/put"),
                                          ("cp", f"{remote}/t", f"{remote}/cp", f"{local}/cp")):
        p9(command, "-a", source, target)
        inode = os.lstat(f"{copy}/pipe").st_ino
        os.utime(f"{copy}/pipe", (1, 1))
        p9(command, "-a", "--continue", f"{source}/.", target)
        equal(os.lstat(f"{copy}/pipe").st_ino, inode, command)
        check(os.lstat(f"{copy}/pipe").st_mtime > 1, command, "its time is not kept")
        for make in (lambda path: write(path, b"other"), lambda path: os.mknod(path, stat.S_IFSOCK | 0o644)):
            os.unlink(f"{copy}/pipe")
            make(f"{copy}/pipe")
            _, err = p9(command, "-a", "--continue", f"{source}/.", target, code=1)
            one_error(err, f"{target}/pipe", "EEXIST")


@suite.test
def a_name_is_not_cut():
    remote, local = shared()
    here, name = fresh(), 256 * "n"
    write(f"{here}/f", b"f")
    write(f"{local}/f", b"f")
    for command, source, target in (("get", f"{remote}/f", here), ("put", f"{here}/f", remote), ("cp", f"{remote}/f", remote)):
        _, err = p9(command, source, f"{target}/{name}", code=1)
        one_error(err, "ENAMETOOLONG")
        p9(command, source, f"{target}/{name[1:]}")
    equal(sorted(os.listdir(here)), ["f", name[1:]])
    p9("ln", "-s", name, f"{remote}/link")
    equal(os.readlink(f"{local}/link"), name)


@suite.test
def the_end_to_blame_is_named():
    """A copy that cannot be made is not said to be the fault of its source."""
    if not ROOT_USER:
        raise Skip("root may act as another user")
    remote, local = shared()
    here = fresh()
    for top in (local, here):
        write(f"{top}/f", b"f")
        write(f"{top}/t/f", b"f")
        write(f"{top}/closed", b"c", 0o600)
        os.chmod(top, 0o755)
    for command, source, target in (("put", here, remote), ("get", remote, here), ("cp", remote, remote)):
        for options, name, blamed in (((), "f", f"{target}/new"), (("-r",), "t", f"{target}/new"),
                                      ((), "closed", f"{source}/closed")):
            _, err = p9(command, *options, f"{source}/{name}", f"{target}/new", code=1, user=65534)
            one_error(err, f": {blamed}: ", "EACCES")
