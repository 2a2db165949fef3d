# SPDX-License-Identifier: BSD-2-Clause
"""find, du, tree, touch, mkfifo, --json, completion."""
import base64
import json
import os
import re
import stat
import subprocess
import time

from common import ADDRESS, check, equal, fresh, lines, one_error, p9, pattern, shared, state, suite, write
from suite import ROOT, Skip


def small_tree():
    remote, local = shared("look")
    write(f"{local}/a/one.c", b"int x;\n")
    write(f"{local}/a/b/two.c", pattern(3000))
    write(f"{local}/a/b/Three.H", b"")
    write(f"{local}/.hidden/x", b"1")
    write(f"{local}/big", pattern(200000))
    os.symlink("big", f"{local}/link")
    os.link(f"{local}/big", f"{local}/a/again")
    os.mkfifo(f"{local}/pipe")
    os.utime(f"{local}/a/one.c", (1, 10**9))
    return remote, local


def found(remote, *tests):
    return sorted(p[len(remote):] for p in lines(p9("find", remote, *tests)[0]))


@suite.test
def find_all():
    remote, local = small_tree()
    want = sorted([""] + [os.path.join(w, n)[len(local):] for w, ds, fs in os.walk(local) for n in ds + fs])
    equal(found(remote), want)
    equal(found(remote, "-mindepth", "1"), want[1:])


@suite.test
def find_tests():
    remote, _ = small_tree()
    equal(found(remote, "-name", "*.c"), ["/a/b/two.c", "/a/one.c"])
    equal(found(remote, "-iname", "*.h"), ["/a/b/Three.H"])
    equal(found(remote, "-type", "d"), ["", "/.hidden", "/a", "/a/b"])
    equal(found(remote, "-type", "l"), ["/link"])
    equal(found(remote, "-type", "pl"), ["/link", "/pipe"])
    equal(found(remote, "-size", "+100k"), ["/a/again", "/big"])
    equal(found(remote, "-type", "f", "-size", "3000c"), ["/a/b/two.c"])
    equal(found(remote, "-empty"), ["/a/b/Three.H"])
    equal(found(remote, "-type", "f", "!", "-name", "*.*", "-links", "1"), ["/.hidden/x"])
    equal(found(remote, "-links", "2", "-type", "f"), ["/a/again", "/big"])
    equal(found(remote, "-maxdepth", "1", "-name", "*i*"), ["/.hidden", "/big", "/link", "/pipe"])
    equal(found(remote, "-mtime", "+1000"), ["/a/one.c"])
    equal(found(remote, "-type", "f", "-name", "*.c", "-newer", remote + "/a/one.c"), ["/a/b/two.c"])
    equal(found(remote, "-path", "*/b/*"), ["/a/b/Three.H", "/a/b/two.c"])
    p9("find", remote, "-nonsense", code=2)
    p9("find", remote, "-size", "x", code=2)
    p9("find", "/nowhere", code=1)


@suite.test
def find_print0_and_names_with_newlines():
    remote, local = shared()
    write(f"{local}/a\nb")
    equal(p9("find", remote, "-type", "f", "-print0")[0], f"{remote}/a\nb".encode() + b"\0")


@suite.test
def find_in_a_wide_and_deep_tree():
    remote, local = shared()
    for i in range(30):
        for k in range(30):
            write(f"{local}/d{i}/e{k}/f")
    deep = local + "/deep"
    for _ in range(300):
        deep += "/d"
    os.makedirs(deep)
    equal(len(found(remote, "-type", "f")), 900)
    equal(len(found(remote, "-name", "d")), 300)
    for depth in ("1", "3", "512"):
        out = p9("-q", depth, "find", remote, "-size", "-100")[0]
        equal(len(lines(out)), 900 + 900 + 30 + 301 + 1, f"depth {depth}")


