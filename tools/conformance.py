#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs `p9 conform` against p9d and Debian's diod and writes the table of doc/conformance.md, below its line "## Results".

usage: tools/conformance.py [BUILD-DIRECTORY]      (or: make conformance)

diod is run three times, because some of its crashes are races; a check whose results differ is told as "varies".
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENT = os.path.join(ROOT, "doc", "conformance.md")
DIOD = "/usr/sbin/diod"
SUITES = ["wire", "session", "walk", "open", "io", "attr", "tree", "xattr", "lock", "flush", "readdir", "concurrency",
          "limits", "hostile"]
RUNS = 3


def word(check):
    """The result of a check as the table tells it."""
    return "CRASH" if check["crash"] else check["result"]


def start(command, path, log):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    for _ in range(500):
        if os.path.exists(path) or process.poll() is not None:
            break
        time.sleep(0.01)
    if process.poll() is not None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    time.sleep(0.2)
    return process


def conform(p9, *arguments):
    got = subprocess.run([p9, *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=590, check=False)
    return json.loads(got.stdout)


def run_p9d(p9d, p9, top):
    share, path = os.path.join(top, "p9d"), os.path.join(top, "p9d.sock")
    os.mkdir(share)
    with open(os.path.join(top, "p9d.log"), "wb") as log:
        process = start([p9d, "-l", f"unix:{path}", "-e", f"main={share},squash=none"], path, log)
        try:
            return conform(p9, "conform", "--json", f"unix:{path}")
        finally:
            process.terminate()
            process.wait()


def run_diod(p9, top):
    """One run against diod, which a script starts anew whenever the kit asks for it."""
    where = tempfile.mkdtemp(prefix="diod-", dir=top)
    share, path, pid = (os.path.join(where, n) for n in ("share", "s", "pid"))
    os.mkdir(share)
    script = os.path.join(where, "restart")
    with open(script, "w", encoding="utf-8") as f:
        f.write(f"""cd {where} && rm -f core
kill -9 $(cat {pid} 2>/dev/null) 2>/dev/null
rm -f {path}
{DIOD} -f -n -L {where}/log -l {path} -e {share} </dev/null >/dev/null 2>&1 &
echo $! >{pid}
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do test -S {path} && break; sleep 0.1; done
""")
    subprocess.run(["sh", script], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    try:
        return conform(p9, "-a", share, "conform", "--json", "--restart", f"sh {script} >/dev/null 2>&1",
                       f"unix:{path}")
    finally:
        with open(pid, encoding="utf-8") as f:
            os.kill(int(f.read()), signal.SIGKILL)


def diod_version():
    got = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "diod"], stdout=subprocess.PIPE, text=True, check=False)
    return got.stdout or "unknown version"


def cell(text):
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("_", "\\_")


def came(check):
    """What came instead, in a line."""
    lines = [re.sub(r"^\S*/(\w[\w-]*\.9t:\d+):\d+: ", r"\1: ", line) for line in (check["why"] or "").split("\n")]
    text = next((line for line in lines if line.startswith(("the server", "no "))), lines[0])
    text = re.sub(r"unix:\S+: ", "", text)
    text = re.sub(r"qid\.path is \d+, not = \d+", "qid.path is that of another file", text)
    if text.startswith("the server"):
        return text
    got = next((line[10:] for line in lines if line.startswith("got ")), "")
    error = re.match(r"Rlerror .*(ecode=\w+)", got)
    return f"{text}{' (' + error.group(1) + ')' if error else ''}"


def totals(words):
    return (f"{sum(w == 'pass' for w in words)} passed, {sum(w in ('fail', 'CRASH') for w in words)} failed, "
            f"{sum(w == 'skip' for w in words)} skipped" +
            (f", {sum(w == 'varies' for w in words)} vary" if "varies" in words else ""))


def table(ours, theirs):
    """The generated part of the document. theirs: several runs."""
    one = {c["id"]: c for c in ours["checks"]}
    many = [{c["id"]: c for c in run["checks"]} for run in theirs]
    verdict = {i: word(many[0][i]) if len({word(m[i]) for m in many}) == 1 else "varies" for i in one}
    out = ["## Results", "", "Made by `make conformance`; not written by hand.", "",
           f"- **p9d {ours['p9']}**: {totals([word(c) for c in one.values()])}; of these crashes or hangs: "
           f"{sum(c['crash'] for c in one.values())}",
           f"- **diod {diod_version()}**, {len(theirs)} runs: {totals(list(verdict.values()))}; of the failures crashes or "
           f"hangs: {sum(v == 'CRASH' for v in verdict.values())}", ""]
    for suite in SUITES:
        out += [f"### {suite}", "", "| check | expected | source | p9d | diod |", "|---|---|---|---|---|"]
        for i, c in one.items():
            if c["suite"] == suite:
                out.append(f"| {i} | {cell(c['expect'])} | {cell(c['source'])} | {word(c)} | {verdict[i]} |")
        out.append("")
    for name, checks in (("p9d", [one]), ("diod", many)):
        notes = [(i, m[i]) for i in one for m in checks if m[i]["result"] != "pass"]
        seen = set()
        out += [f"### What came, and why not: {name}", "", "| check | result | |", "|---|---|---|"]
        for i, c in notes:
            if i not in seen:
                seen.add(i)
                out.append(f"| {i} | {word(c)} | {cell(came(c))} |")
        out.append("")
    return "\n".join(out)


def read_table():
    """id -> {"p9d": ..., "diod": ...} of the document."""
    rows = {}
    with open(DOCUMENT, encoding="utf-8") as f:
        for line in f:
            m = re.match(r"\| ([\w-]+) \| .* \| (pass|fail|CRASH|skip|varies|not run) \| (pass|fail|CRASH|skip|varies|not run) \|$",
                         line)
            if m:
                rows[m.group(1)] = {"p9d": m.group(2), "diod": m.group(3)}
    return rows


def main():
    build = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build")
    p9d, p9 = os.path.join(build, "p9d"), os.path.join(build, "p9")
    if not os.path.exists(DIOD):
        raise SystemExit(f"conformance: {DIOD} is missing (tools/deps.sh check)")
    top = tempfile.mkdtemp(prefix="p9-conformance-")
    try:
        ours = run_p9d(p9d, p9, top)
        theirs = [run_diod(p9, top) for _ in range(RUNS)]
    finally:
        shutil.rmtree(top, ignore_errors=True)
    with open(DOCUMENT, encoding="utf-8") as f:
        head = f.read().split("## Results\n")[0]
    with open(DOCUMENT, "w", encoding="utf-8") as f:
        f.write(head + table(ours, theirs))
    print(f"conformance: p9d {ours['passed']} passed, {ours['failed']} failed, {ours['skipped']} skipped; "
          f"diod {theirs[0]['passed']} passed, {theirs[0]['failed']} failed, {theirs[0]['skipped']} skipped")
    return 1 if ours["failed"] or ours["stopped"] else 0


if __name__ == "__main__":
    sys.exit(main())
