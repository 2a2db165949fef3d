#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs every talk (tests/talk/*.9t) against p9d over each transport.

A job is one script over one transport. It has a p9d and a directory of its own, so jobs run in parallel; the directory is
made afresh before every test. After its talks a server must have no descriptor left that it did not have before, and must
end at SIGTERM with status 0 and without its socket.

  transport   how
  unix, tcp   p9d -l unix:... -l tcp:127.0.0.1:..., one server for all connections of the script
  vhost       the same p9d with -l vhost-user:...; a connection is a device, a message a request of its ring. Tests of what
              only a stream can do say `requires stream`
  stdio       p9d -l stdio, one server for each connection (its end and exit status are checked by `p9 talk --spawn`)

A script picks a server other than `main` with its line `server NAME` (see SERVERS)."""
import argparse
import concurrent.futures
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.geteuid() == 0
OPEN = "squash=none"
TRANSPORTS = ("unix", "tcp", "stdio", "vhost")

# name -> (exports, options, transports); {d}: the fixture, {b}: another directory
SERVERS = {
    "main": (["main={d}," + OPEN], [], ("unix", "tcp", "stdio", "vhost")),
    "multi": (["a={d}," + OPEN, "b={b}," + OPEN, "ro={d},ro," + OPEN], [], ("unix", "tcp", "stdio", "vhost")),
    "ro": (["main={d},ro," + OPEN], [], ("unix", "tcp", "vhost")),
    "dev": (["main={d},dev," + OPEN], [], ("unix", "vhost")),
    "small": (["main={d}"], ["--msize", "8192"], ("unix", "tcp", "stdio", "vhost")),
    "squash": (["main={d}"], [], ("tcp",)),
    "unixdefault": (["main={d}"], [], ("unix",)),
    "checked": (["main={d},checks=server," + OPEN], [], ("unix", "tcp", "vhost")),
    "trusted": (["main={d},checks=client," + OPEN], [], ("unix", "tcp", "vhost")),
    "client": (["main={d}"], [], ("unix",)),
    "single": (["main={d}"], ["--identity", "single"], ("unix", "tcp", "stdio", "vhost")),
}


def pattern(n):
    """The bytes of pattern(n) of the language."""
    return bytes((i * 31 + (i >> 8) * 7) & 255 for i in range(n))


def write(path, data, mode=0o644):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)


def make_template(top):
    """The tree every test finds: d (the export), b (a second one), outside (what nobody may reach)."""
    d, outside = os.path.join(top, "d"), os.path.join(top, "outside")
    for p in (d, outside, os.path.join(top, "b")):
        os.mkdir(p, 0o755)
    os.makedirs(os.path.join(d, "d/sub/deep"), 0o755)
    os.mkdir(os.path.join(d, "e"), 0o755)
    write(os.path.join(top, "b/only-in-b"), b"b\n")
    write(os.path.join(outside, "secret"), b"outside\n")
    os.mkdir(os.path.join(outside, "dir"), 0o755)
    for name, data, mode in (("f", b"hello\n", 0o644), ("solo", b"solo\n", 0o644), ("empty", b"", 0o644),
                             ("exec", b"#!/bin/sh\n", 0o755), ("readonly", b"r\n", 0o444), ("private", b"p\n", 0o600),
                             ("d/a", b"a\n", 0o644), ("d/sub/deep/leaf", b"leaf\n", 0o644),
                             ("big", pattern(262144), 0o644)):
        write(os.path.join(d, name), data, mode)
    os.link(os.path.join(d, "f"), os.path.join(d, "hl"))
    for name, target in (("sl", "f"), ("dsl", "d"), ("dangling", "nowhere"), ("outlink", "../outside/secret"),
                         ("outdir", "../outside"), ("rootlink", "/"), ("selflink", "selflink")):
        os.symlink(target, os.path.join(d, name))
    os.mkfifo(os.path.join(d, "fifo"), 0o644)
    s = socket.socket(socket.AF_UNIX)
    cwd = os.getcwd()
    os.chdir(d)
    s.bind("sock")
    os.chdir(cwd)
    s.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fds(pid):
    out = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            out.append(f"{fd} -> " + os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return sorted(out)


class Server:
    """One p9d, started before the talks of a job and judged after them."""

    def __init__(self, p9d, spec, dirs, work, log):
        exports, options, _ = spec
        self.sock = os.path.join(work, "s")
        self.vhost = os.path.join(work, "v")
        self.tcp = f"tcp:127.0.0.1:{free_port()}"
        self.args = [p9d] + options
        for e in exports:
            self.args += ["-e", e.format(**dirs)]
        self.spawn = " ".join(shlex.quote(a) for a in self.args + ["-l", "stdio"])
        self.log = open(log, "ab")
        self.proc = None

    def start(self):
        self.proc = subprocess.Popen(self.args + ["-l", "unix:" + self.sock, "-l", self.tcp,
                                                  "-l", f"vhost-user:{self.vhost},tag=talk"], stdin=subprocess.DEVNULL,
                                     stdout=self.log, stderr=self.log)
        host, port = self.tcp[4:].split(":")
        for _ in range(6000):
            if self.proc.poll() is not None:
                return f"p9d ended at start with status {self.proc.returncode}"
            try:
                socket.create_connection((host, int(port)), 1).close()
                c = socket.socket(socket.AF_UNIX)
                c.connect(self.sock)
                c.close()
                break
            except OSError:
                time.sleep(0.01)
        else:
            return "p9d does not listen after 60 s"
        # each of the three listeners keeps a descriptor in reserve, which it opens a moment after it listens
        for _ in range(1500):
            if sum("/dev/null" in fd for fd in fds(self.proc.pid)) >= 4:
                break
            time.sleep(0.02)
        self.before = self.settled(None)
        return None

    def settled(self, want):
        """Descriptors, once they are as many as before or 30 s have passed."""
        now = fds(self.proc.pid)
        for _ in range(1500):
            last, now = now, fds(self.proc.pid)
            if (want is None and len(last) == len(now)) or (want is not None and len(now) <= len(want)):
                break
            time.sleep(0.02)
        return now

    def stop(self):
        """Ends the server; a list of what was wrong."""
        bad = []
        if self.proc.poll() is None:
            after = self.settled(self.before)
            if len(after) > len(self.before):
                bad.append("descriptors left: " + ", ".join(sorted(set(after) - set(self.before))))
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(60)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
                bad.append("p9d does not end at SIGTERM, killed")
        if self.proc.returncode != 0:
            bad.append(f"p9d ended with status {self.proc.returncode}")
        if os.path.exists(self.sock) or os.path.exists(self.vhost):
            bad.append("p9d left its socket behind")
        return bad


def server_of(script):
    m = re.search(r"^server\s+(\w+)", open(script).read(), re.M)
    return m.group(1) if m else "main"


class Job:
    def __init__(self, script, transport, opt, top):
        self.script, self.transport, self.opt = script, transport, opt
        self.name = f"{os.path.basename(script)[:-3]}/{transport}"
        self.work = os.path.join(top, self.name.replace("/", "-"))
        self.counts = [0, 0, 0]
        self.output, self.problems = "", []

    def command(self, server, dirs):
        setup = ("find . ../b ../outside -mindepth 1 -delete && cp -a {t}/d/. . && cp -a {t}/b/. ../b && "
                 "cp -a {t}/outside/. ../outside").format(t=shlex.quote(self.opt.template))
        cmd = [self.opt.p9]
        if self.transport == "unix":
            cmd += ["-s", "unix:" + server.sock]
        elif self.transport == "tcp":
            cmd += ["-s", server.tcp]
        elif self.transport == "vhost":
            cmd += ["-s", "vhost-user:" + server.vhost]
        cmd += ["talk", "--host", dirs["d"], "--setup", setup, "--timeout", str(self.opt.timeout)]
        if self.transport == "stdio":
            cmd += ["--spawn", server.spawn]
        if self.opt.filter:
            cmd += ["--filter", self.opt.filter]
        return cmd + (["-v"] if self.opt.verbose else []) + [self.script]

    def run(self):
        dirs = {n: os.path.join(self.work, n) for n in ("d", "b", "outside")}
        for p in dirs.values():
            os.makedirs(p, 0o755)
        env = dict(os.environ, P9=self.opt.p9, P9D=self.opt.p9d, P9_SLOW="1" if self.opt.slow else "",
                   PATH=os.path.dirname(os.path.realpath(sys.executable)) + ":" + os.environ.get("PATH", "") + ":/usr/sbin")
        log = os.path.join(self.work, "p9d.log")
        server = Server(self.opt.p9d, SERVERS[server_of(self.script)], dirs, self.work, log)
        if self.transport != "stdio":
            bad = server.start()
            if bad:
                self.problems.append(bad)
                self.log = log
                return self
        try:
            r = subprocess.run(self.command(server, dirs), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=env, timeout=600)
            self.output = r.stdout.decode("utf-8", "replace")
            err = r.stderr.decode("utf-8", "replace")
            if self.transport == "stdio":
                open(log, "a").write(err)
            elif err:
                self.output += err
            status = r.returncode
        except subprocess.TimeoutExpired as e:
            self.output = (e.stdout or b"").decode("utf-8", "replace")
            self.problems.append("talk not finished after 600 s")
            status = 1
        m = re.search(r"^# talk: (\d+) passed, (\d+) failed, (\d+) skipped", self.output, re.M)
        self.counts = [int(x) for x in m.groups()] if m else [0, 0, 0]
        if status not in (0, 1) or not m or (status == 1 and self.counts[1] == 0 and not self.problems):
            self.problems.append(f"p9 talk ended with status {status}")
        if self.transport != "stdio":
            self.problems += server.stop()
        text = open(log, errors="replace").read()
        if re.search(r"Sanitizer|runtime error:|Assertion", text):
            self.problems.append("a sanitizer or assertion spoke, see the log")
        self.log = log
        return self

    def report(self):
        lines = self.output.splitlines()
        failing = False
        for line in lines:
            failing = line.startswith("not ok") or (failing and line.startswith("#"))
            if failing and not line.startswith("# talk:"):
                print(line if line.startswith("#") else f"{line}  [{self.name}]")
            if self.opt.verbose or (self.opt.skips and "# SKIP" in line):
                print(line)
        for p in self.problems:
            print(f"not ok - {self.name}: {p}")
        if self.problems and not sum(self.counts):
            print("".join(f"#   {line}\n" for line in lines[-5:]), end="")
        if self.problems:
            print("".join("#   " + x for x in open(self.log, errors="replace").readlines()[-15:]), end="")
        sys.stdout.flush()


def options():
    build = os.path.join(HERE, "../../build")
    ap = argparse.ArgumentParser(description="run the talks against p9d")
    ap.add_argument("--p9d", default=os.path.join(build, "p9d"))
    ap.add_argument("--p9", default=os.path.join(build, "p9"))
    ap.add_argument("--filter", help="only tests with this in their name")
    ap.add_argument("--transport", action="append", choices=TRANSPORTS, help="default: all")
    ap.add_argument("--timeout", type=int, default=30000, help="longest wait for a reply, ms")
    ap.add_argument("--keep", action="store_true", help="keep the directories and logs")
    ap.add_argument("--slow", action="store_true", help="also what waits for timers of 10 s and more")
    ap.add_argument("--skips", action="store_true", help="print the tests that are skipped, and why")
    ap.add_argument("-v", "--verbose", action="store_true")
    ap.add_argument("-j", "--jobs", type=int, default=2 * (os.cpu_count() or 1))
    ap.add_argument("scripts", nargs="*", help="default: all of this directory")
    opt = ap.parse_args()
    opt.p9, opt.p9d = os.path.abspath(opt.p9), os.path.abspath(opt.p9d)
    return opt


def main():
    opt = options()
    top = tempfile.mkdtemp(prefix="p9talk-")
    os.chmod(top, 0o755)
    opt.template = os.path.join(top, "template")
    os.mkdir(opt.template, 0o755)
    make_template(opt.template)
    scripts = opt.scripts or sorted(os.path.join(HERE, f) for f in os.listdir(HERE) if f.endswith(".9t"))
    jobs = []
    for s in scripts:
        known = SERVERS[server_of(s)][2]
        jobs += [Job(s, t, opt, top) for t in opt.transport or TRANSPORTS if t in known]
    passed = failed = skipped = 0
    with concurrent.futures.ThreadPoolExecutor(opt.jobs) as pool:
        for job in pool.map(Job.run, jobs):
            job.report()
            passed += job.counts[0]
            failed += job.counts[1] + len(job.problems)
            skipped += job.counts[2]
    if opt.keep:
        print(f"# kept: {top}")
    else:
        shutil.rmtree(top, ignore_errors=True)
    print(f"talk: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
