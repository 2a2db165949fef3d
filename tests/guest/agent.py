# SPDX-License-Identifier: BSD-2-Clause
"""agent.py DIRECTORY: what another process on the server's machine does to the
exported files while the guest has them mounted. Listens on a free port of
127.0.0.1, prints it, and answers one JSON object a line: {"op": NAME, ...} with
{"value": ...} or {"errno": N}. Paths are relative to the directory."""
import fcntl
import json
import os
import shutil
import socketserver
import stat
import struct
import sys
import threading
import time

ROOT = os.fsencode(sys.argv[1])
FLOCK = "hhqqi4x"
GETLK = {"posix": fcntl.F_GETLK, "ofd": 36}
SETLK = {"posix": fcntl.F_SETLK, "ofd": 37}
TYPE = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
NAME = {value: key for key, value in TYPE.items()}
held = {}


def real(path):
    return os.path.join(ROOT, os.fsencode(path))


def op_stat(path):
    st = os.lstat(real(path))
    return {"mode": st.st_mode, "ino": st.st_ino, "nlink": st.st_nlink, "uid": st.st_uid, "gid": st.st_gid,
            "size": st.st_size, "blocks": st.st_blocks, "atime": st.st_atime_ns, "mtime": st.st_mtime_ns}


def op_read(path):
    with open(real(path), "rb") as file:
        return file.read().decode("latin1")


def op_write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    fd = os.open(real(path), flags, 0o666)
    try:
        return os.write(fd, data.encode("latin1"))
    finally:
        os.close(fd)


def op_append(path, line, count):
    fd = os.open(real(path), os.O_WRONLY | os.O_APPEND)
    for _ in range(count):
        os.write(fd, line.encode())
        time.sleep(0.001)
    os.close(fd)


def op_rename(old, new):
    os.rename(real(old), real(new))


def op_unlink(path):
    os.unlink(real(path))


def op_mkdir(path, mode=0o755, uid=0, gid=0):
    os.mkdir(real(path))
    os.chown(real(path), uid, gid)
    os.chmod(real(path), mode)


def op_chmod(path, mode):
    os.chmod(real(path), mode)


def op_utime(path, times):
    os.utime(real(path), ns=tuple(times))


def op_rmtree(path):
    # Not shutil first: it cannot go down a path longer than PATH_MAX.
    if os.path.lexists(real(path)):
        os.chdir(ROOT)
        shutil.rmtree(real(path))


def op_make(path, names):
    for name in names:
        os.close(os.open(os.path.join(real(path), os.fsencode(name)), os.O_CREAT | os.O_WRONLY, 0o644))


def op_empty(path):
    for name in os.listdir(real(path)):
        os.unlink(os.path.join(real(path), name))


def op_count(path):
    return len(os.listdir(real(path)))


def op_churn(path, count):
    """Creates and removes files in a directory."""
    for i in range(count):
        name = os.path.join(real(path), b"churn%d" % i)
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        if i >= 20:
            os.unlink(os.path.join(real(path), b"churn%d" % (i - 20)))


def op_getxattr(path, name):
    return os.getxattr(real(path), name, follow_symlinks=False).decode("latin1")


def op_setxattr(path, name, value):
    os.setxattr(real(path), name, value.encode("latin1"))


def op_statvfs(path):
    st = os.statvfs(real(path))
    return {"bsize": st.f_bsize, "frsize": st.f_frsize, "blocks": st.f_blocks, "files": st.f_files,
            "bfree": st.f_bfree, "namemax": st.f_namemax}


def op_lock(path, kind, type, start=0, len=0, key="lock", unlock_after=0):
    """Takes a lock without waiting and keeps it open under a key."""
    fd = os.open(real(path), os.O_RDWR)
    try:
        fcntl.fcntl(fd, SETLK[kind], struct.pack(FLOCK, TYPE[type], 0, start, len, 0))
    except OSError:
        os.close(fd)
        raise
    held[key] = fd
    if unlock_after:
        threading.Timer(unlock_after, op_unlock, [key]).start()


def op_unlock(key="lock"):
    if key in held:
        os.close(held.pop(key))


def op_getlock(path, kind, type, start=0, len=0):
    """What stands in the way of a lock: [type, start, length], or None."""
    fd = os.open(real(path), os.O_RDWR)
    try:
        answer = fcntl.fcntl(fd, GETLK[kind], struct.pack(FLOCK, TYPE[type], 0, start, len, 0))
    finally:
        os.close(fd)
    kind, _, start, length, _ = struct.unpack(FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else [NAME[kind], start, length]


def op_kind(path):
    mode = os.lstat(real(path)).st_mode
    return stat.filemode(mode)[0]


class Conversation(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            request = json.loads(line)
            try:
                answer = {"value": globals()["op_" + request.pop("op")](**request)}
            except OSError as error:
                answer = {"errno": error.errno}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


os.umask(0)
with Server(("127.0.0.1", 0), Conversation) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
