# SPDX-License-Identifier: BSD-2-Clause
"""Measures p9d beside bench/limit and diod, and writes the table of ratios into BENCHMARKING.md.

The servers run all the time, on the same files. A round measures every row, in each row one server right after the
other (in turn a different one first), so that what the machine does meanwhile hits all of them. A ratio is taken
within a round; the table shows the median of the rounds' ratios.
"""
import argparse
import os
import shutil
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field

import fixture

K64, M1 = 65536, 1 << 20
CALM = 0.05     # share of the CPUs that others may use during a measurement without its being repeated


@dataclass
class Row:
    """A row of the table. cpu, ops, p99: targets of p9d's ratios; None: for information."""
    name: str
    workload: str
    depth: int
    msize: int = K64
    cpu: float = None
    ops: float = None
    p99: float = None
    bytes: bool = False     # ops are compared as MB/s: the servers' messages differ in size
    tcp: bool = False
    memory: bool = False    # the export is on a tmpfs instead of a disk
    users: bool = False     # p9d with --identity users
    sleep: bool = False     # the client sleeps at once until replies come, as the kernel's does
    rounds: dict = field(default_factory=dict)
    failed: list = field(default_factory=list)

    def files(self):
        if self.workload in ("getattr", "walk", "small"):
            return [f"small/f{i:02}" for i in range(fixture.SMALL)]
        return {"read": ["big"], "randread": ["big"], "readdir": ["list"]}.get(self.workload, [])


MAIN = [
    Row("getattr, depth 32", "getattr", 32, cpu=1.5, ops=10),
    Row("walk+clunk, depth 32", "walk", 32, cpu=1.5, ops=5),
    Row("small, depth 32", "small", 32, cpu=1.5, ops=5),
    Row("create, depth 32", "create", 32, cpu=1.5, ops=3, memory=True),
    Row("randread 4K, depth 32", "randread", 32, cpu=1.4, ops=4),
    Row("read, msize 1 MiB, depth 8", "read", 8, M1, cpu=0.5, ops=1, bytes=True),
    Row("read, msize 64 KiB, depth 8", "read", 8, K64, ops=1, p99=0.5),
    Row("write, msize 1 MiB, depth 8", "write", 8, M1, cpu=1.15, ops=1.1, bytes=True),
    Row("readdir of 100,000, msize 1 MiB", "readdir", 1, M1, cpu=1.3, ops=1.2),
    Row("getattr, depth 1", "getattr", 1, cpu=1.3, ops=1),
    Row("walk+clunk, depth 1", "walk", 1, cpu=1.3, ops=1),
    Row("small, depth 1", "small", 1, cpu=1.3, ops=1),
    Row("create, depth 1", "create", 1, cpu=1.3, ops=1, memory=True),
    Row("randread 4K, depth 1", "randread", 1, cpu=1.3, ops=1),
    Row("read, msize 1 MiB, depth 1", "read", 1, M1, cpu=1.3, ops=1, bytes=True),
    Row("write, msize 1 MiB, depth 1", "write", 1, M1, cpu=1.3, ops=1, bytes=True),
]
EXTRA = [
    Row("randwrite 4K, depth 32", "randwrite", 32),
    Row("write, msize 64 KiB, depth 8", "write", 8, K64),
    Row("disk: create, depth 32", "create", 32),
    Row("disk: create, depth 1", "create", 1),
    Row("tmpfs: small, depth 32", "small", 32, memory=True),
    Row("tmpfs: randread 4K, depth 32", "randread", 32, memory=True),
    Row("tmpfs: read, msize 1 MiB, depth 8", "read", 8, M1, bytes=True, memory=True),
    Row("a client that sleeps: getattr, depth 32", "getattr", 32, sleep=True),
    Row("a client that sleeps: small, depth 32", "small", 32, sleep=True),
    Row("a client that sleeps: getattr, depth 1", "getattr", 1, sleep=True),
    Row("a client that sleeps: small, depth 1", "small", 1, sleep=True),
    Row("TCP: getattr, depth 32", "getattr", 32, tcp=True),
    Row("TCP: getattr, depth 1", "getattr", 1, tcp=True),
    Row("TCP: small, depth 32", "small", 32, tcp=True),
    Row("TCP: randread 4K, depth 32", "randread", 32, tcp=True),
    Row("TCP: read, msize 1 MiB, depth 8", "read", 8, M1, bytes=True, tcp=True),
    Row("TCP: write, msize 1 MiB, depth 8", "write", 8, M1, bytes=True, tcp=True),
    Row("users: getattr, depth 32", "getattr", 32, users=True),
    Row("users: small, depth 32", "small", 32, users=True),
    Row("users: create, depth 32", "create", 32, users=True, memory=True),
]


def start_limit(opt, run, export, name):
    sock = os.path.join(run, name + ".sock")
    return fixture.Server("limit", [opt.limit, "unix:" + sock, export], ["unix:" + sock], "", sock + ".log")


