# SPDX-License-Identifier: BSD-2-Clause
"""Measures isolation: one export of p9d lies on a file system that stops answering, eight requests to it hang, and
meanwhile another connection uses another export. Its p99 must stay within 3 times what it is otherwise.

Normal and hung are measured in turn, on the same p9d; the figure is the median of the ratios.
"""
import argparse
import os
import socket
import statistics
import struct
import subprocess
import sys
import time

import fixture

LIMIT = 3.0
TVERSION, TATTACH, TWALK, TLOPEN, TGETATTR, TREADDIR, TREAD, TSTATFS = 100, 104, 110, 12, 24, 40, 116, 8
NOFID, NOTAG = 0xffffffff, 0xffff


def text(s):
    return struct.pack("<H", len(s)) + s.encode()


class Client:
    """As much of a 9P client as it takes to leave requests hanging."""

    def __init__(self, addr, aname):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(addr.removeprefix("unix:"))
        self.sock.settimeout(20)
        self.call(TVERSION, struct.pack("<I", 65536) + text("9P2000.L"), NOTAG)
        self.call(TATTACH, struct.pack("<II", 0, NOFID) + text("") + text(aname) + struct.pack("<I", os.geteuid()))

    def send(self, kind, body, tag):
        self.sock.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)

    def reply(self):
        head = self._bytes(7)
        size, kind, tag = struct.unpack("<IBH", head)
        body = self._bytes(size - 7)
        if kind == 7:
            raise SystemExit(f"bench: hang: p9d answered with error {struct.unpack('<I', body)[0]}")
        return tag

    def _bytes(self, n):
        got = b""
        while len(got) < n:
            more = self.sock.recv(n - len(got))
            if not more:
                raise SystemExit("bench: hang: p9d closed the connection")
            got += more
        return got

    def call(self, kind, body, tag=0):
        self.send(kind, body, tag)
        self.reply()

    def walk(self, newfid, *names):
        self.call(TWALK, struct.pack("<IIH", 0, newfid, len(names)) + b"".join(map(text, names)))

    def prepare(self, rounds):
        """fids 1..8 are the files, 1 and 2 are open; 9 is the directory, open; 1000.. are for hang() to open."""
        for i in range(8):
            self.walk(1 + i, f"hang{i}")
        self.walk(9)
        for turn in range(rounds):
            self.walk(1000 + turn, "hang6")
        for fid in (1, 2, 9):
            self.call(TLOPEN, struct.pack("<II", fid, 0))

    def hang(self, turn):
        """Sends eight requests that need the file system, and waits for none."""
        requests = [(TREAD, struct.pack("<IQI", 1, 0, 4096)), (TREAD, struct.pack("<IQI", 2, 0, 4096)),
                    (TGETATTR, struct.pack("<IQ", 3, 0x7ff)), (TGETATTR, struct.pack("<IQ", 4, 0x7ff)),
                    (TWALK, struct.pack("<IIH", 0, 2000 + turn, 1) + text("hang5")),
                    (TLOPEN, struct.pack("<II", 1000 + turn, 0)),
                    (TREADDIR, struct.pack("<IQI", 9, 0, 8192)), (TSTATFS, struct.pack("<I", 8))]
        for tag, (kind, body) in enumerate(requests):
            self.send(kind, body, tag)

    def answered(self):
        """True if anything has come already."""
        self.sock.setblocking(False)
        try:
            return len(self.sock.recv(1, socket.MSG_PEEK)) > 0
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(20)

    def collect(self):
        return sorted(self.reply() for _ in range(8)) == list(range(8))


class Gate:
    """The file that makes hangfs wait."""

    def __init__(self, path):
        self.path = path

    def close(self):
        open(self.path, "w").close()

    def open(self):
        if os.path.exists(self.path):
            os.unlink(self.path)


CASES = [("getattr", 1), ("getattr", 32), ("randread", 1), ("randread", 32)]


