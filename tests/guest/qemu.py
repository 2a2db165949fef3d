#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A QEMU that has the generic vhost-user device (10.2 or later), beside the system's own and without installing it.

usage: tests/guest/qemu.py        prints the command to start it with, one word a line

Debian 12's QEMU is too old, so a later one is taken from Debian's own archive: with a private apt configuration (the
mirror that the machine's sources name, lists of our own, an empty list of installed packages) that downloads it with all
it needs, and dpkg -x into the cache, where it runs with its own C library. Exit code 3, and why, when it cannot be had.
What is in the cache already is used without asking the archive again.
"""
import glob
import os
import re
import shutil
import subprocess
import sys

CACHE = os.environ.get("P9_QEMU_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "p9-qemu")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("trixie-backports", "sid")
DEVICE = "vhost-user-test-device-pci"


class Missing(Exception):
    pass


def apt(conf, *args):
    env = {**os.environ, "APT_CONFIG": conf, "DEBIAN_FRONTEND": "noninteractive"}
    got = subprocess.run(["apt-get", "-q", *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=400, check=False)
    if got.returncode != 0:
        lines = got.stdout.decode(errors="replace").strip().splitlines()
        raise Missing(f"apt-get {args[0]}: " + (" ".join(x for x in lines if x[:2] in ("E:", "Er")) or " ".join(lines[-2:]))[-400:])


def mirror():
    """Where this machine has Debian's main archive from."""
    if not shutil.which("apt-get") or not os.path.exists(KEYS):
        raise Missing("not a Debian system")
    out = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode()
    for line in out.splitlines():
        uri, _, codename = line.partition(" ")
        if re.fullmatch(r"(bookworm|trixie|forky|sid)", codename) and uri.rstrip("/").endswith("/debian"):
            return uri
    raise Missing("apt's sources have no Debian archive (or apt-get update was never run)")


def configure(where, uri, suite):
    """A configuration under which apt sees one suite and no installed packages."""
    for name in ("lists/partial", "archives/partial", "preferences.d"):
        os.makedirs(os.path.join(where, name), exist_ok=True)
    with open(os.path.join(where, "status"), "w", encoding="ascii"):
        pass
    suites = [suite] if suite == "sid" else [suite.partition("-")[0], suite]
    with open(os.path.join(where, "sources.list"), "w", encoding="ascii") as f:
        for name in suites:
            f.write(f"deb [signed-by={KEYS}] {uri} {name} main\n")
    own = subprocess.run(["apt-config", "dump", "--format", "%F \"%v\";%n", "Acquire"], stdout=subprocess.PIPE,
                         check=True).stdout.decode()
    conf = os.path.join(where, "apt.conf")
    with open(conf, "w", encoding="utf-8") as f:
        f.write("".join(line + "\n" for line in own.splitlines() if "roxy" in line))
        f.write(f'Dir::Etc::parts "-";\nDir::Etc::main "-";\nDir::Etc::sourcelist "{where}/sources.list";\n'
                f'Dir::Etc::sourceparts "-";\nDir::Etc::preferencesparts "{where}/preferences.d";\n'
                f'Dir::Etc::preferences "-";\nDir::State "{where}";\nDir::State::lists "{where}/lists";\n'
                f'Dir::State::status "{where}/status";\nDir::Cache "{where}";\nDir::Cache::archives "{where}/archives";\n'
                'APT::Sandbox::User "root";\nAPT::Install-Recommends "false";\nAPT::Keep-Downloaded-Packages "true";\n'
                'Acquire::Languages "none";\nAcquire::Retries "1";\nAcquire::http::Timeout "20";\n'
                'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n')
    return conf


def fetch(suite):
    """Downloads and unpacks; the directory."""
    where = os.path.join(CACHE, f"new.{os.getpid()}")
    try:
        conf = configure(where, mirror(), suite)
        apt(conf, "update", "--error-on=any")
        apt(conf, "-y", "--download-only", "-t", suite, "install", "qemu-system-x86")
        tree = os.path.join(where, "tree")
        for package in sorted(glob.glob(where + "/archives/*.deb")):
            subprocess.run(["dpkg", "-x", package, tree], check=True)
        command = words(tree)
        check(command)
        done = os.path.join(CACHE, f"qemu-{version(command)}")
        if not os.path.exists(done):
            os.rename(tree, done)
        return done
    finally:
        shutil.rmtree(where, ignore_errors=True)


def words(tree):
    """The command that runs the QEMU of an unpacked tree with that tree's libraries, modules and firmware."""
    loader = glob.glob(tree + "/lib64/ld-linux*") + glob.glob(tree + "/usr/lib64/ld-linux*") + \
        glob.glob(tree + "/usr/lib/*/ld-linux*") + glob.glob(tree + "/lib/*/ld-linux*")
    if not loader:
        raise Missing("what was unpacked has no C library")
    libraries = [d for d in (f"{tree}{base}/{os.uname().machine}-linux-gnu{sub}" for base in ("/lib", "/usr/lib")
                             for sub in ("", "/pulseaudio")) if os.path.isdir(d)]
    libraries += [d for d in (tree + "/lib", tree + "/usr/lib") if os.path.isdir(d)]
    modules = glob.glob(tree + "/usr/lib/*/qemu")
    return ["env", "QEMU_MODULE_DIR=" + (modules[0] if modules else "/nonexistent"), os.path.realpath(loader[0]),
            "--library-path", ":".join(libraries), tree + "/usr/bin/qemu-system-x86_64",
            *[w for d in (tree + "/usr/share/qemu", tree + "/usr/share/seabios") if os.path.isdir(d) for w in ("-L", d)]]


def version(command):
    out = subprocess.run([*command, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60)
    found = re.search(rb"version (\d+\.\d+[.\d]*)", out.stdout)
    if not found:
        raise Missing("it does not run: " + out.stdout.decode(errors="replace")[-200:])
    return found.group(1).decode()


def check(command):
    """It runs, and knows the device."""
    number = version(command)
    out = subprocess.run([*command, "-M", "none", "-nodefaults", "-display", "none", "-device", DEVICE + ",help"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60).stdout
    if b"virtio-id" not in out:
        raise Missing(f"QEMU {number} has no {DEVICE}: {out.decode(errors='replace')[-200:]}")


def find():
    own = shutil.which("qemu-system-x86_64")
    if own:
        try:
            check([own])
            return [own]
        except Missing:
            pass
    for tree in sorted(glob.glob(CACHE + "/qemu-*"), reverse=True):
        try:
            check(words(tree))
            return words(tree)
        except Missing:
            continue
    os.makedirs(CACHE, exist_ok=True)
    why = []
    for suite in SUITES:
        try:
            return words(fetch(suite))
        except (Missing, OSError, subprocess.SubprocessError) as e:
            why.append(f"{suite}: {e}")
    raise Missing("; ".join(why))


def main():
    try:
        print("\n".join(find()))
        return 0
    except Missing as e:
        print(f"no QEMU with {DEVICE}: {e}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
