# SPDX-License-Identifier: BSD-2-Clause
"""What stands between p9 and a good server: a relay that looks at messages and may change, hold or cut them, and a
server of a tree that no file system can have."""
import os
import socket
import struct
import threading

TLOCK, TREAD, TWRITE, RREAD = 52, 116, 118, 117


def end_listener(listener, thread):
    """Who waits in accept() is woken and has gone before the number of its descriptor can be another's."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    thread.join(10)
    listener.close()


class Relay:
    """Accepts at `path` and passes on to the server at `to`, message by message. request(kind, frame) and
    reply(kind, frame) return the frame to send, changed or not, or None to end the connection."""

    def __init__(self, path, to, request=None, reply=None):
        self.path, self.to = path, to
        self.request, self.reply = request or (lambda kind, frame: frame), reply or (lambda kind, frame: frame)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.socks = []
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.to)
            self.socks += [client, server]
            for a, b, judge in ((client, server, "request"), (server, client, "reply")):
                threading.Thread(target=self.pump, args=(a, b, judge), daemon=True).start()

    def pump(self, a, b, judge):
        try:
            while True:
                head = self.take(a, 7)
                frame = head + self.take(a, struct.unpack("<I", head[:4])[0] - 7)
                frame = getattr(self, judge)(head[4], frame)
                if frame is None:
                    break
                b.sendall(frame)
        except (OSError, EOFError):
            pass
        self.cut()

    @staticmethod
    def take(sock, n):
        data = bytearray()
        while len(data) < n:
            part = sock.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def cut(self):
        for s in self.socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        end_listener(self.listener, self.thread)
        self.cut()


def text(name):
    raw = os.fsencode(name)
    return struct.pack("<H", len(raw)) + raw


class Liar:
    """A server with one directory whose listing holds `names`; each of them is said to be a file with b"evil", or a
    directory for names that `dirs` holds. One client."""

    def __init__(self, path, names, dirs=()):
        self.names, self.dirs = names, dirs
        self.fids = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        end_listener(self.listener, self.thread)

    def qid(self, name):
        kind = 0x80 if name == "/" or name in self.dirs else 0
        return struct.pack("<BIQ", kind, 1, 1 if name == "/" else 2 + sorted(self.names).index(name))

    def serve(self):
        try:
            client, _ = self.listener.accept()
            while True:
                head = Relay.take(client, 7)
                size, kind, tag = struct.unpack("<IBH", head)
                kind, body = self.answer(kind, Relay.take(client, size - 7))
                client.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)
        except (OSError, EOFError):
            pass

    def answer(self, kind, body):
        fid = struct.unpack("<I", body[:4])[0]
        name = self.fids.get(fid, "/")
        if kind == 100:
            return 101, body[:4] + text("9P2000.L")
        if kind == 104:
            self.fids[fid] = "/"
            return 105, self.qid("/")
        if kind == 110:
            return self.walk(name, body)
        if kind == 12:
            return 13, self.qid(name) + struct.pack("<I", 0)
        if kind == 24:
            is_dir = name == "/" or name in self.dirs
            mode, size = (0o40755, 0) if is_dir else (0o100644, 4)
            return 25, struct.pack("<Q", 0x7ff) + self.qid(name) + struct.pack("<IIIQQQQQ", mode, 0, 0, 1, 0, size, 4096, 8) \
                + struct.pack("<QQQQQQQQQQ", *[1] * 10)
        if kind == 40:
            return self.readdir(name, struct.unpack("<Q", body[4:12])[0])
        if kind == 116:
            data = b"" if struct.unpack("<Q", body[4:12])[0] else b"evil"
            return 117, struct.pack("<I", len(data)) + data
        if kind == 120:
            return 121, b""
        return 7, struct.pack("<I", 95)

    def walk(self, name, body):
        newfid, n = struct.unpack("<IH", body[4:10])
        if n == 0:
            self.fids[newfid] = name
            return 111, struct.pack("<H", 0)
        length = struct.unpack("<H", body[10:12])[0]
        name = os.fsdecode(body[12:12 + length])
        if n > 1 or name not in self.names:
            return 7, struct.pack("<I", 2)
        self.fids[newfid] = name
        return 111, struct.pack("<H", 1) + self.qid(name)

    def readdir(self, name, offset):
        entries = b""
        if name == "/":
            for i, n in enumerate(self.names[offset:], offset + 1):
                entries += self.qid(n) + struct.pack("<QB", i, 4 if n in self.dirs else 8) + text(n)
        return 41, struct.pack("<I", len(entries)) + entries