@suite.test
def du_agrees_with_du():
    remote, local = small_tree()
    want = {}
    for line in subprocess.run(["du", "-ak", local], check=True, stdout=subprocess.PIPE).stdout.decode().splitlines():
        size, path = line.split("\t")
        want[path[len(local):]] = int(size)
    got = {p[len(remote):]: int(s) for s, p in (line.split("\t") for line in lines(p9("du", "-a", remote)[0]))}
    equal(got[""], want[""])
    counted = set(got) ^ set(want)
    check(counted <= {"/big", "/a/again"}, "these differ:", counted)  # which link is counted is not said
    equal(lines(p9("du", "-s", remote)[0]), [f"{want['']}\t{remote}"])
    equal(len(lines(p9("du", "-d", "1", remote)[0])), 3)
    size = int(p9("du", "-s", "--apparent-size", remote + "/big")[0].split()[0])
    equal(size, (200000 + 1023) // 1024)
    check(lines(p9("du", "-sh", remote)[0])[0].split("\t")[0].endswith("K"))


@suite.test
def tree_draws():
    remote, _ = small_tree()
    out = p9("tree", remote, env={"LC_ALL": "C"})[0].decode()
    equal(out, f"{remote}\n|-- a\n|   |-- again\n|   |-- b\n|   |   |-- Three.H\n|   |   `-- two.c\n|   `-- one.c\n"
          "|-- big\n|-- link -> big\n`-- pipe\n\n2 directories, 7 files\n")
    out = p9("tree", "-L", "1", "-d", "-a", remote, env={"LC_ALL": "C"})[0].decode()
    equal(out, f"{remote}\n|-- .hidden\n`-- a\n\n2 directories\n")
    p9("tree", "/nowhere", code=1)


@suite.test
def touch_sets_times():
    remote, local = shared()
    path, there = f"{local}/f", f"{remote}/f"
    before = time.time() - 2
    p9("touch", there)
    check(os.stat(path).st_mtime >= before and os.stat(path).st_size == 0)
    p9("touch", "-d", "@1000000000.25", there)
    equal(os.stat(path).st_mtime_ns, 1000000000250000000)
    equal(os.stat(path).st_atime_ns, 1000000000250000000)
    p9("touch", "-m", "-d", "2001-02-03 04:05:06.789Z", there)
    equal((os.stat(path).st_mtime_ns, os.stat(path).st_atime_ns), (981173106789000000, 1000000000250000000))
    p9("touch", "-a", "-d", "2001-02-03T04:05:06+01:30", there)
    equal(os.stat(path).st_atime_ns, (981173106 - 5400) * 10**9)
    p9("touch", "-t", "200001020304.05", there, env={"TZ": "UTC"})
    equal(os.stat(path).st_mtime_ns, 946782245 * 10**9)
    p9("touch", "-r", there, f"{remote}/g")
    equal(os.stat(f"{local}/g").st_mtime_ns, 946782245 * 10**9)
    p9("touch", "-c", f"{remote}/not")
    check(not os.path.exists(f"{local}/not"))
    os.symlink("f", f"{local}/l")
    p9("touch", "-h", "-d", "@5", f"{remote}/l")
    equal((os.lstat(f"{local}/l").st_mtime, os.stat(path).st_mtime), (5, 946782245))
    for wrong, path in (("g", f"{remote}/none"), ("not", f"{remote}/none")):
        _, err = p9("touch", "-r", path, f"{remote}/{wrong}", code=1)
        one_error(err, f"{path}: ", "ENOENT")
    check(not os.path.exists(f"{local}/not"), "made, though there is no time for it")
    p9("touch", "-d", "2024-02-29", there)
    for bad in ("yesterday-ish", "@", "2001-13-45", "2001-01-01 00:00:00+99x", "2023-02-29", "2024-02-31 12:00Z", "@" + "9" * 20):
        p9("touch", "-d", bad, there, code=2)
    for bad in ("1", "0001010000", "13320000", "01010000.7", "202402311200"):
        p9("touch", "-t", bad, there, code=2 if bad != "0001010000" else 0)


@suite.test
def mkfifo_makes_fifos():
    remote, local = shared()
    p9("mkfifo", "-m", "620", f"{remote}/p", f"{remote}/q")
    st = os.stat(f"{local}/p")
    check(stat.S_ISFIFO(st.st_mode) and st.st_mode & 0o777 == 0o620, oct(st.st_mode))
    p9("mkfifo", f"{remote}/p", code=1)
    p9("mkfifo", "-m", "999", f"{remote}/r", code=2)


NAMES = [b"plain", b"quo\"te", b"back\\slash", b"new\nline", b"tab\t", b"\x01\x1f\x7f", "\u00e9\u20ac\U0001f600".encode(),
         b"bad\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"cut\xe2\x82", b" "]


def name_of(item):
    return base64.b64decode(item["name_b64"]) if "name_b64" in item else item["name"].encode()


@suite.test
def json_says_any_name():
    remote, local = shared()
    for name in NAMES:
        write(os.path.join(os.fsencode(local), name), b"x")
    items = json.loads(p9("ls", "--json", "-a", remote)[0].decode("utf-8", "strict"))
    equal(sorted(name_of(i) for i in items if i["name"] not in (".", "..")), sorted(NAMES))
    check(all("name_b64" in i for i in items if "\ufffd" in i["name"]))
    paths = [f"{remote}/".encode() + n for n in NAMES]
    items = json.loads(p9("stat", "--json", *paths)[0].decode("utf-8", "strict"))
    equal([base64.b64decode(i["path_b64"]) if "path_b64" in i else i["path"].encode() for i in items], paths)


@suite.test
def json_of_ls():
    remote, local = small_tree()
    os.utime(f"{local}/big", ns=(1, 1234567890123456789))
    items = {i["name"]: i for i in json.loads(p9("ls", "--json", remote)[0])}
    equal(sorted(items), ["a", "big", "link", "pipe"])
    big = items["big"]
    st = os.stat(f"{local}/big")
    equal([big[k] for k in ("type", "mode", "nlink", "uid", "gid", "size", "blocks", "mtime", "mtime_nsec", "path")],
          ["file", st.st_mode & 0o7777, 2, st.st_uid, st.st_gid, 200000, st.st_blocks, 1234567890, 123456789, f"{remote}/big"])
    equal((items["link"]["target"], items["link"]["type"], items["a"]["type"], items["pipe"]["type"]),
          ("big", "symlink", "directory", "fifo"))
    keys = {tuple(sorted(i)) for i in items.values()}
    equal(len(keys), 1, "the keys differ")
    everything = json.loads(p9("ls", "--json", "-R", "-a", remote)[0])
    equal(len([i for i in everything if i["name"] == "two.c"]), 1)
    equal(json.loads(p9("ls", "--json", "-U", remote + "/.hidden")[0])[0]["name"], "x")
    out, err = p9("ls", "--json", "/nowhere", code=1)
    equal(json.loads(out), [])
    check(b"ENOENT" in err)
    equal(json.loads(p9("ls", "--json", "-d", remote)[0])[0]["type"], "directory")


@suite.test
def json_of_stat_df_bench():
    remote, local = small_tree()
    item = json.loads(p9("stat", "--json", remote + "/link", remote + "/big")[0])
    equal((item[0]["type"], item[0]["target"], item[1]["size"]), ("symlink", "big", 200000))
    equal(item[1]["mtime"] * 10**9 + item[1]["mtime_nsec"], os.stat(f"{local}/big").st_mtime_ns)
    df = json.loads(p9("df", "--json", "/", remote)[0])
    fs = os.statvfs(local)
    equal((df[0]["path"], df[1]["path"], df[0]["size"]), ("/", remote, fs.f_blocks * df[0]["bsize"]))
    bench = json.loads(p9("bench", "-t", "0.1", "--json", "getattr")[0])
    check(bench["ops"] > 0 and bench["errors"] == 0, bench)


@suite.test
def ls_marks_directories():
    remote, _ = small_tree()
    equal(lines(p9("ls", "-p", remote)[0]), ["a/", "big", "link", "pipe"])


@suite.test
def depth_is_an_option():
    for bad in ("0", "x", "100000"):
        p9("-q", bad, "ls", "/", code=2)
    p9("-q", "1", "ls", "-l", "/")
    p9("--depth", "2", "ls", "-lR", "/")


COMPLETE = r"""
_have() { :; }
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_p9
printf '%s\n' "${COMPREPLY[@]}"
"""


def complete(*words, cwd=None):
    script = os.path.join(ROOT, "doc", "p9.bash")
    env = {**os.environ, "P9_SERVER": ADDRESS, "PATH": os.path.dirname(state["p9"]) + ":" + os.environ["PATH"]}
    got = subprocess.run(["bash", "-c", COMPLETE, "bash", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         check=False, env=env, timeout=60, cwd=cwd)
    check(not got.stderr, got.stderr)
    return sorted(got.stdout.decode().split("\n")[:-1])


@suite.test
def bash_completes():
    if subprocess.run(["bash", "-c", ":"], check=False).returncode:
        raise Skip("no bash")
    remote, local = small_tree()
    write(f"{local}/with space/x")
    commands = complete("p9", "")
    check({"get", "put", "cp", "find", "du", "tree", "touch", "mkfifo", "lock", "ls", "bench"} <= set(commands), commands)
    equal(complete("p9", "mkf"), ["mkfifo"])
    check({"--continue", "--check", "--links", "-r"} <= set(complete("p9", "cp", "-")), complete("p9", "cp", "-"))
    equal(complete("p9", "cp", "--con"), ["--continue"])
    equal(complete("p9", "ls", remote + "/b"), [remote + "/big"])
    equal(complete("p9", "-u", "0", "ls", remote + "/a"), [remote + "/a/"])
    equal(complete("p9", "ls", remote + "/a/"), [remote + "/a/again", remote + "/a/b/", remote + "/a/one.c"])
    equal(complete("p9", "ls", remote + "/w"), [remote + "/with\\ space/"])
    equal(complete("p9", "ls", remote[1:] + "/b"), [remote[1:] + "/big"])
    here = fresh()
    write(f"{here}/local-file")
    equal(complete("p9", "put", "loc", cwd=here), ["local-file"])
    equal(complete("p9", "get", remote + "/big", "loc", cwd=here), ["local-file"])


@suite.test
def complaints_look_alike():
    """Those of getopt, too; and nothing comes on standard output before there is an answer."""
    for words in (["ls", "--no-such"], ["rm", "-Z"], ["find", "--no-such"], ["touch", "-d"]):
        out, err = p9(*words, code=2)
        equal(out, b"")
        check(lines(err)[0].startswith(f"p9: {words[0]}: "), err)
        check(lines(err)[1].startswith("usage: p9 "), err)
    equal(p9("df", "/nothing", code=1)[0], b"")
    equal(p9("df", address="unix:/nowhere", code=3)[0], b"")
    equal(p9("find", "--", "/", "-maxdepth", "0")[0], b"/\n")


@suite.test
def bash_completes_every_option():
    """Those of --help and of the manual, for each command."""
    with open(os.path.join(ROOT, "doc", "p9.1"), encoding="utf-8") as f:
        manual = f.read()
    commands = [c for c in complete("p9", "") if c != "help"]
    for command in commands:
        text = p9(command, "--help")[0].decode()
        equal(p9("help", command)[0].decode(), text, command)
        words = set(re.findall(r"^ +(-[a-zA-Z0-9]|--[a-z-]+)\b", text, re.M))
        words |= set(re.findall(r"  (--?[a-z0-9-]+)  ", text)) | {"--help"}
        offered = complete("p9", command, "-")
        check(words <= set(offered), command, words - set(offered))
        equal(len(offered), len(set(offered)), command)
        unknown = [w for w in offered if w.lstrip("-") not in re.sub(r"\\-", "-", manual)]
        equal(unknown, [], command)
    equal([w for w in complete("p9", "find", "-") if len(w) == 2], [])
    check({"-name", "-print0", "-maxdepth", "-perm", "-iname"} <= set(complete("p9", "find", "-")))
    check({"-q", "--depth", "-s"} <= set(complete("p9", "-")))
    check("vhost-user:" in complete("p9", "-s", ""))
    equal(complete("p9", "--depth", "5", "mkf"), ["mkfifo"])
    remote, local = shared()
    write(f"{local}/bad\udcff".encode(errors="surrogateescape"), b"")
    equal(complete("p9", "ls", remote + "/"), [remote + "/$'bad\\377'"])


def run_sh(script, *words):
    """sh, with p9 as $1, its address as $2, and then `words`."""
    return subprocess.run(["sh", "-c", script, "sh", state["p9"], ADDRESS, *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60)


@suite.test
def standard_output_that_is_not_there():
    """Closed, it must not be taken by the connection; full, that is said, also of long listings."""
    remote, local = shared()
    write(f"{local}/f", b"text")
    for i in range(3000):
        write(f"{local}/long/{i:0100}")
    for command, path in (("cat", "f"), ("ls", ""), ("ls", "long"), ("stat", "f"), ("find", "long"), ("df", "")):
        for redirection in (">&-", ">/dev/full"):
            got = run_sh(f'"$1" -s "$2" {command} "$3" {redirection}', f"{remote}/{path}")
            equal(got.returncode, 1, f"{command} {redirection}")
            one_error(got.stderr, "standard output")
    got = run_sh('"$1" -s "$2" get "$3" - >&- <&-', f"{remote}/f")
    equal(got.returncode, 1)
    equal(run_sh('"$1" -s "$2" cat "$3" 2>&-', f"{remote}/f").stdout, b"text")
    got = run_sh('"$1" -s "$2" ls "$3" | :', f"{remote}/long")
    equal((got.returncode, got.stderr), (0, b""), "a closed pipe is no complaint")
