#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest demo (guest/demo) on QEMU's own virtio-9p devices, emulated: every kind of device, machine, ring and boot
protocol; shares that the host changes meanwhile; errors; the self-test.

Each boot takes some tenths of a second, so that a test is a boot, or a few. Nothing is installed.
usage: tests/guest/demo.py [--build DIR] [--only TEXT] [--full] [--qemu PROGRAM]
  --full   the self-test with its million operations too (many minutes)
"""
import argparse
import functools
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from suite import ROOT, Skip, Suite, check, equal, run, until  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--build", default="build")
parser.add_argument("--only", default="")
parser.add_argument("--full", action="store_true")
parser.add_argument("--qemu", default="qemu-system-x86_64")
args = parser.parse_args()

suite = Suite("demo")
GUEST = os.path.join(ROOT, args.build, "guest")
PVH, MULTIBOOT = os.path.join(GUEST, "p9demo"), os.path.join(GUEST, "p9demo32")
LIMIT = 240  # seconds for a boot: only a guest that hangs takes so long
OK, FAILED, USAGE, NO_MOUNT = 1, 3, 5, 7  # isa-debug-exit: 2 * status + 1
TEXT_MOST = 64 * 1024
SELFTEST = 2000
MILLION = 1000000
HELLO = b"hello from the host\n"
BIG = os.urandom(1 << 20) * 3 + b"the end"


def new_share(name="share"):
    """A directory that a device serves."""
    path = os.path.join(suite.directory, f"{name}-{time.monotonic_ns()}")
    os.makedirs(os.path.join(path, "dir", "sub"))
    for file, data in (("motd", HELLO), ("empty", b""), ("big", BIG), ("dir/sub/deep", b"deep\n")):
        with open(os.path.join(path, file), "wb") as f:
            f.write(data)
    os.symlink("dir/sub/deep", os.path.join(path, "link"))
    return path


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


class Machine:
    """What a guest is made of: -M, the kind of device, and more options."""

    def __init__(self, machine="q35", device="virtio-9p-pci", image=PVH, options=(), model="security_model=none"):
        self.machine, self.device, self.image, self.options, self.model = machine, device, image, options, model

    def command(self, shares, append):
        out = [args.qemu, "-M", self.machine, "-m", "128", "-display", "none", "-nodefaults", "-no-reboot",
               "-accel", "tcg", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", *self.options]
        for i, (path, tag) in enumerate(shares):
            kind, _, rest = self.device.partition(",")
            out += ["-fsdev", f"local,id=f{i},path={path},{self.model}", "-device",
                    f"{kind},fsdev=f{i},mount_tag={tag}{',' + rest if rest else ''}"]
        return out + ["-kernel", self.image, "-append", append]

    def boot(self, shares, append, code=OK, limit=LIMIT):
        """Boots, runs the commands, returns what was printed. `shares`: a directory, or (directory, tag) pairs."""
        pairs = [(shares, "share0")] if isinstance(shares, str) else shares
        command = [*self.command(pairs, append), "-serial", "stdio"]
        try:
            got = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 timeout=limit, check=False)
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"hangs: {append!r}: {(e.stdout or b'')[-1500:]}") from None
        text = got.stdout.decode(errors="surrogateescape")
        if got.returncode != code:
            raise AssertionError(f"{append!r}: exit code {got.returncode}, want {code}: {text[-1500:]} "
                                 f"{got.stderr.decode(errors='replace')[-800:]}")
        check(not re.search(r"virtio-9p .*:|panic", text) or code != OK, text[-1500:])
        return text


Q35 = Machine()
MICROVM = ("-global", "virtio-mmio.force-legacy=false")
MACHINES = {}
for board in ("pc", "q35"):
    for label, kind in (("transitional", "virtio-9p-pci"), ("transitional only", "virtio-9p-pci-transitional"),
                        ("non-transitional", "virtio-9p-pci-non-transitional"),
                        ("legacy only", "virtio-9p-pci,disable-modern=on")):
        MACHINES[f"{board} pci {label}"] = Machine(board, kind)
for acpi in ("on", "off"):
    MACHINES[f"microvm acpi={acpi} mmio legacy"] = Machine(f"microvm,acpi={acpi}", "virtio-9p-device")
    MACHINES[f"microvm acpi={acpi} mmio modern"] = Machine(f"microvm,acpi={acpi}", "virtio-9p-device", options=MICROVM)


def devices(text):
    """Lines of the command `devices`: dictionaries."""
    found = re.findall(r"^(\w+) ([\w:.]+): (virtio 1|legacy), tag (.*), at (\S+), ring (\d+), features 0x(\w+), irq (\d+) "
                       r"(used|not used), interrupts (\d+), msize (\d+)", text, re.M)
    return [{"bus": f[0], "where": f[1], "kind": f[2], "tag": f[3], "at": f[4], "ring": int(f[5]),
             "features": int(f[6], 16), "irq": f[8] == "used", "interrupts": int(f[9]), "msize": int(f[10])}
            for f in found]


SCENARIO = "; ".join((
    "ls /host", "cat /host/motd", "cat /host/link", "sum /host/big", "write /host/new one two", "append /host/new three",
    "mkdir /host/made", "mv /host/new /host/made/moved", "ln -s moved /host/made/soft", "ln /host/made/moved /host/made/hard",
    "cat /host/made/soft", "stat /host/made/soft", "cp /host/big /host/made/copy", "sum /host/made/copy", "rm /host/empty", "df",
    "ls -l /", "write /host/dir/none", "selftest 200", "devices"))


def scenario(machine, option=""):
    """The file commands, looked at from both sides. Returns what `devices` said."""
    share = new_share()
    text = machine.boot(share, f"{option} {SCENARIO}")
    lines = text.splitlines()
    crc = f"{zlib.crc32(BIG):08x} {len(BIG)}"
    for line in ("big", "dir/", "link", "motd", HELLO.decode().strip(), "deep", f"{crc} /host/big", "one two", "three",
                 f"{crc} /host/made/copy", "/host/made/soft -> moved"):
        check(line in lines, f"no line {line!r} in", text)
    check(re.search(r"^drwxr-xr-x .* host$", text, re.M), "ls -l / does not show /host", text)
    check(re.search(r"^ +\d+ +\d+ +\d+  /host$", text, re.M), "df:", text)
    check(re.search(r"^selftest: 200 operations .*: ok$", text, re.M), text)
    equal(read(share, "made/moved"), b"one two\nthree\n")
    equal(os.stat(os.path.join(share, "made/hard")).st_nlink, 2)
    equal(os.readlink(os.path.join(share, "made/soft")), "moved")
    check(read(share, "made/copy") == BIG, "the copy differs")
    equal(sorted(os.listdir(share)), ["big", "dir", "link", "made", "motd"])
    equal(read(share, "dir/none"), b"")
    shutil.rmtree(share)
    found = devices(text)
    equal(len(found), 1, text)
    equal((found[0]["tag"], found[0]["at"]), ("share0", "/host"))
    return found[0]


def add(name, function):
    function.__name__ = name.replace(" ", "_")
    suite.test(function)


def on_machine(name, machine, image, option):
    d = scenario(Machine(machine.machine, machine.device, image, machine.options), option)
    equal(d["kind"], "legacy" if "legacy" in name else "virtio 1")
    equal(d["bus"], "mmio" if "mmio" in name else "pci")
    equal(d["features"] >> 28 & 3, 3, "indirect and event index")
    routed = "acpi=on" not in name  # with ACPI microvm's lines are beyond the PIC
    if option == "poll=1":
        equal((d["irq"], d["interrupts"]), (False, 0))
    elif routed:
        check(d["irq"] and d["interrupts"] > 50, d)


def matrix():
    for name, machine in MACHINES.items():
        for image in (PVH,) if "microvm" in name else (PVH, MULTIBOOT):
            for option in ("poll=0", "poll=1"):
                label = f"{name} {'pvh' if image == PVH else 'multiboot'} {'interrupts' if option == 'poll=0' else 'polling'}"
                add(label, lambda n=name, m=machine, i=image, o=option: on_machine(n, m, i, o))


def with_ring(machine, option, ring, features):
    d = scenario(machine, option)
    equal((d["ring"], d["features"] >> 28 & 3), (ring, features))


def rings():
    """Sizes of rings, with and without indirect descriptors and event index, few slots and many."""
    legacy, mmio = MACHINES["q35 pci legacy only"], MACHINES["microvm acpi=off mmio modern"]
    old = MACHINES["microvm acpi=off mmio legacy"]
    for machine, what, ring in ((Q35, "modern", 1), (Q35, "modern", 2), (Q35, "modern", 4), (Q35, "modern", 16),
                                (Q35, "modern", 128), (mmio, "mmio", 2), (mmio, "mmio", 1024), (old, "mmio legacy", 2),
                                (old, "mmio legacy", 512)):
        add(f"ring of {ring} {what}", lambda m=machine, r=ring: with_ring(m, f"ring={r}", r, 3))
    for machine, what in ((Q35, "modern"), (legacy, "legacy"), (mmio, "mmio"), (old, "mmio legacy")):
        full = 1024 if "mmio" in what else 128
        add(f"no indirect descriptors {what}", lambda m=machine, f=full: with_ring(m, "indirect=0", f, 2))
        add(f"no event index {what}", lambda m=machine, f=full: with_ring(m, "event=0", f, 1))
        add(f"neither {what}", lambda m=machine, f=full: with_ring(m, "indirect=0 event=0", f, 0))
        add(f"neither, polling {what}", lambda m=machine, f=full: with_ring(m, "indirect=0 event=0 poll=1", f, 0))
    add("ring of 2 without indirect", lambda: with_ring(Q35, "ring=2 indirect=0", 2, 2))
    add("ring of 3 is one of 2", lambda: with_ring(Q35, "ring=3", 2, 3))
    add("one slot", lambda: with_ring(Q35, "slots=1", 128, 3))
    add("more slots than the ring has places", lambda: with_ring(Q35, "slots=64 ring=4 msize=65536", 4, 3))


def with_msize(option, want):
    equal(scenario(Q35, option)["msize"], want)


matrix()
rings()
for size in (4096, 8192, 65536, 1 << 20):
    add(f"msize {size}", lambda s=size: with_msize(f"msize={s}", s))


@suite.test
def security_models():
    for model in ("security_model=passthrough", "security_model=mapped-xattr", "security_model=mapped-file"):
        share = new_share()
        text = Machine(model=model).boot(share, "write /host/a b; cat /host/a; mkdir /host/d; ls -l /host")
        check(re.search(r"^b$", text, re.M), model, text)
        equal(read(share, "a"), b"b\n")


# ---- several devices ----

@suite.test
def two_shares_on_every_bus():
    for name, machine in MACHINES.items():
        a, b = new_share("a"), new_share("b")
        os.unlink(os.path.join(b, "motd"))
        text = machine.boot([(a, "one"), (b, "two")], "devices; write /two/from-guest x; cat /host/motd; ls /two; "
                            "selftest 100 /host; selftest 100 /two; df")
        found = {d["tag"]: d["at"] for d in devices(text)}
        # microvm's command line lists devices in the order of their addresses, from the end
        first = min(found, key=lambda tag: found[tag] != "/host")
        if first == "one":
            equal(found, {"one": "/host", "two": "/two"}, name)
            equal(read(b, "from-guest"), b"x\n")
            check("from-guest" not in os.listdir(a), name)
        equal(len(re.findall(r"^selftest: 100 operations .*: ok$", text, re.M)), 2, text)


@suite.test
def first_by_tag():
    a, b = new_share("a"), new_share("b")
    with open(os.path.join(b, "motd"), "wb") as f:
        f.write(b"the second\n")
    for machine in (Q35, MACHINES["microvm acpi=off mmio modern"]):
        text = machine.boot([(a, "one"), (b, "two")], "tag=two cat /host/motd /motd /one/motd; ls -l /")
        equal(text.splitlines()[:3], ["the second", "the second", HELLO.decode().strip()])


@suite.test
def a_share_that_is_the_root():
    a, b = new_share("a"), new_share("b")
    os.mkdir(os.path.join(b, "in-root"))
    text = Q35.boot([(a, "a"), (b, "/")], "ls /; ls /host; mv /host/motd /moved", FAILED)
    check("in-root/" in text and "host/" in text, text)
    check("p9: mv: /host/motd: Invalid cross-device link (EXDEV)" in text, text)


@suite.test
def tags_that_are_no_names():
    shares = [(new_share(), tag) for tag in ("x", "..", "a/b", "same", "same", "sp ace")]
    text = Q35.boot(shares, "devices")
    equal([d["at"] for d in devices(text)], ["/host", "/share-b", "/a_b", "/same", "/same-2", "/sp_ace"])


@suite.test
def many_shares_of_all_kinds():
    kinds = ("virtio-9p-pci", "virtio-9p-pci-non-transitional", "virtio-9p-pci,disable-modern=on") * 3
    options, dirs = [], []
    for i, kind in enumerate(kinds):
        dirs.append(new_share(f"n{i}"))
        name, _, rest = kind.partition(",")
        options += ["-fsdev", f"local,id=g{i},path={dirs[-1]},security_model=none", "-device",
                    f"{name},fsdev=g{i},mount_tag=tag{i}{',' + rest if rest else ''}"]
    command = "devices; " + "; ".join(f"write /{'host' if i == 0 else f'tag{i}'}/mark {i}" for i in range(len(kinds)))
    text = Machine(options=options).boot([], command)
    equal([d["kind"] for d in devices(text)], ["virtio 1", "virtio 1", "legacy"] * 3)
    for i, path in enumerate(dirs):
        equal(read(path, "mark"), f"{i}\n".encode())


@suite.test
def devices_behind_bridges():
    share = new_share()
    fs = ("-fsdev", f"local,id=g,path={share},security_model=none")
    text = Machine(options=("-device", "pcie-root-port,id=rp0,slot=1", *fs, "-device",
                            "virtio-9p-pci,fsdev=g,mount_tag=t,bus=rp0")).boot([], "devices; cat /motd")
    check(devices(text)[0]["where"].startswith("01:") and "hello" in text, text)
    text = Machine("pc", options=("-device", "pci-bridge,id=rp0,chassis_nr=1", *fs, "-device",
                                  "virtio-9p-pci,fsdev=g,mount_tag=t,bus=rp0,addr=3")).boot([], "devices; cat /motd")
    check(devices(text)[0]["where"].startswith("01:03") and "hello" in text, text)


@suite.test
def devices_that_are_functions_of_one():
    options, path = [], new_share()
    for i in range(3):
        options += ["-fsdev", f"local,id=g{i},path={path},security_model=none", "-device",
                    f"virtio-9p-pci-non-transitional,fsdev=g{i},mount_tag=t{i},addr=5.{2 * i},multifunction=on"]
    equal([d["where"] for d in devices(Machine(options=options).boot([], "devices"))], ["00:05.0", "00:05.2", "00:05.4"])


@suite.test
def registers_above_4_GiB():
    """Another device's huge BAR moves all 64-bit BARs up."""
    options = ("-object", "memory-backend-ram,id=huge,size=4G,share=on", "-device", "ivshmem-plain,memdev=huge",
               "-device", "virtio-rng-pci")
    share = new_share()
    text = Machine(device="virtio-9p-pci-non-transitional", options=options).boot(share, "cat /motd; devices")
    check("hello" in text, text)


