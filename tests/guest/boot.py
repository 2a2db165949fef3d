# SPDX-License-Identifier: BSD-2-Clause
"""One boot of the guest: starts the server, the host's agent and QEMU, watches
what the guest says and what its kernel says, ends all of it, writes the counts.

Lines of the guest on its port: "ok NAME", "not ok NAME: reason", "# remark",
and at the end "P9-GUEST-DONE". Files left in the work directory, all named
after the transport: .out (that port), .console (the kernel), .server (what the
server logged), .failed (one line per failure) and .count ("PASSED FAILED")."""
import argparse
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

DONE = "P9-GUEST-DONE"
# What a kernel says when something is wrong.
TROUBLE = re.compile(
    r"\bBUG\b|WARNING:|Oops|Kernel panic|general protection|blocked for more than|"
    r"soft lockup|rcu.*stall|9pnet: |9p: |guest-init:|EXT4-fs error|Out of memory")
HARMLESS = re.compile(r"9pnet: Installing|9p: Installing")
TAGS = "none", "mmap", "loose", "acl"
# The exported directory lies in the guest.
INSIDE = "unix", "local"
FATAL = re.compile(r"Kernel panic|guest-init:")


class Rig:
    def __init__(self, args):
        self.args = args
        self.children = []
        self.passed = 0
        self.failures = []
        self.base = os.path.join(args.work, args.transport)
        self.server = None
        self.address = None
        self.pauses = None
        self.argv = self.successors = None

    def start(self, name, argv, **options):
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        child.name = name
        self.children.append(child)
        return child

    def stop_all(self):
        for child in reversed(self.children):
            if child.poll() is None:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                child.wait()

    def fail(self, text):
        self.failures.append(text)
        print("not ok " + text, flush=True)

    def ok(self, text):
        self.passed += 1
        print("ok " + text, flush=True)

    # --- the server on the host ---------------------------------------------
    def start_server(self, directory):
        args = self.args
        if args.transport in ("relay", "vhost"):
            listen = "unix:%s/relay.sock" % args.work
            self.address = args.work + "/relay.sock"
            probe = socket.AF_UNIX, self.address
        else:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self.address = "127.0.0.1:%d" % port
            listen = "tcp:" + self.address
            probe = socket.AF_INET, ("127.0.0.1", port)
        if args.server_cmd:
            argv = shlex.split(args.server_cmd.format(listen=self.address, dir=directory))
        else:
            argv = [args.p9d, "-l", listen, "-e", "srv=%s,squash=none,checks=server" % directory,
                    "-e", "cli=%s,squash=none,checks=client" % directory,
                    "-e", "squash=" + directory, "-e", "ro=%s,ro,squash=none" % directory]
            if args.transport == "vhost":
                for tag in TAGS:
                    argv += ["-l", "vhost-user:%s/vu-%s,tag=%s" % (args.work, tag, tag)]
        if args.takeover:
            argv += ["--control", args.work]
        self.argv = argv
        log = open(self.base + ".server", "wb")
        self.server = self.start("server", argv, stdout=log, stderr=log)
        for _ in range(100):
            if self.server.poll() is not None:
                break
            with socket.socket(probe[0]) as sock:
                if sock.connect_ex(probe[1]) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("the server does not start: " + " ".join(argv) + "\n" + self.server_log())

    def server_log(self):
        try:
            with open(self.base + ".server", errors="replace") as log:
                return "".join("  server: " + line for line in log.readlines()[-40:])
        except OSError:
            return ""

    def server_fds(self):
        return len(os.listdir("/proc/%d/fd" % self.server.pid))

    def finish_server(self, fds_before):
        """The guest is gone: nothing of it may be left, and the server ends when told."""
        name = self.args.transport + "/server"
        if self.server.poll() is not None:
            self.fail("%s: alive after the guest: it ended with status %d" % (name, self.server.returncode))
            return
        self.ok(name + ": alive after the guest")
        for _ in range(40):
            fds_after = self.server_fds()
            if fds_after <= fds_before:
                break
            time.sleep(0.1)
        if self.args.server_cmd:
            return
        # Worker threads may come with an eventfd or so; open files may not stay.
        if fds_after <= fds_before + 4:
            self.ok(name + ": no descriptors left behind")
        else:
            self.fail("%s: no descriptors left behind: %d before, %d after" % (name, fds_before, fds_after))
        if self.args.p9:
            kind = "tcp:" if self.args.transport == "tcp" else "unix:"
            look = subprocess.run([self.args.p9, "-s", kind + self.address, "-a", "srv", "ls"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, timeout=20)
            if look.returncode == 0:
                self.ok(name + ": p9 ls")
            else:
                self.fail("%s: p9 ls: status %d, %s" % (name, look.returncode, look.stderr.decode(errors="replace")))
        self.server.terminate()
        try:
            status = self.server.wait(3)
            if status == 0:
                self.ok(name + ": ends on SIGTERM")
            else:
                self.fail("%s: ends on SIGTERM: status %d" % (name, status))
        except subprocess.TimeoutExpired:
            self.fail(name + ": ends on SIGTERM: still there after 3 seconds")

    # --- the guest -------------------------------------------------------------
    def start_guest(self):
        args = self.args
        argv = [*args.qemu.split("\n"), "-M", "q35,usb=off,hpet=off", "-accel", "tcg,thread=multi",
                "-cpu", "qemu64", "-smp", "1", "-m", "1536", "-nodefaults", "-no-user-config",
                "-display", "none",
                "-kernel", args.kernel, "-initrd", args.work + "/initrd.gz",
                "-append", "console=ttyS0 loglevel=6 panic=-1 mitigations=off nokaslr "
                "random.trust_cpu=on tsc=reliable no_timer_check net.ifnames=0 p9work=%s p9transport=%s"
                % (args.work, args.transport),
                "-chardev", "file,id=con,path=%s.console" % self.base, "-serial", "chardev:con",
                "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot",
                "-device", "virtio-serial-pci",
                "-chardev", "file,id=out,path=%s.out" % self.base,
                "-device", "virtserialport,chardev=out,name=p9.out",
                "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        if args.transport in INSIDE:
            disk = self.base + ".disk"
            with open(disk, "wb") as image:
                image.truncate(8 << 30)
            subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum", "-E",
                            "lazy_itable_init=1,lazy_journal_init=1", disk], check=True)
            argv += ["-drive", "file=%s,format=raw,if=none,id=disk,cache=unsafe,discard=unmap" % disk,
                     "-device", "virtio-blk-pci,drive=disk"]
        if args.transport != "vhost":
            argv += ["-no-reboot"]
        else:
            # the guest's memory is shared; the devices are p9d's, and one is QEMU's own, for comparison
            argv += ["-object", "memory-backend-memfd,id=mem,size=1536M,share=on", "-machine", "memory-backend=mem",
                     "-qmp", "unix:%s.qmp,server=on,wait=off" % self.base,
                     "-fsdev", "local,id=own,path=%s/export-vhost,security_model=passthrough,multidevs=remap" % args.work,
                     "-device", "virtio-9p-pci,fsdev=own,mount_tag=own"]
            for tag in TAGS:
                argv += ["-chardev", "socket,id=%s,path=%s/vu-%s" % (tag, args.work, tag), "-device",
                         "vhost-user-test-device-pci,chardev=%s,virtio-id=9,num_vqs=1,vq_size=128,config_size=34" % tag]
        if args.transport == "qemu":
            for tag in TAGS:
                argv += ["-fsdev", "local,id=%s,path=%s/export-qemu,security_model=passthrough,multidevs=remap"
                         % (tag, args.work), "-device", "virtio-9p-pci,fsdev=%s,mount_tag=%s" % (tag, tag)]
        if args.transport == "relay":
            for i in range(2):
                argv += ["-chardev", "socket,id=r%d,path=%s,reconnect=1" % (i, self.address),
                         "-device", "virtserialport,chardev=r%d,name=p9.relay%d" % (i, i)]
        log = open(self.base + ".qemu", "wb")
        return self.start("qemu", argv, stdout=log, stderr=log)

    def take_over_again_and_again(self, guest):
        """A p9d that goes on in the place of the one that serves, every few seconds, whatever the guest does meanwhile."""
        count, name = 0, self.args.transport + "/takeover"
        while guest.poll() is None:
            time.sleep(self.args.takeover)
            with open(self.base + ".server", "ab") as log:
                new = self.start("server", [*self.argv, "--takeover=%d" % self.server.pid], stdout=log, stderr=log)
            deadline = time.monotonic() + 40
            while self.server.poll() is None and new.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if new.poll() is not None or self.server.poll() != 0:
                self.fail("%s: after %d: the old one ended with %s, the new one with %s"
                          % (name, count, self.server.poll(), new.poll()))
                return
            self.server = new
            count += 1
        if count > 3:
            self.ok("%s: %d p9d, one after the other" % (name, count))
        else:
            self.fail("%s: only %d" % (name, count))

    def pause_now_and_then(self, guest):
        """Stops the guest for a moment, again and again, whatever it is doing: its rings stop with it."""
        pauses = 0
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(self.base + ".qmp")
            qmp = sock.makefile("rw", encoding="utf-8")
            json.loads(qmp.readline())

            def command(name):
                qmp.write(json.dumps({"execute": name}) + "\n")
                qmp.flush()
                while True:
                    answer = json.loads(qmp.readline())
                    if "return" in answer or "error" in answer:
                        return "return" in answer
            command("qmp_capabilities")
            try:
                while guest.poll() is None:
                    time.sleep(0.5)
                    if not command("stop"):
                        break
                    time.sleep(0.2)
                    if not command("cont"):
                        break
                    pauses += 1
            except (OSError, ValueError):
                pass  # the guest has ended, or the check for that will say so
        if pauses > 5:
            self.ok("%s/pauses: stopped and continued" % self.args.transport)
        else:
            self.fail("%s/pauses: only %d" % (self.args.transport, pauses))

    def watch(self, guest):
        """Copies the guest's lines until it ends, dies or is late; true when it came to its end."""
        deadline = time.monotonic() + self.args.timeout
        out = Follower(self.base + ".out")
        console = Follower(self.base + ".console")
        done = False
        troubles = 0
        while True:
            ended = guest.poll() is not None
            for line in out.lines(ended):
                if line == DONE:
                    done = True
                elif line.startswith("ok "):
                    self.ok(line[3:])
                elif line.startswith("not ok "):
                    self.fail(line[7:])
                elif line:
                    print(line, flush=True)
                if line.startswith("# vhost/pauses: from now on"):
                    self.pauses = threading.Thread(target=self.pause_now_and_then, args=(guest,), daemon=True)
                    self.pauses.start()
            for line in console.lines(ended):
                if TROUBLE.search(line) and not HARMLESS.search(line):
                    troubles += 1
                    if troubles > 20:
                        continue
                    self.fail("%s/kernel: %s" % (self.args.transport, line.strip()))
                    if FATAL.search(line):
                        deadline = min(deadline, time.monotonic() + 5)
            if ended:
                return done
            if time.monotonic() > deadline:
                self.fail("%s/guest: not finished after %d seconds" % (self.args.transport, self.args.timeout))
                return True
            time.sleep(0.1)

    def run(self):
        args = self.args
        directory = "/export" if args.transport in INSIDE else args.work + "/export-" + args.transport
        env = {"TRANSPORT": args.transport, "SUITE": args.suite, "P9D": args.p9d, "ONLY": args.only,
               "SERVER_CMD": args.server_cmd, "DIR": directory, "SERVER": "", "AGENT": ""}
        began = time.monotonic()
        fds = 0
        try:
            if args.transport not in INSIDE:
                os.mkdir(directory)
                os.chmod(directory, 0o755)
                if args.suite == "compare":
                    for i in range(100):
                        os.makedirs("%s/tree/d%d" % (directory, i))
                        for k in range(100):
                            open("%s/tree/d%d/%d" % (directory, i, k), "w").close()
                if args.transport != "qemu":
                    self.start_server(directory)
                agent = self.start("agent", [sys.executable, args.work + "/agent.py", directory],
                                   stdout=subprocess.PIPE)
                port = int(agent.stdout.readline())
                env["AGENT"] = "10.0.2.2:%d" % port
            if self.server:
                env["SERVER"] = self.address.replace("127.0.0.1", "10.0.2.2")
                time.sleep(0.3)
                fds = self.server_fds()
            with open(self.base + ".env", "w") as out:
                for key, value in env.items():
                    out.write("%s=%s\n" % (key, shlex.quote(value)))
            guest = self.start_guest()
            if args.takeover and self.server:
                self.successors = threading.Thread(target=self.take_over_again_and_again, args=(guest,), daemon=True)
                self.successors.start()
            if not self.watch(guest):
                self.fail("%s/guest: ended without its marker" % args.transport)
                self.show_tails()
            if self.pauses:
                self.pauses.join(10)
            if self.server:
                guest_alive = guest.poll() is None
                if guest_alive:
                    os.killpg(guest.pid, signal.SIGKILL)
                    guest.wait()
                if self.successors:
                    self.successors.join(60)
                self.finish_server(fds)
        except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
            self.fail("%s/rig: %s" % (args.transport, error))
        finally:
            self.stop_all()
            if self.failures and self.server:
                print(self.server_log(), end="")
            with open(self.base + ".failed", "w") as out:
                out.writelines(text + "\n" for text in self.failures)
            with open(self.base + ".count", "w") as out:
                out.write("%d %d\n" % (self.passed, len(self.failures)))
        print("# %s: %.0f seconds" % (args.transport, time.monotonic() - began), flush=True)

    def show_tails(self):
        for kind in "qemu", "console":
            with open("%s.%s" % (self.base, kind), errors="replace") as log:
                for line in log.readlines()[-30:]:
                    print("  %s: %s" % (kind, line.rstrip()))


class Follower:
    """The whole lines that were added to a file since the last look."""

    def __init__(self, path):
        self.path = path
        self.file = None
        self.rest = ""

    def lines(self, to_the_end):
        if self.file is None:
            if not os.path.exists(self.path):
                return []
            self.file = open(self.path, "rb")
        text = self.rest + self.file.read().decode(errors="replace")
        lines = text.split("\n")
        self.rest = "" if to_the_end else lines.pop()
        return [line.rstrip("\r") for line in lines]


def main():
    parser = argparse.ArgumentParser()
    for name in "work", "kernel", "transport", "suite", "p9d", "p9", "server-cmd", "only":
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--timeout", type=int, required=True)
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--takeover", type=float, default=0)
    rig = Rig(parser.parse_args())

    def stop(signum, _frame):
        for other in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(other, signal.SIG_IGN)  # a second one would find the first at work, and wait for it for ever
        rig.stop_all()
        os._exit(128 + signum)
    for signum in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(signum, stop)
    rig.run()


main()
