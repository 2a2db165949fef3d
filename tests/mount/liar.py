# SPDX-License-Identifier: BSD-2-Clause
"""A server that lies: it stands between a client and an honest p9d and passes everything on, but for the answers that its
`lie` changes. So a client meets the lie in the middle of a session that is otherwise in order, whatever it asks and when.

lie(request, reply) is called for each answer with Frames; it returns what to send instead: None for the honest answer, else
bytes (b"": nothing at all). While `armed` is false all is honest.
"""
import os
import socket
import struct
import threading
import time

NAMES = {7: "lerror", 9: "statfs", 13: "lopen", 15: "lcreate", 17: "symlink", 19: "mknod", 21: "rename", 23: "readlink",
         25: "getattr", 27: "setattr", 31: "xattrwalk", 33: "xattrcreate", 41: "readdir", 51: "fsync", 53: "lock",
         55: "getlock", 71: "link", 73: "mkdir", 75: "renameat", 77: "unlinkat", 101: "version", 103: "auth", 105: "attach",
         109: "flush", 111: "walk", 117: "read", 119: "write", 121: "clunk", 123: "remove"}
NUMBERS = {name: number for number, name in NAMES.items()}


class Frame:
    def __init__(self, data):
        self.size, self.type, self.tag = struct.unpack_from("<IBH", data)
        self.body, self.data = data[7:], data
        self.name = NAMES.get(self.type | 1, "?")


def frame(kind, tag, body=b"", length=None):
    """An answer; kind is a name or a number, length what its size says when it lies."""
    number = NUMBERS[kind] if isinstance(kind, str) else kind
    return struct.pack("<IBH", len(body) + 7 if length is None else length, number, tag) + body


def text(s):
    return struct.pack("<H", len(s)) + s


def qid(kind=0, path=1, version=0):
    return struct.pack("<BIQ", kind, version, path)


class Liar:
    def __init__(self, directory, honest, lie, armed=False, hear=None):
        self.path = os.path.join(directory, f"liar{time.monotonic_ns()}")
        self.honest, self.lie, self.armed, self.hear = honest, lie, armed, hear
        self.told, self.asked, self.lock = 0, [], threading.Lock()
        self.sockets = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o666)
        self.listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.honest)
            self.sockets += [client, server]
            waiting = {}
            threading.Thread(target=self._requests, args=(client, server, waiting), daemon=True).start()
            threading.Thread(target=self._answers, args=(client, server, waiting), daemon=True).start()

    @staticmethod
    def _frames(sock):
        buffer = b""
        while True:
            while len(buffer) >= 4 and len(buffer) >= struct.unpack_from("<I", buffer)[0]:
                size = struct.unpack_from("<I", buffer)[0]
                yield Frame(buffer[:size])
                buffer = buffer[size:]
            try:
                more = sock.recv(1 << 20)
            except OSError:
                return
            if not more:
                return
            buffer += more

    @staticmethod
    def _close(*sockets):
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _requests(self, client, server, waiting):
        for f in self._frames(client):
            waiting[f.tag] = f
            with self.lock:
                self.asked.append(f.name)
            try:
                if self.hear and self.armed and self.hear(f, client):
                    continue
                server.sendall(f.data)
            except OSError:
                break
        self._close(client, server)

    def _answers(self, client, server, waiting):
        for f in self._frames(server):
            request = waiting.get(f.tag, f)
            data = f.data
            if self.armed:
                other = self.lie(request, f)
                if other is not None:
                    data = other
                    with self.lock:
                        self.told += 1
            try:
                client.sendall(data)
            except OSError:
                break
        self._close(client, server)

    def close(self):
        self.listener.close()
        self._close(*self.sockets)
        for s in self.sockets:
            s.close()