@suite.test
def other_machines():
    for options in (("-smp", "2"), ("-m", "48"), ("-m", "3500"), ("-cpu", "max"), ("-cpu", "core2duo")):
        text = Machine(options=options).boot(new_share(), "msize=65536 cat /motd; selftest 100")
        check("hello" in text, options, text)


# ---- the host's side, meanwhile ----

class Live:
    """A guest whose serial console is typed at."""

    def __init__(self, machine, share, options=()):
        self.monitor_path = os.path.join(suite.directory, f"mon-{time.monotonic_ns()}")
        command = [*machine.command([(share, "share0")], ""), *options, "-serial", "stdio", "-monitor",
                   f"unix:{self.monitor_path},server=on,wait=off"]
        command.remove("-no-reboot")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.prompt()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def until(self, end, limit=LIMIT):
        """Output up to and with `end`."""
        got, deadline = b"", time.monotonic() + limit
        while not got.endswith(end):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            byte = os.read(self.process.stdout.fileno(), 1) if ready else b""
            if not byte:
                raise AssertionError(f"no {end!r} after {got[-800:]!r}")
            got += byte
        return got

    def prompt(self):
        return self.until(b"\np9> ")[:-len(b"p9> ")].decode(errors="replace").replace("\r\n", "\n")

    def keys(self, text):
        self.process.stdin.write(text.encode() if isinstance(text, str) else text)
        self.process.stdin.flush()

    def type(self, line):
        """Types a line; returns what it printed."""
        self.keys(line + "\r")
        echo, _, out = self.prompt().partition("\n")
        equal(echo, line, "echo")
        return out

    def end(self, code):
        self.keys("\4")
        equal(self.process.wait(LIMIT), code)

    def monitor(self, *commands):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(LIMIT)
            s.connect(self.monitor_path)
            for command in ("", *commands):
                if command:
                    s.sendall(command.encode() + b"\n")
                got = b""
                while not got.endswith(b"(qemu) "):
                    got += s.recv(4096)