def start_diod(run, export):
    diod = shutil.which("diod") or shutil.which("diod", path="/usr/sbin:/sbin")
    if diod is None:
        print("bench: diod is not installed; its columns stay empty", file=sys.stderr)
        return None
    sock, port, conf = os.path.join(run, "diod.sock"), fixture.free_port(), os.path.join(run, "diod.conf")
    open(conf, "w").close()
    argv = [diod, "-f", "-n", "-c", conf, "-L", "stderr", "-l", sock, "-l", f"127.0.0.1:{port}", "-e", export]
    return fixture.Server("diod", argv, ["unix:" + sock, f"tcp:127.0.0.1:{port}"], export, sock + ".log")


def start_p9d(opt, run, export, name, identity):
    if not os.access(opt.p9d, os.X_OK):
        print(f"bench: {opt.p9d}: not there; its columns stay empty", file=sys.stderr)
        return None
    sock, port = os.path.join(run, name + ".sock"), fixture.free_port()
    argv = [opt.p9d, "-l", "unix:" + sock, "-l", f"tcp:127.0.0.1:{port}", "-e", "bench=" + export,
            "--identity", identity]
    return fixture.Server("p9d", argv, ["unix:" + sock, f"tcp:127.0.0.1:{port}"], "bench", sock + ".log")


def start_all(opt, run, exports):
    """The servers that the rows need: {(memory, users): {name: server}}."""
    groups = {}
    for key in sorted({(r.memory, r.users) for r in opt.rows}):
        memory, users = key
        where = os.path.join(run, f"{'memory' if memory else 'disk'}-{'users' if users else 'single'}")
        os.makedirs(where)
        servers = groups[key] = {}
        servers["limit"] = start_limit(opt, where, exports[memory], "limit")
        servers["p9d"] = start_p9d(opt, where, exports[memory], "p9d", "users" if users else "single")
        servers["diod"] = start_diod(where, exports[memory])
    return groups


def measure_calm(opt, row, server):
    """One measurement; again, up to --tries times, while others use the machine. The least disturbed one counts."""
    best = None
    for _ in range(opt.tries):
        got, load = fixture.foreign_load(
            lambda: fixture.run_bench(opt.p9, server, row.workload, opt.secs, row.depth, row.msize, row.files(),
                                      row.tcp, ["--sleep"] if row.sleep else []),
            server.proc.pid)
        got["foreign"] = load
        if best is None or "failed" in best or load < best["foreign"]:
            best = got
        if load <= CALM and "failed" not in got:
            break
    return best


def measure(opt, row, servers, turn):
    """One round of one row."""
    names = [n for n in ("limit", "p9d", "diod") if servers.get(n) and not (row.tcp and n == "limit")]
    for name in names[turn % len(names):] + names[:turn % len(names)]:
        got = measure_calm(opt, row, servers[name])
        if "failed" in got:
            row.failed.append(got["failed"])
        row.rounds.setdefault(name, []).append(None if "failed" in got else got)


def disturbance(rows):
    """How much of the machine others had, over all measurements that count: median and the highest tenth."""
    loads = sorted(g["foreign"] for row in rows for rounds in row.rounds.values() for g in rounds if g)
    if not loads:
        return ""
    worst = loads[len(loads) * 9 // 10]
    return f"others had {100 * statistics.median(loads):.0f} % of the CPUs (median; {100 * worst:.0f} % in the worst tenth)"


def ratio(row, one, other, get):
    """Median of the rounds' ratios, or None."""
    pairs = zip(row.rounds.get(one, []), row.rounds.get(other, []))
    values = [get(a) / get(b) for a, b in pairs if a and b and get(a) and get(b)]
    return statistics.median(values) if values else None


def median(row, name, get):
    values = [get(r) for r in row.rounds.get(name, []) if r and get(r) is not None]
    return statistics.median(values) if values else None


def speed(row):
    return (lambda r: r["mb_per_s"]) if row.bytes else (lambda r: r["ops_per_s"])


def cpu_of(row):
    """Server CPU of an op; per MB where ops differ in size."""
    return lambda r: r["server_cpu_us_per_op"]


def show(value, digits=2):
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}"


def verdict(row, cpu, ops, p99):
    """PASS, miss, or nothing for a row without targets or figures."""
    checks = [(cpu, row.cpu, 1), (ops, row.ops, -1), (p99, row.p99, 1)]
    known = [sign * (value - target) <= 0 for value, target, sign in checks if value is not None and target is not None]
    if row.failed:
        return "failed"
    return "" if not known else "PASS" if all(known) else "miss"


def reach(row, result):
    """Says of a row that misses against diod when the limit itself does: then no server could meet it here."""
    best = ratio(row, "limit", "diod", speed(row))
    below = result == "miss" and row.ops and best is not None and best < row.ops
    return f"miss (limit/diod: {best:.1f})" if below else result


