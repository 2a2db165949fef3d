# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user 9P device in Python that does what it is told to, also what no device may do.

It speaks the control conversation, walks the ring and answers Tversion and Tattach; everything else, and any lie, is the
test's: a function that gets (device, request, place) for each request and answers with device.give().
"""
import array
import mmap
import os
import select
import socket
import struct
import threading

GET_FEATURES, SET_FEATURES, SET_MEM_TABLE, SET_ADDR, GET_BASE, SET_KICK, SET_CALL, SET_ERR = 1, 2, 5, 9, 11, 12, 13, 14
GET_PROTOCOL, SET_PROTOCOL, GET_QUEUES, ENABLE, GET_CONFIG, SET_NUM, SET_BASE = 15, 16, 17, 18, 24, 8, 10
GET_INFLIGHT, SET_INFLIGHT = 31, 32
FEATURES = 1 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32
MQ, REPLY_ACK, CONFIG, INFLIGHT = 1, 1 << 3, 1 << 9, 1 << 12


class Device:
    def __init__(self, path, answer=None, control=None, features=FEATURES, protocol=MQ | REPLY_ACK | CONFIG):
        """answer(device, request, place) for each 9P request but the first two; control(device, request, flags, payload)
        returns True when it has dealt with a control message."""
        self.answer, self.control, self.features, self.protocol = answer, control, features, protocol
        self.ack, self.tag = False, b"tag"
        self.requests = []
        self.links = 0          # connections so far
        self.books = []         # for each that brought books: their inode, and where the ring goes on
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)

    def run(self):
        while True:
            try:
                self.sock, _ = self.listener.accept()
            except OSError:
                return
            self.fds, self.mem, self.ring, self.taken, self.used = {}, None, {}, 0, 0
            self.links += 1
            try:
                self.serve()
            except (OSError, EOFError, IndexError, struct.error):  # scribbled memory is not to be walked
                pass
            self.sock.close()
            for fd in self.fds.values():
                os.close(fd)

    def serve(self):
        while True:
            watch = [self.sock] + ([self.fds[SET_KICK]] if SET_KICK in self.fds else [])
            ready = select.select(watch, [], [])[0]
            if self.sock in ready:
                self.one_message()
            if SET_KICK in self.fds and self.fds[SET_KICK] in ready:
                os.read(self.fds[SET_KICK], 8)
                self.walk_ring()

    # ---- control ----
    def receive(self, n):
        data, fds = b"", array.array("i")
        while len(data) < n:
            part, anc, _, _ = self.sock.recvmsg(n - len(data), socket.CMSG_SPACE(4 * 8))
            for level, kind, bytes_ in anc:
                fds.frombytes(bytes_[:len(bytes_) // 4 * 4])
            if not part:
                raise EOFError
            data += part
        return data, list(fds)

    def reply(self, request, payload, flags=5):
        self.sock.sendall(struct.pack("=III", request, flags, len(payload)) + payload)

    def one_message(self):
        head, fds = self.receive(12)
        request, flags, size = struct.unpack("=III", head)
        payload, more = self.receive(size) if size else (b"", [])
        fds += more
        if self.control and self.control(self, request, flags, payload):
            for fd in fds:
                os.close(fd)
            return
        if request in (SET_KICK, SET_CALL, SET_ERR) and fds:
            self.fds[request] = fds[0]
        elif request == SET_MEM_TABLE:
            _, _, guest, length, _, offset = struct.unpack("=IIQQQQ", payload[:40])
            self.mem, self.base = mmap.mmap(fds[0], length, offset=offset), guest
            os.close(fds[0])
        elif request == SET_NUM:
            self.num = struct.unpack("=II", payload)[1]
        elif request == SET_ADDR:
            _, _, self.desc, self.usedring, self.avail, _ = struct.unpack("=IIQQQQ", payload)
        elif request == SET_PROTOCOL:
            self.ack = bool(struct.unpack("=Q", payload)[0] & REPLY_ACK)
        elif request == SET_BASE:
            self.taken = self.used = struct.unpack("=II", payload)[1]
        elif request == SET_INFLIGHT:
            self.books.append(os.fstat(fds[0]).st_ino)
            os.close(fds[0])
        elif request == GET_INFLIGHT:
            self.give_books(payload)
            return
        answers = {GET_FEATURES: self.features, GET_PROTOCOL: self.protocol, GET_QUEUES: 1}
        if request in answers:
            self.reply(request, struct.pack("=Q", answers[request]))
        elif request == GET_CONFIG:
            self.reply(request, payload[:12] + struct.pack("<H", len(self.tag)) + self.tag.ljust(254, b"\0"))
        elif request == GET_BASE:
            self.reply(request, struct.pack("=II", 0, self.taken))
        elif self.ack and flags & 8:
            self.reply(request, bytes(8))

    def give_books(self, payload):
        _, _, queues, num = struct.unpack("=QQHH", payload[:20])
        self.memfd = os.memfd_create("books")
        os.ftruncate(self.memfd, (16 + 16 * num) * queues)
        body = struct.pack("=QQHH", (16 + 16 * num) * queues, 0, queues, num).ljust(len(payload), b"\0")
        self.sock.sendmsg([struct.pack("=III", GET_INFLIGHT, 5, len(body)) + body],
                          [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.memfd]))])

    # ---- the ring ----
    def read(self, addr, n):
        return self.mem[addr - self.base:addr - self.base + n]

    def write(self, addr, data):
        self.mem[addr - self.base:addr - self.base + len(data)] = data

    def descriptors(self, table, i):
        out = []
        while True:
            addr, length, flags, following = struct.unpack("<QIHH", self.read(table + 16 * i, 16))
            if flags & 4:
                return out + self.descriptors(addr, 0)
            out.append((addr, length, flags & 2))
            if not flags & 1:
                return out
            i = following

    def walk_ring(self):
        while self.taken != struct.unpack("<H", self.read(self.avail + 2, 2))[0]:
            head, = struct.unpack("<H", self.read(self.avail + 4 + 2 * (self.taken % self.num), 2))
            self.taken = (self.taken + 1) & 0xFFFF
            parts = self.descriptors(self.desc, head)
            data = b"".join(self.read(a, n) for a, n, w in parts if not w)
            place = (head, [(a, n) for a, n, w in parts if w])
            self.requests.append(data)
            if data[4] == 100:
                self.give(place, 101, 0xFFFF, data[7:11] + struct.pack("<H", 8) + b"9P2000.L")
            elif data[4] == 104:
                self.give(place, 105, struct.unpack("<H", data[5:7])[0], b"\x80" + bytes(12))
            else:
                self.answer(self, data, place)
            self.write(self.usedring + 4 + 8 * self.num, struct.pack("<H", self.taken))

    def give(self, place, kind, tag, body, length=None, size=None, head=None):
        """Answers; length, size and head may lie."""
        message = struct.pack("<IBH", size if size is not None else 7 + len(body), kind, tag) + body
        left = message
        for addr, n in place[1]:
            self.write(addr, left[:n])
            left = left[n:]
        self.used_entry(place[0] if head is None else head, len(message) if length is None else length)

    def used_entry(self, head, length, step=1):
        self.write(self.usedring + 4 + 8 * (self.used % self.num), struct.pack("<II", head, length))
        self.used = (self.used + step) & 0xFFFF
        self.write(self.usedring + 2, struct.pack("<H", self.used))
        os.write(self.fds[SET_CALL], struct.pack("=Q", 1))