@suite.test
def the_host_changes_files_meanwhile():
    for name in ("q35 pci transitional", "pc pci legacy only", "microvm acpi=off mmio modern", "microvm acpi=on mmio legacy"):
        share = new_share()
        with Live(MACHINES[name], share) as guest:
            equal(guest.type("cat /host/motd"), HELLO.decode())
            for i in range(20):
                with open(os.path.join(share, "motd"), "w", encoding="ascii") as f:
                    f.write(f"round {i}\n" * (i + 1))
                equal(guest.type("cat /motd"), f"round {i}\n" * (i + 1))
                guest.type(f"append /host/log from guest {i}")
                equal(read(share, "log").decode().splitlines()[-1], f"from guest {i}")
            os.rename(os.path.join(share, "motd"), os.path.join(share, "gone"))
            equal(guest.type("stat /host/motd"), "p9: stat: /host/motd: No such file or directory (ENOENT)\n")
            os.mkdir(os.path.join(share, "fresh"))
            check("fresh/\n" in guest.type("ls /host"))
            guest.type("rm /host/fresh")
            check(not os.path.exists(os.path.join(share, "fresh")))
            guest.end(FAILED)


@suite.test
def the_line_editor():
    with Live(Q35, new_share()) as guest:
        def keys(text, want):
            guest.keys(text + "\r")
            got = guest.prompt()
            check(got.endswith("\n" + want), repr(text), repr(got))
        keys("cat /motx\x7fd", HELLO.decode())
        keys("nonsense\x15cat /motd", HELLO.decode())
        keys("cat /nothing here\x17\x17/motd", HELLO.decode())
        keys("at /motd\x01c", HELLO.decode())
        keys("cat /mtd\x1b[D\x1b[Do\x05", HELLO.decode())
        keys("\x1b[A", HELLO.decode())
        keys("\x1b[A\x1b[A\x1b[B", HELLO.decode())
        keys("junk\x03cat /motd", HELLO.decode())
        keys("cat '/motd'; cat \"/link\"", HELLO.decode() + "deep\n")
        keys("write '/host/a b' 'x;  y'; cat \"/host/a b\"", "x;  y\n")
        guest.keys("\x04")
        equal(guest.process.wait(LIMIT), OK)


