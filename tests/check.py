#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Builds p9 in every way and runs all its tests; prints one line per step and, last, "N passed, N failed".

The steps are the list STEPS below. Two cores are shared out among them: a step takes one or two, starts when the
steps it needs are through, and has a time limit. Its output is kept in build/logs/NAME.log; the end of it is shown
when it fails. A step whose program is not there has failed: nothing is left out silently.

usage: tests/check.py [--list] [--all] [--only PATTERN,...] [--skip PATTERN,...] [--verbose]
"""
import argparse
import fnmatch
import glob
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(ROOT, "build", "logs")
CORES = 3  # of two: tests wait more than they work
TAIL = 40
FUZZ_SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
# gcc's TSan cannot place its shadow when the kernel scatters mappings too widely.
NO_ASLR = ["setarch", os.uname().machine, "-R"]
ASAN_ENV = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:strict_string_checks=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
TSAN_ENV = {"TSAN_OPTIONS": "halt_on_error=0:exitcode=66:second_deadlock_stack=1:atexit_sleep_ms=0"}


class Step:
    """count: "exit" (the exit code is one test), "lines" (the last "X: N passed, N failed" line), "meson" (the
    directory's testlog.junit.xml). cores: how many it keeps busy. limit: seconds, on a machine that has little else to do;
    twice as long is taken for a hang."""

    def __init__(self, name, command, needs=(), count="exit", cores=1, limit=120, env=None, build=None):
        self.name, self.command, self.needs, self.count = name, command, needs, count
        self.cores, self.limit, self.env, self.build = cores, 2 * limit, env or {}, build
        self.passed = self.failed = self.skipped = 0
        self.seconds, self.why, self.state, self.process = 0.0, "", "waiting", None

    @property
    def log(self):
        return os.path.join(LOGS, self.name + ".log")


def build(name, directory, *options, needs=(), env=None, limit=600):
    """Configures a directory, again when it is there, and builds it."""
    setup = f"meson setup {'--reconfigure ' if os.path.exists(os.path.join(ROOT, directory, 'build.ninja')) else ''}"
    return Step(name, ["sh", "-ec", f"{setup}{directory} {' '.join(options)} && ninja -C {directory}"],
                needs, "exit", 2, limit, env)


def meson_test(name, directory, needs, env=None, wrap=(), factor=2, limit=1200):
    command = [*wrap, "meson", "test", "-C", directory, "--no-rebuild", "--print-errorlogs", "-t", str(factor)]
    return Step(name, command, needs, "meson", 1, limit, env, directory)


def programs(directory):
    return ["--p9d", directory + "/p9d", "--p9", directory + "/p9"]


def talk(directory, *options):
    return ["python3", "tests/talk/run.py", *programs(directory), "-j", "1", *options]


def mount(directory, *options):
    return ["tests/mount/run.py", *programs(directory), "--tools", directory + "/tests/mount", *options]


# Of the mount's tests those that reach most of its code, and every hostile answer.
MOUNT_ASAN = "differential,data of,one directory,lies,reply after,killed,hangs,dies"

ASAN = ("-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dbuildtype=debugoptimized")
TSAN = ("-Db_sanitize=thread", "-Db_lundef=false", "-Dbuildtype=debugoptimized")

# In the order in which they start. First what wants both cores, then two lanes of what wants one, long ones first within
# what their needs allow; last the fuzzers, on both.
STEPS = [
    build("build", "build"),
    build("build-asan", "build-asan", *ASAN),
    build("build-tsan", "build-tsan", *TSAN),
    Step("build-fuzz", ["tools/fuzz.py", "--build-only"], (), "exit", 2, 600),
    # -- the release build
    Step("guest-quick", ["tests/guest/run", *programs("build"), "--suite", "quick", "--jobs", "1"],
         ("build",), "lines", 1, 900),
    meson_test("unit", "build", ("build",)),
    Step("talk", [*talk("build", "--slow"), "-j", "4"], ("build",), "lines", 1, 400),
    Step("interop", ["tests/interop/run.py", "--build", "build"], ("build",), "lines", 1, 300),
    Step("conform", ["tests/conform/run.py", "--build", "build"], ("build",), "lines", 1, 500),
    Step("commands", ["tests/commands/run.py", *programs("build")], ("build",), "lines", 1, 300),
    Step("fault", ["tests/fault/run.py", "--build", "build"], ("build",), "lines", 1, 400),
    Step("system", ["tests/system/run.py", *programs("build")], ("build",), "lines", 1, 400),
    Step("front", ["tests/front/run.py", *programs("build")], ("build",), "lines", 1, 500),
    Step("mount-smoke", ["tests/mount/smoke.py", "--build", "build"], ("build",), "lines", 1, 400),
    Step("guest-demo", ["tests/guest/demo.py", "--build", "build"], ("build",), "lines", 1, 900),
    Step("vhost", ["tests/vhost/run.py", "--p9d", "build/p9d"], ("build",), "lines", 1, 400),
    Step("takeover", ["tests/takeover/run.py", *programs("build")], ("build",), "lines", 1, 600),
    Step("takeover-guest", ["tests/guest/run", *programs("build"), "--suite", "quick", "--transport", "tcp", "--takeover", "2"],
         ("build",), "lines", 1, 900),
    Step("takeover-guest-vhost", ["tests/guest/run", *programs("build"), "--suite", "quick", "--transport", "vhost",
                                  "--takeover", "2"], ("build",), "lines", 1, 900),
    Step("guest-vhost", ["tests/guest/run", *programs("build"), "--suite", "quick", "--transport", "vhost"],
         ("build",), "lines", 1, 900),
    Step("install", ["tools/install-test.sh", "build"], ("build",), "lines", 1, 200),
    Step("mount", mount("build", "--quick"), ("build",), "lines", 1, 1500),
    # -- the sanitizers, and clang
    meson_test("unit-asan", "build-asan", ("build-asan",), ASAN_ENV, (), 8),
    Step("talk-asan", talk("build-asan"), ("build-asan",), "lines", 1, 600, ASAN_ENV),
    Step("guest-stress", ["tests/guest/run", *programs("build"), "--suite", "stress", "--transport", "tcp"],
         ("build",), "lines", 1, 900),
    Step("interop-asan", ["tests/interop/run.py", "--build", "build-asan"], ("build-asan",), "lines", 1, 400, ASAN_ENV),
    Step("conform-asan", ["tests/conform/run.py", "--build", "build-asan"], ("build-asan",), "lines", 1, 700, ASAN_ENV),
    Step("commands-asan", ["tests/commands/run.py", *programs("build-asan")], ("build-asan",), "lines", 1, 500, ASAN_ENV),
    Step("system-asan", ["tests/system/run.py", *programs("build-asan")], ("build-asan",), "lines", 1, 600, ASAN_ENV),
    Step("mount-asan", mount("build-asan", "--quick", "--only", MOUNT_ASAN), ("build-asan",), "lines", 1, 900, ASAN_ENV),
    Step("front-asan", ["tests/front/run.py", *programs("build-asan")], ("build-asan",), "lines", 1, 900, ASAN_ENV),
    Step("mount-smoke-asan", ["tests/mount/smoke.py", "--build", "build-asan"], ("build-asan",), "lines", 1, 600, ASAN_ENV),
    Step("vhost-asan", ["tests/vhost/run.py", "--p9d", "build-asan/p9d"], ("build-asan",), "lines", 1, 600, ASAN_ENV),
    Step("takeover-asan", ["tests/takeover/run.py", *programs("build-asan")], ("build-asan",), "lines", 1, 1200, ASAN_ENV),
    Step("takeover-tsan", [*NO_ASLR, "tests/takeover/run.py", *programs("build-tsan")], ("build-tsan",), "lines", 1, 1200,
         TSAN_ENV),
    Step("vhost-tsan", [*NO_ASLR, "tests/vhost/run.py", "--p9d", "build-tsan/p9d"], ("build-tsan",), "lines", 1, 900,
         TSAN_ENV),
    meson_test("unit-tsan", "build-tsan", ("build-tsan",), TSAN_ENV, NO_ASLR, 8),
    Step("talk-tsan", [*NO_ASLR, *talk("build-tsan")], ("build-tsan",), "lines", 1, 600, TSAN_ENV),
    Step("conform-tsan", [*NO_ASLR, "tests/conform/run.py", "--build", "build-tsan", "--quick"], ("build-tsan",), "lines",
         1, 700, TSAN_ENV),
    meson_test("unit-clang", "build-fuzz", ("build-fuzz",), ASAN_ENV, (), 8),
    # -- what reads the sources
    Step("layers", ["tools/layers.py"]),
    Step("shape", ["tools/shape.py"]),
    Step("format", ["tools/format.py"]),
    Step("docs", ["tools/docs-check", "build"], ("build",)),
    Step("cppcheck", ["tools/cppcheck.sh", "build"], ("build",), "exit", 1, 300),
    Step("tidy", ["tools/tidy.sh", "build"], ("build",), "exit", 1, 900),
    Step("fuzz", ["tools/fuzz.py"], ("build-fuzz",), "lines", 2, 120 + 12 * FUZZ_SECONDS),
]


# What only --all runs: the same tests as others of the list under another sanitizer, where that takes minutes.
MORE = ("mount-asan", "conform-tsan", "guest-vhost", "takeover-guest-vhost")


def missing_program(step):
    """The first file of ours that the command names and that is not there."""
    for word in step.command:
        if re.match(r"(tests|tools|fuzz|bench)/[\w./-]+$", word) and not os.path.exists(os.path.join(ROOT, word)):
            return word
    return None


def count_lines(step):
    found = None
    with open(step.log, encoding="utf-8", errors="replace") as log:
        for line in log:
            m = re.match(r"(?:[\w./ -]+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", line)
            found = m or found
    if not found:
        step.why = step.why or "prints no \"N passed, N failed\""
        return
    step.passed, step.failed, step.skipped = (int(n or 0) for n in found.groups())


def count_meson(step):
    """Every case of every test, from the report that meson writes."""
    path = os.path.join(ROOT, step.build, "meson-logs", "testlog.junit.xml")
    try:
        if os.path.getmtime(path) < step.started:
            raise OSError("old report")
        cases = list(xml.etree.ElementTree.parse(path).iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError) as e:
        step.why = step.why or f"no report: {e}"
        return
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            step.failed += 1
        elif case.find("skipped") is not None:
            step.skipped += 1
        else:
            step.passed += 1
    if not cases:
        step.why = step.why or "no tests ran"


def run(step):
    """Runs a step in a thread of its own and counts its results."""
    step.started = time.time()
    begin = time.monotonic()
    word = missing_program(step)
    if word:
        step.why = f"missing: {word}"
    else:
        execute(step)
    step.seconds = time.monotonic() - begin
    if not word and step.count == "lines":
        count_lines(step)
    elif not word and step.count == "meson":
        count_meson(step)
    if step.why and step.failed == 0:
        step.failed = 1
    if step.count == "exit" and step.failed == 0:
        step.passed = 1


def sanitizer_options(step):
    """Sanitizers of any process of the step write to files of their own: servers' outputs get lost."""
    where = f":log_path={os.path.join(LOGS, step.name)}.report"
    return {n: v + where if n.endswith("SAN_OPTIONS") else v for n, v in step.env.items()}


def collect_reports(step):
    """Adds what sanitizers wrote to the step's log. A report is a failure even when nobody looked at an exit code."""
    reports = sorted(glob.glob(os.path.join(LOGS, step.name) + ".report.*"))
    with open(step.log, "ab") as log:
        for path in reports:
            with open(path, "rb") as report:
                log.write(f"-- {os.path.basename(path)}\n".encode() + report.read()[:20000])
            os.unlink(path)
    if reports:
        step.why = step.why or f"{len(reports)} reports of sanitizers"


def execute(step):
    with open(step.log, "wb") as log:
        log.write(("$ " + " ".join(step.command) + "\n").encode())
        log.flush()
        try:
            step.process = subprocess.Popen(step.command, cwd=ROOT, env={**os.environ, **sanitizer_options(step)}, stdout=log,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as e:
            step.why = f"cannot start: {e.strerror}"
            return
        try:
            code = step.process.wait(step.limit)
            if code != 0:
                step.why = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        except subprocess.TimeoutExpired:
            step.why = f"not through after {step.limit} s"
        finally:
            end(step)
    collect_reports(step)


def end(step):
    """Ends what is left of a step's process group: first kindly, then not."""
    for sig, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(step.process.pid, sig)
        except (ProcessLookupError, PermissionError):
            break
        deadline = time.monotonic() + patience
        while step.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    step.process.wait()


def failures(lines):
    """The failed tests above the end of a log, each with what it says."""
    shown, left = [], 0
    for line in lines:
        if line.startswith(("FAILED", "not ok")):
            left = 12
        elif line.startswith(("ok ", "skipped")):
            left = 0
        if left:
            shown.append(line)
            left -= 1
    return shown[:TAIL]


def report(step, verbose):
    counts = f"{step.passed} passed, {step.failed} failed" + (f", {step.skipped} skipped" if step.skipped else "")
    word = "ok    " if step.failed == 0 else "FAILED"
    print(f"{word} {step.name:<14} {step.seconds:6.1f} s  {counts}" + (f"  ({step.why})" if step.why else ""))
    if (step.failed or verbose) and os.path.exists(step.log) and step.state != "not run":
        with open(step.log, encoding="utf-8", errors="replace") as log:
            lines = log.read().splitlines()
        for line in failures(lines[:-TAIL]) + lines[-TAIL:]:
            print("    | " + line[:300])
        print(f"    (all of it: {os.path.relpath(step.log, ROOT)})")
    sys.stdout.flush()


class Scheduler:
    """Starts steps in order while cores are free. A step at the head that wants more cores than are free waits, and
    those behind it with it, so that it is not passed over for ever."""

    def __init__(self, steps, verbose):
        self.steps, self.verbose = steps, verbose
        self.by_name = {s.name: s for s in steps}
        self.free = CORES
        self.changed = threading.Condition()

    def blocked(self, step):
        """None when all needs are through; else the name of one that is not."""
        return next((n for n in step.needs if self.by_name[n].state not in ("done", "not run")), None)

    def thread(self, step):
        run(step)
        with self.changed:
            step.state = "done"
            self.free += step.cores
            report(step, self.verbose)
            self.changed.notify()

    def start_what_can(self):
        for step in self.steps:
            if step.state != "waiting" or self.blocked(step):
                continue
            broken = next((n for n in step.needs if self.by_name[n].failed), None)
            if broken:
                step.why, step.failed, step.state = f"not run: {broken} failed", 1, "not run"
                report(step, self.verbose)
                continue
            if step.cores > self.free:
                return
            self.free -= step.cores
            step.state = "running"
            threading.Thread(target=self.thread, args=(step,), daemon=True).start()

    def run(self):
        with self.changed:
            while any(s.state in ("waiting", "running") for s in self.steps):
                self.start_what_can()
                if any(s.state == "running" for s in self.steps):
                    self.changed.wait()

    def stop(self):
        for step in self.steps:
            if step.state == "running" and step.process:
                end(step)


def select(only, skip, everything):
    matches = lambda step, patterns: any(fnmatch.fnmatch(step.name, p) for p in patterns.split(","))
    chosen = {s.name for s in STEPS if (matches(s, only) if only else everything or s.name not in MORE)
              and not (skip and matches(s, skip))}
    for step in reversed(STEPS):
        if step.name in chosen:
            chosen |= set(step.needs)
    return [s for s in STEPS if s.name in chosen]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="say which steps there are")
    parser.add_argument("--only", default="", metavar="PATTERN,...", help="these steps and what they need")
    parser.add_argument("--skip", default="", metavar="PATTERN,...", help="all but these")
    parser.add_argument("--all", action="store_true", help="also those that `make check` leaves to `make check-all`")
    parser.add_argument("--verbose", action="store_true", help="show the end of every log")
    args = parser.parse_args()
    steps = select(args.only, args.skip, args.all)
    if args.list:
        for step in steps:
            print(f"{step.name:<14} {' '.join(step.command)}")
        return 0
    os.makedirs(LOGS, exist_ok=True)
    for old in glob.glob(os.path.join(LOGS, "*.log")):
        os.unlink(old)
    begin = time.monotonic()
    scheduler = Scheduler(steps, args.verbose)

    def interrupted(sig, frame):
        scheduler.stop()
        print("check: interrupted")
        sys.stdout.flush()
        os._exit(130)

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    scheduler.run()
    seconds = time.monotonic() - begin
    failed = [s.name for s in steps if s.failed]
    print(f"check: {len(steps)} steps in {seconds / 60:.1f} minutes" + (f"; failed: {' '.join(failed)}" if failed else ""))
    passed, bad, skipped = (sum(getattr(s, n) for s in steps) for n in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {bad} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if bad or not steps else 0


if __name__ == "__main__":
    sys.exit(main())
