#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures p9d over vhost-user beside its Unix socket and a bare preadv loop, interleaved, on the same cached file.

Figures are medians of the rounds; a ratio is taken within a round. Targets: 4 KiB randread at depth 1 at least 1.5 times the
ops/s of the Unix socket; 1 MiB reads at least 1.5 times its MB/s, and no more than 1.2 times the time of the bare loop.
usage: bench/shared.py [--rounds N] [--secs S] [--strict] [--no-write] ...
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

import fixture

M1 = 1 << 20
#       name, workload, depth, msize, target of the ratio to the Unix socket
ROWS = [("randread 4K, depth 1", "randread", 1, 65536, 1.5),
        ("read, msize 1 MiB, depth 1", "read", 1, M1, 1.5),
        ("read, msize 1 MiB, depth 8", "read", 8, M1, 1.5),
        ("getattr, depth 1", "getattr", 1, 65536, None),
        ("randread 4K, depth 32", "randread", 32, 65536, None),
        ("write, msize 1 MiB, depth 1", "write", 1, M1, None)]
FILES = {"read": ["big"], "randread": ["big"], "getattr": [f"small/f{i:02}" for i in range(fixture.SMALL)]}
BARE = 1.2  # of the rows with reads of 1 MiB


class SameServer:
    """A running server by another address."""

    def __init__(self, name, server, addrs):
        self.name, self.addrs, self.aname, self.proc = name, addrs, server.aname, server.proc


def one_round(opt, unix, vhost, big, turn, rounds):
    for name, load, depth, msize, _ in ROWS:
        got = {}
        for server in (unix, vhost)[::1 if turn % 2 else -1]:
            got[server.name] = fixture.run_bench(opt.p9, server, load, opt.secs, depth, msize, FILES.get(load, []))
            if "failed" in got[server.name]:
                raise SystemExit("bench: " + got[server.name]["failed"])
        if load == "read":
            out = subprocess.run([opt.preadv, big, str(msize - 24), str(depth), str(opt.secs)], capture_output=True,
                                 text=True, check=True).stdout
            got["preadv"] = float(out.split()[0])
        rounds.setdefault(name, []).append(got)


def speed(got, load):
    return got["mb_per_s"] if load in ("read", "write") else got["ops_per_s"]


def table(rounds):
    lines = ["| workload | Unix | vhost-user | ratio | target | bare preadv MB/s | preadv/vhost-user | p50 µs | CPU µs/op, server + client | result |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    missed = 0
    for name, load, _, _, target in ROWS:
        got = rounds[name]
        med = lambda f: statistics.median(f(g) for g in got)  # noqa: E731
        ratio = med(lambda g: speed(g["vhost"], load) / speed(g["unix"], load))
        bare = med(lambda g: g["preadv"]) if load == "read" else None
        over = med(lambda g: g["preadv"] / g["vhost"]["mb_per_s"]) if load == "read" else None
        fine = (target is None or ratio >= target) and (over is None or over <= BARE)
        judged = target is not None or over is not None
        missed += judged and not fine
        unit = " MB/s" if load in ("read", "write") else ""
        cpu = " → ".join("{:.1f} + {:.1f}".format(*(med(lambda g, s=s, k=k: g[s][k] or 0) for k in (  # pylint: disable=C0209
            "server_cpu_us_per_op", "client_cpu_us_per_op"))) for s in ("unix", "vhost"))
        p50 = " → ".join(f"{med(lambda g, s=s: g[s]['p50_us']):.1f}" for s in ("unix", "vhost"))
        lines.append(f"| {name} | {med(lambda g: speed(g['unix'], load)):,.0f}{unit} | "
                     f"{med(lambda g: speed(g['vhost'], load)):,.0f}{unit} | {ratio:.2f} | {f'≥ {target}' if target else ''} | "
                     f"{f'{bare:,.0f}' if bare else ''} | {f'{over:.2f} (≤ {BARE})' if over else ''} | {p50} | {cpu} | "
                     f"{('PASS' if fine else 'miss') if judged else ''} |")
    return "\n".join(lines), missed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    fixture.add_options(p)
    p.add_argument("--preadv", default=os.path.join(fixture.ROOT, "build", "bench", "preadv"), metavar="PATH")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--secs", type=float, default=0.5)
    p.add_argument("--no-write", action="store_true", help="leave BENCHMARKING.md as it is")
    opt = p.parse_args()
    if opt.quick:
        opt.rounds, opt.secs, opt.no_write = 1, 0.1, True
    rounds = {}
    with fixture.Scratch(opt.dir) as disk, fixture.Scratch() as run:
        fixture.make_files(disk, 0)
        sock, dev = os.path.join(run, "u"), os.path.join(run, "v")
        unix = fixture.Server("unix", [opt.p9d, "-l", "unix:" + sock, "-l", f"vhost-user:{dev},tag=bench", "-e",
                                       "bench=" + disk, "--identity", "single"], ["unix:" + sock], "bench", sock + ".log")
        vhost = SameServer("vhost", unix, ["vhost-user:" + dev])
        try:
            for turn in range(opt.rounds):
                one_round(opt, unix, vhost, os.path.join(disk, "big"), turn, rounds)
        finally:
            unix.stop()
    text, missed = table(rounds)
    print(text)
    if not opt.no_write:
        fixture.write_results("shared", f"Measured {time.strftime('%Y-%m-%d')} on {fixture.machine()}; {opt.rounds} rounds of "
                              f"{opt.secs:g} s.\n\n{text}\n")
    print(f"bench: {missed} rows miss a target" if missed else "bench: every target is met")
    return 1 if missed and opt.strict else 0


if __name__ == "__main__":
    sys.exit(main())