@suite.test
def typing_ahead():
    """A hundred lines at once, more than the console's buffers hold."""
    share = new_share()
    with Live(Q35, share) as guest:
        guest.keys("".join(f"append /host/typed line number {i} of those that were typed ahead\r" for i in range(100)))
        guest.keys("exit 0\r")
        guest.process.stdin.flush()
        # what is printed must be taken, or the guest waits
        out = guest.process.stdout.read()
        equal(guest.process.wait(LIMIT), OK, out[-500:].decode(errors="replace"))
    equal(read(share, "typed").decode().splitlines(),
          [f"line number {i} of those that were typed ahead" for i in range(100)])


@suite.test
def a_guest_that_is_reset():
    """The monitor resets the machine under load; it boots anew and mounts again."""
    for name in ("q35 pci transitional", "q35 pci legacy only", "microvm acpi=off mmio modern"):
        share = new_share()
        with Live(MACHINES[name], share) as guest:
            guest.type("write /host/before reset")
            guest.keys("selftest 100000\r")
            guest.until(b" of 100000\r\n")
            guest.monitor("system_reset")
            guest.prompt()
            equal(guest.type("cat /host/before"), "reset\n")
            check("150 operations" in guest.type("selftest 150"))
            guest.end(OK)


@suite.test
def a_guest_that_is_paused():
    with Live(Q35, new_share()) as guest:
        guest.keys("selftest 3000\r")
        guest.until(b"selftest: in ")
        for _ in range(5):
            guest.monitor("stop", "cont")
        check(re.search(r"3000 operations .*: ok\n$", guest.prompt()))
        guest.end(OK)


