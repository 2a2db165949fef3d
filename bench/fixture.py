# SPDX-License-Identifier: BSD-2-Clause
"""What run.py and hang.py share: the servers, the files they export, one run of `p9 bench`."""
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL, BIG_MIB, LISTED = 64, 64, 100_000


def add_options(parser):
    """Options that say which binaries are measured and where."""
    build = os.path.join(ROOT, "build")
    parser.add_argument("--p9d", default=os.path.join(build, "p9d"), metavar="PATH")
    parser.add_argument("--p9", default=os.path.join(build, "p9"), metavar="PATH")
    parser.add_argument("--dir", default=build, metavar="DIR",
                        help="where the fixture goes, on a disk (default: build)")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, roughly")


def memory_dir():
    """A directory in memory if there is one with room, else the usual temporary directory."""
    try:
        s = os.statvfs("/dev/shm")
        if s.f_bavail * s.f_frsize > 1 << 30 and os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    except OSError:
        pass
    return tempfile.gettempdir()


class Scratch:
    """A directory that goes away with the `with` block."""

    def __init__(self, where=None):
        self.path = tempfile.mkdtemp(prefix="p9bench-", dir=where)

    def __enter__(self):
        return self.path

    def __exit__(self, *exc):
        shutil.rmtree(self.path, ignore_errors=True)


def make_files(top, listed=LISTED):
    """small/f00.. of 4 KiB, big of 64 MiB, list/ with many empty files; all of it read once."""
    os.makedirs(os.path.join(top, "small"))
    os.makedirs(os.path.join(top, "list"))
    for i in range(SMALL):
        with open(os.path.join(top, "small", f"f{i:02}"), "wb") as f:
            f.write(os.urandom(4096))
    block = os.urandom(1 << 20)
    with open(os.path.join(top, "big"), "wb") as f:
        for _ in range(BIG_MIB):
            f.write(block)
    for i in range(listed):
        os.close(os.open(os.path.join(top, "list", f"entry-{i:06}"), os.O_CREAT | os.O_WRONLY, 0o644))
    with open(os.path.join(top, "big"), "rb") as f:
        while f.read(1 << 20):
            pass
    os.listdir(os.path.join(top, "list"))


class Server:
    """A server that runs, and how p9 reaches it. addrs[0] is its Unix socket."""

    def __init__(self, name, argv, addrs, aname, log):
        self.name, self.addrs, self.aname, self.log = name, addrs, aname, log
        with open(log, "wb") as f:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        end = time.monotonic() + 10
        while not self._answers():
            if self.proc.poll() is not None or time.monotonic() > end:
                self.stop()
                with open(log, errors="replace") as f:
                    raise SystemExit(f"bench: {name} did not start: {' '.join(argv)}\n{f.read()}")
            time.sleep(0.02)

    def _answers(self):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.addrs[0].removeprefix("unix:"))
            return True
        except OSError:
            return False

    def stop(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(3)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def busy_seconds():
    """CPU time that the machine has spent on anything, all CPUs."""
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq, steal, *_ = map(int, f.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid):
    """CPU time of a process, all threads."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def foreign_load(run, pid):
    """Calls run(); returns its result and the share of the CPUs that neither it nor process pid has used meanwhile."""
    def ours():
        r = resource.getrusage(resource.RUSAGE_CHILDREN)
        return r.ru_utime + r.ru_stime + process_seconds(pid)
    began, busy, own = time.monotonic(), busy_seconds(), ours()
    result = run()
    spent = time.monotonic() - began
    return result, max(0.0, busy_seconds() - busy - (ours() - own)) / (spent * os.cpu_count())


def run_bench(p9, server, workload, secs, depth, msize, files=(), tcp=False, extra=()):
    """One run of `p9 bench --json`; returns its figures, or {"failed": text}."""
    addr = server.addrs[1 if tcp else 0]
    argv = [p9, "-s", addr, "-a", server.aname, "-m", str(msize), "bench", "--json", "-t", str(secs), "-q", str(depth),
            "--server-pid", str(server.proc.pid), *extra]
    for f in files:
        argv += ["--file", f]
    try:
        done = subprocess.run(argv + [workload], capture_output=True, text=True, timeout=60 + 10 * secs)
    except subprocess.TimeoutExpired:
        return {"failed": f"{server.name}: {workload}: no end after {60 + 10 * secs:.0f} s"}
    if done.returncode != 0:
        text = done.stderr.strip().splitlines()
        return {"failed": f"{server.name}: {workload}: {text[-1] if text else 'exit ' + str(done.returncode)}"}
    return json.loads(done.stdout)


def machine():
    """One line about the machine: what is needed to judge the figures, and no more."""
    model = "unknown CPU"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    kernel = ".".join(os.uname().release.split(".")[:2])
    return f"{os.cpu_count()} CPUs ({model}), Linux {kernel}"


def write_results(name, text):
    """Puts text between the markers <!-- NAME --> and <!-- /NAME --> of BENCHMARKING.md."""
    path = os.path.join(ROOT, "BENCHMARKING.md")
    with open(path) as f:
        old = f.read()
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in old or end not in old:
        raise SystemExit(f"bench: BENCHMARKING.md has lost its marker {begin.strip()}")
    new = old[:old.index(begin) + len(begin)] + text.rstrip("\n") + "\n" + old[old.index(end):]
    with open(path + ".new", "w") as f:
        f.write(new)
    os.replace(path + ".new", path)
