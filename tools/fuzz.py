#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Builds the fuzz targets with clang (ASan, UBSan, libFuzzer) and runs each for FUZZ_SECONDS (60), two at a time.

A target is an executable of fuzz/meson.build. It starts from fuzz/corpus/NAME (the kept inputs) and writes what it
finds below fuzz/out/NAME; an input that fails is fuzz/out/NAME/crash-* and is shown. --keep adds the inputs that reach
something new to fuzz/corpus/NAME, the fewest that do.
usage: tools/fuzz.py [--build-only] [--seconds N] [--keep] [TARGET...]
"""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, "build-fuzz")
OUT = os.path.join(ROOT, "fuzz", "out")
OPTIONS = ["-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dbuildtype=debugoptimized",
           "-Dc_args=-fsanitize=fuzzer-no-link"]
PARALLEL = 2
UNIT_TIMEOUT, RSS_MB = 20, 2048


def build():
    """Builds all with clang, which has warnings of its own. True when it went well."""
    again = ["--reconfigure"] if os.path.exists(os.path.join(BUILD, "build.ninja")) else []
    env = {**os.environ, "CC": "clang-14"}
    for command in (["meson", "setup", *again, BUILD, *OPTIONS], ["ninja", "-C", BUILD]):
        got = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             check=False)
        if got.returncode != 0:
            print(got.stdout[-6000:])
            print(f"fuzz: {' '.join(command)}: exit code {got.returncode}")
            return False
    return True


def targets():
    """Name -> executable of every fuzz target."""
    got = subprocess.run(["meson", "introspect", "--targets", BUILD], stdout=subprocess.PIPE, text=True, check=True)
    here = os.path.join(ROOT, "fuzz", "meson.build")
    found = {t["name"]: t["filename"][0] for t in json.loads(got.stdout)
             if t["type"] == "executable" and os.path.realpath(t["defined_in"]) == here}
    # A program beside them that is no fuzz target (a printer of seeds) does not know libFuzzer's options.
    return {n: f for n, f in found.items() if b"LLVMFuzzerTestOneInput" in open(f, "rb").read()}


def corpora(name):
    found, kept = os.path.join(OUT, name, "corpus"), os.path.join(ROOT, "fuzz", "corpus", name)
    os.makedirs(found, exist_ok=True)
    os.makedirs(kept, exist_ok=True)
    return found, kept


def environment():
    return {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:handle_abort=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}


def run(name, program, seconds):
    """Fuzzes one target. Returns (went well, what to print)."""
    found, kept = corpora(name)
    before = set(glob.glob(os.path.join(OUT, name, "*-*")))
    command = [program, f"-max_total_time={seconds}", f"-timeout={UNIT_TIMEOUT}", f"-rss_limit_mb={RSS_MB}",
               "-print_final_stats=1", f"-artifact_prefix={OUT}/{name}/", "-reload=0", found, kept]
    dictionary = os.path.join(BUILD, "p9.dict")
    if os.path.exists(dictionary):
        command.insert(1, f"-dict={dictionary}")
    log = os.path.join(OUT, name, "log")
    begin = time.monotonic()
    with open(log, "wb") as f:
        try:
            code = subprocess.run(command, stdout=f, stderr=f, stdin=subprocess.DEVNULL, env=environment(), check=False,
                                  timeout=seconds * 3 + 120).returncode
        except subprocess.TimeoutExpired:
            code = "none: it does not end"
    with open(log, encoding="utf-8", errors="replace") as f:
        text = f.read()
    runs = re.search(r"number_of_executed_units: *(\d+)", text)
    cover = re.findall(r"cov: (\d+) ft: (\d+)", text)
    line = (f"{name:<16} {time.monotonic() - begin:5.0f} s  {runs.group(1) if runs else '?'} inputs, "
            f"{cover[-1][0] if cover else '?'} edges, {len(os.listdir(found))} new")
    artifacts = sorted(set(glob.glob(os.path.join(OUT, name, "*-*"))) - before)
    if code == 0 and not artifacts:
        return True, "ok      " + line
    tail = "\n".join("    | " + t[:300] for t in text.split("\n")[-45:])
    again = "".join(f"\n    again: {os.path.relpath(program, ROOT)} {os.path.relpath(a, ROOT)}" for a in artifacts)
    return False, f"FAILED  {line} (exit code {code})\n{tail}{again}"


def keep(name, program):
    found, kept = corpora(name)
    subprocess.run([program, "-merge=1", kept, found], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env=environment(), check=False)
    print(f"fuzz/corpus/{name}: {len(os.listdir(kept))} inputs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "60")))
    parser.add_argument("--keep", action="store_true", help="add what was found to fuzz/corpus")
    parser.add_argument("target", nargs="*")
    args = parser.parse_args()
    if not build():
        return 1
    if args.build_only:
        return 0
    all_targets = targets()
    unknown = [t for t in args.target if t not in all_targets]
    if unknown or not all_targets:
        print(f"fuzz: no target {' '.join(unknown)} (there are: {' '.join(all_targets) or 'none'})")
        print("fuzz: 0 passed, 1 failed")
        return 1
    chosen = {n: p for n, p in all_targets.items() if not args.target or n in args.target}
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        for ok, text in pool.map(lambda item: run(*item, args.seconds), chosen.items()):
            print(text)
            sys.stdout.flush()
            passed, failed = passed + ok, failed + (not ok)
    if args.keep:
        for name, program in chosen.items():
            keep(name, program)
    print(f"fuzz: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