@suite.test
def a_device_that_is_started_again():
    for name, machine in MACHINES.items():
        text = machine.boot(new_share(), "selftest 50; " + "remount /host; cat /host/motd; " * 20 + "selftest 50")
        equal(text.count("remount: /host: 0 bytes more memory\n"), 20, name)
        equal(text.count("hello from the host\n"), 20, name)
        equal(text.count(": ok\n"), 2, name)


# ---- errors ----

@suite.test
def no_device():
    for machine in (Machine(), Machine("pc", image=MULTIBOOT), Machine("microvm", "virtio-9p-device")):
        text = machine.boot([], "ls /", NO_MOUNT)
        equal(text, "p9: mount: virtio-9p: No such device (ENODEV)\n")


@suite.test
def another_device_is_none():
    text = Machine(options=("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci")).boot([], "ls /", NO_MOUNT)
    equal(text, "p9: mount: virtio-9p: No such device (ENODEV)\n")


@suite.test
def wrong_tag():
    equal(Q35.boot(new_share(), "tag=other; ls /", NO_MOUNT), "p9: mount: other: No such device (ENODEV)\n")


@suite.test
def errors_and_status():
    name = "n" * 256
    for command, text in (
            ("cat /host/nothing", "cat: /host/nothing: No such file or directory (ENOENT)"),
            ("cat /host/dir", "cat: /host/dir: Is a directory (EISDIR)"),
            ("ls /host/motd/x", "ls: /host/motd/x: Not a directory (ENOTDIR)"),
            ("mkdir /host/dir", "mkdir: /host/dir: File exists (EEXIST)"),
            ("rm /host/dir", "rm: /host/dir: Directory not empty (ENOTEMPTY)"),
            ("rm /host", "rm: /host: Device or resource busy (EBUSY)"),
            ("mv /host/nothing /host/x", "mv: /host/nothing: No such file or directory (ENOENT)"),
            ("ln -s a /host/motd", "ln: /host/motd: File exists (EEXIST)"),
            (f"write /host/{name}", f"write: /host/{name}: File name too long (ENAMETOOLONG)"),
            ("selftest 10 /host/nothing", None)):
        out = Q35.boot(new_share(), command, FAILED)
        check(out == f"p9: {text}\n" if text else "(ENOENT)" in out, command, out)
    for command in ("frobnicate", "cat", "mv a", "ln x", "msize=1 ls", "msize=x ls", "slots=0 ls", "slots=200 ls"):
        Q35.boot(new_share(), command, USAGE)
    # the worst is the status, and the others run
    text = Q35.boot(new_share(), "cat /nothing; cat /motd; frobnicate; cat /link", USAGE)
    check("hello" in text and "deep" in text, text)
    Q35.boot(new_share(), "exit 9", 19)