def p99(opt, server, workload, depth):
    files = ["big"] if workload == "randread" else [f"small/f{i:02}" for i in range(fixture.SMALL)]
    got = fixture.run_bench(opt.p9, server, workload, opt.secs, depth, 65536, files)
    if "failed" in got:
        raise SystemExit("bench: hang: " + got["failed"])
    return got["p99_us"]


def measure(opt, server, gate):
    """[(normal, hung)] of each case."""
    figures = {case: [] for case in CASES}
    client = Client(server.addrs[0], "hang")
    client.prepare(opt.rounds)
    for turn in range(opt.rounds):
        normal = {case: p99(opt, server, *case) for case in CASES}
        gate.close()
        client.hang(turn)
        time.sleep(0.2)
        for case in CASES:
            figures[case].append((normal[case], p99(opt, server, *case)))
        hung = not client.answered()
        gate.open()
        if not client.collect() or not hung:
            raise SystemExit("bench: hang: the requests did not hang, or not all were answered afterwards")
    return figures


def run(opt, top, work):
    export, mount = os.path.join(top, "export"), os.path.join(work, "mnt")
    os.mkdir(export)
    os.mkdir(mount)
    fixture.make_files(export, listed=1)
    gate = Gate(os.path.join(work, "gate"))
    fuse = subprocess.Popen([opt.hangfs, gate.path, mount], stderr=subprocess.DEVNULL)
    server = None
    try:
        end = time.monotonic() + 5
        while not os.path.ismount(mount):
            if fuse.poll() is not None or time.monotonic() > end:
                raise SystemExit("bench: hang: hangfs could not be mounted (no /dev/fuse?)")
            time.sleep(0.02)
        sock = os.path.join(work, "p9d.sock")
        argv = [opt.p9d, "-l", "unix:" + sock, "-e", "bench=" + export, "-e", "hang=" + mount, "--identity", "single"]
        server = fixture.Server("p9d", argv, ["unix:" + sock], "bench", sock + ".log")
        return measure(opt, server, gate)
    finally:
        gate.open()
        if server:
            server.stop()
        subprocess.run(["fusermount3", "-u", "-z", mount], check=False, stderr=subprocess.DEVNULL)
        fuse.wait(5)


def main():
    p = argparse.ArgumentParser(prog="bench/hang.py", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    fixture.add_options(p)
    p.add_argument("--hangfs", default=os.path.join(fixture.ROOT, "build", "bench", "hangfs"), metavar="PATH")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--secs", type=float, default=1.0)
    p.add_argument("--no-write", action="store_true", help="leave BENCHMARKING.md as it is")
    opt = p.parse_args()
    if opt.quick:
        opt.rounds, opt.secs, opt.no_write = 1, 0.2, True
    if not os.access(opt.hangfs, os.X_OK):
        print("bench: hang: hangfs was not built (libfuse3-dev is missing); skipped")
        return 0
    with fixture.Scratch(opt.dir) as top, fixture.Scratch() as work:
        figures = run(opt, top, work)
    head = "| other connection, other export | p99 normal, µs | p99 while 8 requests hang, µs | ratio | target | result |"
    lines = [head,
             "|---|---:|---:|---:|---:|---:|"]
    missed = 0
    for (workload, depth), pairs in figures.items():
        ratio = statistics.median(b / a for a, b in pairs)
        missed += ratio > LIMIT
        lines.append(f"| {workload}, depth {depth} | {statistics.median(a for a, b in pairs):.1f} | "
                     f"{statistics.median(b for a, b in pairs):.1f} | {ratio:.2f} | ≤ {LIMIT:g} | "
                     f"{'PASS' if ratio <= LIMIT else 'miss'} |")
    print("\n".join(lines))
    if not opt.no_write:
        fixture.write_results("hang", "\n".join(lines))
    return 1 if missed and opt.strict else 0


if __name__ == "__main__":
    sys.exit(main())