def table_line(row):
    cpu = ratio(row, "p9d", "limit", cpu_of(row))
    ops = ratio(row, "p9d", "diod", speed(row))
    p99 = ratio(row, "p9d", "diod", lambda r: r["p99_us"]) if not row.bytes else None
    unit = " MB/s" if row.bytes else ""
    result = verdict(row, cpu, ops, p99)
    cells = [row.name, show(median(row, "limit", cpu_of(row))), show(median(row, "p9d", cpu_of(row))),
             show(median(row, "diod", cpu_of(row))), show(cpu), f"≤ {row.cpu}" if row.cpu else "",
             show(median(row, "limit", speed(row)), 0) + unit, show(median(row, "p9d", speed(row)), 0) + unit,
             show(median(row, "diod", speed(row)), 0) + unit, show(ops), f"≥ {row.ops}" if row.ops else "",
             show(p99), f"≤ {row.p99}" if row.p99 else "", reach(row, result)]
    return [c if c.strip() != "MB/s" else "" for c in cells], result


HEAD = ["workload", "limit µs/op", "p9d µs/op", "diod µs/op", "CPU p9d/limit", "target", "limit ops/s", "p9d ops/s",
        "diod ops/s", "ops p9d/diod", "target", "p99 p9d/diod", "target", "result"]


def make_table(rows):
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    missed = 0
    for row in rows:
        cells, result = table_line(row)
        missed += result in ("miss", "failed")
        lines.append("| " + " | ".join(cells) + " |")
        lines += [f"<!-- {text} -->" for text in sorted(set(row.failed))]
    return "\n".join(lines), missed


def progress(rows):
    for row in rows:
        cells, result = table_line(row)
        print(f"{cells[0]:34} cpu {cells[1]:>9} {cells[2]:>9} {cells[3]:>9}  {cells[4]:>6} {cells[5]:7}"
              f" ops {cells[6]:>12} {cells[7]:>12} {cells[8]:>12}  {cells[9]:>6} {cells[10]:6}"
              f" p99 {cells[11]:>6} {cells[12]:6} {result}")
        for text in sorted(set(row.failed)):
            print("    " + text)


def parse_args():
    p = argparse.ArgumentParser(prog="bench/run", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    fixture.add_options(p)
    p.add_argument("--limit", default=os.path.join(fixture.ROOT, "build", "bench", "limit"), metavar="PATH")
    p.add_argument("--memory-dir", default=fixture.memory_dir(), metavar="DIR",
                   help="a tmpfs, for the rows that say so")
    p.add_argument("--only", action="append", metavar="WORKLOAD", help="these workloads (may be given again)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--secs", type=float, default=1.0, help="of each measurement")
    p.add_argument("--tries", type=int, default=3, help="of a measurement that is disturbed by other load")
    p.add_argument("--no-extra", action="store_true", help="only the rows that have targets")
    p.add_argument("--no-write", action="store_true", help="leave BENCHMARKING.md as it is")
    opt = p.parse_args()
    opt.rows = MAIN + ([] if opt.no_extra or opt.quick else EXTRA)
    opt.rows = [r for r in opt.rows if not opt.only or r.workload in opt.only]
    if opt.quick:
        opt.rounds, opt.secs, opt.tries, opt.no_write = 1, 0.1, 1, True
    if not opt.rows:
        p.error("--only: no such workload")
    return opt


def main():
    opt = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that the servers and files go away
    began = time.monotonic()
    with fixture.Scratch(opt.memory_dir) as memory, fixture.Scratch(opt.dir) as disk, fixture.Scratch() as run:
        for top in (memory, disk):
            fixture.make_files(top, fixture.LISTED if top is disk else 0)
        groups = start_all(opt, run, {True: memory, False: disk})
        try:
            for turn in range(opt.rounds):
                for row in opt.rows:
                    measure(opt, row, groups[row.memory, row.users], turn)
                print(f"round {turn + 1} of {opt.rounds}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        finally:
            for server in [s for g in groups.values() for s in g.values() if s]:
                server.stop()
    progress(opt.rows)
    main_rows = [r for r in opt.rows if r in MAIN]
    extra_rows = [r for r in opt.rows if r not in MAIN]
    table, missed = make_table(main_rows)
    if not opt.no_write and not opt.only:
        text = f"Measured {time.strftime('%Y-%m-%d')} on {fixture.machine()}; {opt.rounds} rounds of {opt.secs:g} s; " \
               f"{disturbance(opt.rows)}.\n\n{table}\n"
        if extra_rows:
            text += f"\nFor information:\n\n{make_table(extra_rows)[0]}\n"
        fixture.write_results("results", text)
    print(f"bench: {disturbance(opt.rows)}")
    if not any(g["p9d"] for g in groups.values() if g):
        print("bench: p9d was not measured")
    else:
        print(f"bench: {missed} of {len(main_rows)} rows miss a target" if missed else "bench: every target is met")
    return 1 if missed and opt.strict else 0


if __name__ == "__main__":
    sys.exit(main())