@suite.test
def a_read_only_share():
    machine = Machine(model="security_model=none,readonly=on")
    for command, what in (("write /host/x y", "write: /host/x"), ("rm /host/motd", "rm: /host/motd"),
                          ("mkdir /host/d", "mkdir: /host/d")):
        equal(machine.boot(new_share(), command, FAILED), f"p9: {what}: Read-only file system (EROFS)\n")


@suite.test
def a_file_that_is_refused():
    """QEMU as another user, who may not read it."""
    if os.getuid() != 0:
        raise Skip("not root")
    share = new_share()
    with open(os.path.join(share, "secret"), "wb"):
        pass
    os.chmod(os.path.join(share, "secret"), 0o600)
    os.chmod(suite.directory, 0o755)
    text = Machine(options=("-runas", "nobody")).boot(share, "cat /host/motd; cat /host/secret", FAILED)
    equal(text, HELLO.decode() + "p9: cat: /host/secret: Permission denied (EACCES)\n")


@suite.test
def a_device_that_does_not_answer():
    """QEMU's throttle lets nothing through for minutes; the demo was told to wait for a fifth of a second."""
    for machine in ("q35 pci transitional", "q35 pci legacy only", "microvm acpi=off mmio modern"):
        m = MACHINES[machine]
        slow = Machine(m.machine, m.device, options=m.options, model="security_model=none,throttling.bps-read=4000")
        for option in ("poll=0", "poll=1"):
            text = slow.boot(new_share(), f"patience=200 {option} stat /motd; sum /host/big; cat /motd", FAILED)
            found = re.search(r"inode .*\nvirtio-9p (.*): it does not answer\np9: sum: \1: it does not answer \(ETIMEDOUT\)\n"
                              r"p9: cat: \1: it does not answer \(ETIMEDOUT\)\n$", text)
            check(found, machine, option, text)


@suite.test
def the_end_without_a_debug_exit():
    for machine in ("pc pci transitional", "q35 pci transitional", "microvm acpi=off mmio modern"):
        m = MACHINES[machine]
        command = [*m.command([(new_share(), "share0")], "cat /motd"), "-serial", "stdio"]
        at = command.index("isa-debug-exit,iobase=0xf4,iosize=4")
        del command[at - 1:at + 1]
        equal(run(*command)[0], HELLO)


@suite.test
def a_share_that_is_full():
    share = new_share()
    if os.getuid() != 0:
        raise Skip("not root")
    run("mount", "-t", "tmpfs", "-o", "size=1m", "p9-demo", share)
    try:
        os.mkdir(os.path.join(share, "d"))
        with open(os.path.join(share, "src"), "wb") as f:
            f.write(b"x" * 700000)
        text = Q35.boot(share, "cp /host/src /host/copy; rm /host/copy; cat /host/nothing", FAILED)
        check("p9: cp: /host/copy: No space left on device (ENOSPC)" in text, text)
        check("p9: rm" not in text, text)
    finally:
        run("umount", "-l", share)


@suite.test
def names_that_would_command_a_terminal():
    share = new_share()
    with open(os.path.join(share, "evil\x1b[2Jname"), "wb"):
        pass
    text = Q35.boot(share, "ls /host; ls -l /host")
    equal(text.count("evil\\x1b[2Jname"), 2, text)


@suite.test
def a_large_directory():
    share = new_share()
    for i in range(3000):
        with open(os.path.join(share, "dir", f"file-{i:04}"), "wb") as f:
            f.write(b"x" * (i % 10))
    text = Q35.boot(share, "ls /host/dir; ls -l /host/dir")
    names = re.findall(r"^file-\d{4}$", text, re.M)
    equal(sorted(names), [f"file-{i:04}" for i in range(3000)])
    sizes = {name: int(size) for size, name in re.findall(r"^-\S+ +1 +\d+ +\d+ +(\d) (file-\d{4})$", text, re.M)}
    equal(sizes, {f"file-{i:04}": i % 10 for i in range(3000)})


@suite.test
def help_and_bench():
    text = Q35.boot(new_share(), "help; bench; bench /host/dir")
    for row in ("stat", "open and close", "read 4 KiB", "write 4 KiB", "read 1 MiB", "write 1 MiB", "getattr, all slots",
                "read 4 KiB, all slots"):
        figures = re.findall(rf"^bench: {row} +(\d+) ops/s", text, re.M)
        check(len(figures) == 2 and all(int(f) > 0 for f in figures), row, text)
    for command in "ls cat stat write append mkdir rm mv ln df selftest bench help".split():
        check(re.search(rf"^{command} ", text, re.M), f"help has no {command}")


# ---- the long runs ----

def selftest(machine, count, option="", limit=LIMIT):
    share = new_share()
    text = machine.boot(share, f"{option} selftest {count}", limit=limit)
    m = re.search(r"fids (\d+) -> (\d+), tags in flight (\d+) -> (\d+), slots (\d+) -> (\d+), ring places (\d+) -> (\d+), "
                  r"memory (\d+) -> (\d+)", text)
    check(m and all(m.group(i) == m.group(i + 1) for i in range(1, 10, 2)), text[-1500:])
    last = re.search(rf"^selftest: {count} operations in .*: ok$", text, re.M)
    check(last, text[-1500:])
    equal(sorted(os.listdir(share)), ["big", "dir", "empty", "link", "motd"], "left behind")
    return last.group()


for name in ("q35 pci transitional", "pc pci legacy only", "microvm acpi=off mmio modern", "microvm acpi=off mmio legacy"):
    add(f"selftest {name}", functools.partial(lambda n: selftest(MACHINES[n], SELFTEST), name))
add("selftest one slot and a ring of 2", lambda: selftest(Q35, SELFTEST, "slots=1 ring=2 indirect=0"))
if args.full:
    add("selftest million", lambda: print("   ", selftest(Q35, MILLION, limit=6 * 3600)))


@suite.test
def size_of_the_driver():
    """Driver, ring, engine, codec, session and mount table, all of each: less than 64 KiB, read-only data included."""
    objects = [os.path.join(where, n) for where, _, names in os.walk(os.path.join(GUEST, "libp9bare.a.p"))
               for n in names if n.endswith(".o")]
    for part in ("virtio_9p", "pci", "mmio", "virtio_driver", "engine_engine", "wire_codec", "vfs_session", "vfs_vfs"):
        check(any(part in o for o in objects), f"{part} is not among the objects")
    out = run("size", "-t", *objects)[0].decode().splitlines()[-1].split()
    print(f"    text {out[0]}, data {out[1]}, bss {out[2]}")
    check(int(out[0]) + int(out[1]) < TEXT_MOST, out)
    equal(out[2], "0", "static memory")


@suite.test
def what_the_README_shows_compiles():
    """Its two pieces of C as one kernel: they and the driver need nothing but what it says."""
    blocks = re.findall(r"```c\n(.*?)```", read(ROOT, "guest/README.md").decode(), re.S)
    equal(len(blocks), 2)
    source, out = (os.path.join(suite.directory, "readme" + end) for end in (".c", ".o"))
    with open(source, "w", encoding="utf-8") as f:
        f.write("\n".join(blocks))
    paths = [f"-I{os.path.join(ROOT, p)}" for p in (".", "src", "include", "proto", f"{args.build}/include")]
    run("gcc", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-Os", "-ffreestanding", "-nostdlib",
        "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector", "-fno-pie", *paths, "-c", source, "-o", out)
    archive = os.path.join(GUEST, "libp9bare.a")
    whole = os.path.join(suite.directory, "whole.o")
    run("ld", "-r", out, "--whole-archive", archive, "-o", whole)
    wanted = set(run("nm", "-u", "-P", whole)[0].decode().split()[::2])
    other = {n for n in wanted if not n.startswith("kernel_")} - {"memcpy", "memmove", "memset", "memcmp", "memchr"}
    equal(other, set())


if not os.path.exists(PVH) or not os.path.exists(MULTIBOOT):
    print(f"demo: {PVH} is not there: it is built on x86-64 with gcc, without sanitizers")
    sys.exit(1)
until(lambda: shutil.which(args.qemu), 0.1, f"{args.qemu} is not installed")
sys.exit(suite.run(args.only))
