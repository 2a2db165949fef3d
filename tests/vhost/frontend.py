# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user front-end without a VM: a monitor (control messages), a guest's memory, split rings, and 9P over them.

Monitor speaks the control protocol; Memory is memfds with guest and user addresses of any choice; Ring is the driver's end
of a split virtqueue, with functions that let a test break every rule; Guest is a 9P client (ninep.Conn) that sends each
message as a chain of descriptors, cut as Linux cuts them, or as the test says.
"""
import array
import mmap
import os
import select
import socket
import struct
import time

import ninep

(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD, SET_VRING_NUM, SET_VRING_ADDR,
 SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, GET_PROTOCOL_FEATURES,
 SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE) = range(1, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 21, 24, 25, 31, 32
RESET_DEVICE, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG, SET_STATUS, GET_STATUS = 34, 36, 37, 38, 39, 40
REPLY, NEED_REPLY = 4, 8
MQ, REPLY_ACK, BACKEND_REQ, CONFIG = 1 << 0, 1 << 3, 1 << 5, 1 << 9
INFLIGHT, RESET, SLOTS, STATUS = 1 << 12, 1 << 13, 1 << 15, 1 << 16
OURS = MQ | REPLY_ACK | BACKEND_REQ | CONFIG | INFLIGHT | RESET | SLOTS | STATUS
MOUNT_TAG, INDIRECT, EVENT_IDX, PROTOCOL, VERSION_1 = 1 << 0, 1 << 28, 1 << 29, 1 << 30, 1 << 32
FEATURES = MOUNT_TAG | INDIRECT | EVENT_IDX | PROTOCOL | VERSION_1
NEXT, WRITE, INDIRECT_DESC = 1, 2, 4
NO_INTERRUPT = NO_NOTIFY = 1
PAGE = 4096
GUEST, USER = 0x1_0000_0000, 0x7F00_0000_0000


class Refused(Exception):
    """The back-end acknowledged a message with something else than 0."""


class Gone(Exception):
    """The back-end has closed the control socket."""


def eventfd():
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


class Region:
    """size bytes of a memfd, at a guest's and a monitor's address."""

    def __init__(self, size, guest, user, offset=0, fd=None, seal=False):
        self.size, self.guest, self.user, self.offset = size, guest, user, offset
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, offset + size)
        self.map = mmap.mmap(self.fd, offset + size)
        self.bytes = memoryview(self.map)[offset:]

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def pack(self):
        return struct.pack("<QQQQ", self.guest, self.size, self.user, self.offset)


class Memory:
    """Regions, and a simple allocator: blocks of a size are used again."""

    def __init__(self, *regions):
        self.regions = list(regions) or [Region(16 << 20, GUEST, USER)]
        self.at = self.regions[0].guest
        self.end = self.at + self.regions[0].size
        self.free = {}

    def region(self, guest):
        for r in self.regions:
            if r.guest <= guest < r.guest + r.size:
                return r
        raise KeyError(hex(guest))

    def user(self, guest):
        r = self.region(guest)
        return guest - r.guest + r.user

    def pieces(self, guest, n):
        while n:
            r = self.region(guest)
            k = min(n, r.guest + r.size - guest)
            yield r.bytes[guest - r.guest:guest - r.guest + k]
            guest, n = guest + k, n - k

    def read(self, guest, n):
        return b"".join(bytes(p) for p in self.pieces(guest, n))

    def write(self, guest, data):
        view = memoryview(data)
        for p in self.pieces(guest, len(data)):
            p[:] = view[:len(p)]
            view = view[len(p):]

    def get(self, fmt, guest):
        return struct.unpack(fmt, self.read(guest, struct.calcsize(fmt)))[0]

    def put(self, fmt, guest, *values):
        self.write(guest, struct.pack(fmt, *values))

    def alloc(self, n, align=16):
        size = max(64, 1 << (n - 1).bit_length())
        if self.free.get((size, align)):
            return self.free[(size, align)].pop()
        self.at = (self.at + align - 1) // align * align
        at, self.at = self.at, self.at + size
        if self.at > self.end:
            raise MemoryError("the guest's memory is full")
        return at

    def release(self, at, n, align=16):
        self.free.setdefault((max(64, 1 << (n - 1).bit_length()), align), []).append(at)

    def close(self):
        for r in self.regions:
            r.close()


class Monitor:
    """The control socket. ack: ask for an answer to every message that has none of its own, and check it."""

    def __init__(self, sock, ack=True, timeout=20):
        self.sock = sock if isinstance(sock, socket.socket) else ninep.dial(sock)
        self.sock.settimeout(timeout)
        self.want_ack, self.protocol, self.features = ack, 0, 0

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def raw(self, data, fds=()):
        try:
            if fds:
                self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            else:
                self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone("while sending") from None

    def exactly(self, n):
        data, fds = b"", []
        while len(data) < n:
            try:
                got, control, _, _ = self.sock.recvmsg(n - len(data), 4096, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                raise Gone("reset") from None
            for level, kind, raw in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds += array.array("i", raw[:len(raw) // 4 * 4])
            if not got:
                raise Gone("closed")
            data += got
        return data, fds

    def answer(self, request):
        head, fds = self.exactly(12)
        kind, flags, size = struct.unpack("<III", head)
        if kind != request or flags & 7 != 5:
            raise AssertionError(f"answer {kind} with flags {flags:#x} to message {request}")
        body, more = self.exactly(size)
        self.fds = fds + more
        return body

    def send(self, request, body=b"", fds=(), flags=0):
        self.raw(struct.pack("<III", request, 1 | flags, len(body)) + body, fds)

    def ask(self, request, body=b"", fds=(), flags=0):
        """A message that has an answer of its own: its body; descriptors that came are in self.fds."""
        self.send(request, body, fds, flags)
        return self.answer(request)

    def u64(self, request):
        body = self.ask(request)
        if len(body) != 8:
            raise AssertionError(f"an answer of {len(body)} bytes to {request}")
        return struct.unpack("<Q", body)[0]

    def tell(self, request, body=b"", fds=(), ack=None):
        """A message that has none; with its acknowledgement when that was agreed on."""
        ack = self.want_ack and bool(self.protocol & REPLY_ACK) if ack is None else ack
        self.send(request, body, fds, NEED_REPLY if ack else 0)
        if ack:
            code, = struct.unpack("<Q", self.answer(request))
            if code:
                raise Refused(f"message {request}: {code}")

    def ended(self, seconds=5):
        """Whether the back-end closes within the time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                try:
                    if not self.sock.recv(4096):
                        return True
                except ConnectionResetError:
                    return True
        return False

    # ---- messages ----
    def set_features(self, features):
        self.features = features
        self.tell(SET_FEATURES, struct.pack("<Q", features))

    def set_protocol(self, features):
        self.protocol = features
        self.tell(SET_PROTOCOL_FEATURES, struct.pack("<Q", features), ack=False)

    def config(self, offset=0, size=34, flags=0, payload=True):
        body = self.ask(GET_CONFIG, struct.pack("<III", offset, size, flags) + (bytes(size) if payload else b""))
        return body[12:] if body else None

    def mem_table(self, memory):
        regions = memory.regions if isinstance(memory, Memory) else memory
        self.tell(SET_MEM_TABLE, struct.pack("<II", len(regions), 0) + b"".join(r.pack() for r in regions),
                  [r.fd for r in regions])

    def add_region(self, r):
        self.tell(ADD_MEM_REG, bytes(8) + r.pack(), [r.fd])

    def remove_region(self, r, fd=False):
        self.tell(REM_MEM_REG, bytes(8) + r.pack(), [r.fd] if fd else ())

    def vring(self, request, index, num):
        self.tell(request, struct.pack("<II", index, num))

    def vring_fd(self, request, index, fd):
        self.tell(request, struct.pack("<Q", index if fd is not None else index | 0x100), [fd] if fd is not None else ())

    def vring_addr(self, index, ring):
        user = ring.mem.user
        self.tell(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, user(ring.desc), user(ring.used), user(ring.avail), 0))

    def enable(self, index, on=1):
        self.vring(SET_VRING_ENABLE, index, on)

    def get_base(self, index):
        i, base = struct.unpack("<II", self.ask(GET_VRING_BASE, struct.pack("<II", index, 0)))
        if i != index:
            raise AssertionError(f"base of queue {i}, not {index}")
        return base

    # ---- conversations ----
    def hello(self, protocol=OURS):
        """What every front-end asks first."""
        offered = self.u64(GET_FEATURES)
        if offered & PROTOCOL:
            self.set_protocol(self.u64(GET_PROTOCOL_FEATURES) & protocol)
        self.tell(SET_OWNER)
        return offered

    def start(self, index, ring, base=0, enable=True, order="num base addr call err kick enable"):
        steps = {"num": lambda: self.vring(SET_VRING_NUM, index, ring.num),
                 "base": lambda: self.vring(SET_VRING_BASE, index, base),
                 "addr": lambda: self.vring_addr(index, ring),
                 "call": lambda: self.vring_fd(SET_VRING_CALL, index, ring.call),
                 "err": lambda: self.vring_fd(SET_VRING_ERR, index, ring.err),
                 "kick": lambda: self.vring_fd(SET_VRING_KICK, index, ring.kick),
                 "enable": lambda: self.enable(index)}
        for step in order.split():
            if step != "enable" or enable:
                steps[step]()

    def stop(self, index):
        self.enable(index, 0)
        return self.get_base(index)


class Ring:
    """The driver's end. Descriptors are taken from a free list; chains are given back by their head."""

    def __init__(self, mem, num=128, features=FEATURES, start=0):
        self.mem, self.num, self.features = mem, num, features
        self.desc = mem.alloc(16 * num, PAGE)
        self.avail = mem.alloc(6 + 2 * num, PAGE)
        self.used = mem.alloc(6 + 8 * num, PAGE)
        self.kick, self.call, self.err = eventfd(), eventfd(), eventfd()
        self.reset(start)
        self.notified = 0

    def reset(self, start=0):
        self.free, self.owned = list(range(self.num - 1, -1, -1)), {}
        self.idx = self.seen = start
        self.mem.write(self.desc, bytes(16 * self.num))
        self.mem.write(self.avail, struct.pack("<HH", 0, start) + bytes(2 * self.num + 2))
        self.mem.write(self.used, struct.pack("<HH", 0, start) + bytes(8 * self.num + 2))

    @property
    def event_idx(self):
        return bool(self.features & EVENT_IDX)

    def put_desc(self, i, addr, n, flags=0, following=0, table=None):
        self.mem.put("<QIHH", (self.desc if table is None else table) + 16 * i, addr, n, flags, following)

    def chain(self, pieces, indirect=True, tables=None):
        """Descriptors for [(addr, len, writable)]; returns the head. tables: where the indirect one was put."""
        def fill(put, slots):
            for k, (addr, n, writable) in enumerate(pieces):
                last = k == len(pieces) - 1
                put(slots[k], addr, n, (WRITE if writable else 0) | (0 if last else NEXT), 0 if last else slots[k + 1])
        if indirect and self.features & INDIRECT and len(pieces) > 1:
            n = 16 * len(pieces)
            table = self.mem.alloc(n)
            fill(lambda i, *a: self.put_desc(i, *a, table=table), range(len(pieces)))
            head = self.free.pop()
            self.put_desc(head, table, n, INDIRECT_DESC)
            self.owned[head] = ([head], (table, n))
        else:
            if len(pieces) > len(self.free):
                raise BufferError("the ring is full")
            slots = [self.free.pop() for _ in pieces]
            fill(self.put_desc, slots)
            head = slots[0]
            self.owned[head] = (slots, None)
        return head

    def offer(self, *heads):
        """Puts heads into the avail ring; kick() tells."""
        for head in heads:
            self.mem.put("<H", self.avail + 4 + 2 * (self.idx % self.num), head)
            self.idx = (self.idx + 1) & 0xFFFF
        self.mem.put("<H", self.avail + 2, self.idx)

    def wants_kick(self, old):
        if self.event_idx:
            event = self.mem.get("<H", self.used + 4 + 8 * self.num)
            return (self.idx - event - 1) & 0xFFFF < (self.idx - old) & 0xFFFF
        return not self.mem.get("<H", self.used) & NO_NOTIFY

    def ring_bell(self):
        os.eventfd_write(self.kick, 1)

    def submit(self, *heads, kick=None):
        old = self.idx
        self.offer(*heads)
        if self.wants_kick(old) if kick is None else kick:
            self.ring_bell()

    def used_idx(self):
        return self.mem.get("<H", self.used + 2)

    def take(self):
        """[(head, len)] that were given back; their descriptors are free again."""
        got = []
        while self.seen != self.used_idx():
            head, n = struct.unpack("<II", self.mem.read(self.used + 4 + 8 * (self.seen % self.num), 8))
            self.seen = (self.seen + 1) & 0xFFFF
            if head not in self.owned:
                raise AssertionError(f"head {head} was given back and not on its way (used index {self.seen})")
            slots, table = self.owned.pop(head)
            self.free += slots
            if table:
                self.mem.release(*table)
            got.append((head, n))
        return got

    def arm(self):
        """Asks to be told of the next one; returns whether there is one already."""
        if self.event_idx:
            self.mem.put("<H", self.avail + 4 + 2 * self.num, self.seen)
        else:
            self.mem.put("<H", self.avail, 0)
        return self.seen != self.used_idx()

    def hush(self):
        if self.event_idx:
            self.mem.put("<H", self.avail + 4 + 2 * self.num, (self.seen - 1) & 0xFFFF)
        else:
            self.mem.put("<H", self.avail, NO_INTERRUPT)

    def notifications(self):
        """How often the device has told us since the last look."""
        try:
            n = os.eventfd_read(self.call)
        except BlockingIOError:
            return 0
        self.notified += n
        return n

    def sleep(self, seconds):
        """Waits for a notification; returns whether one came. A stopped queue is an error."""
        if self.arm():
            return True
        ready = select.select([self.call, self.err], [], [], seconds)[0]
        if self.err in ready:
            raise ninep.Closed("the queue is stopped: err was signalled")
        self.notifications()
        return bool(ready)

    def close(self):
        for fd in (self.kick, self.call, self.err):
            os.close(fd)


def pages(addr, n, writable):
    """[(addr, len, writable)] cut at pages, as sg lists of Linux are."""
    while n:
        k = min(n, PAGE - addr % PAGE)
        yield addr, k, writable
        addr, n = addr + k, n - k


class Guest(ninep.Conn):
    """9P over rings: every request of ninep.Conn. room: bytes left for a reply (None: 4096, or what the request asks
    for); layout: "linux", or "two" (one descriptor each way); rings: used by turns."""

    def __init__(self, rings, msize=65536, timeout=20.0, version=True):
        self.rings = rings if isinstance(rings, list) else [rings]
        self.mem = self.rings[0].mem
        self.turn, self.out, self.lens, self.kick = 0, {}, {}, True
        self.room, self.layout, self.indirect = None, "linux", True
        left, right = socket.socketpair()  # for what ninep.Conn does with a socket
        right.close()
        super().__init__(left, msize, timeout, version)

    def reply_room(self, kind, body):
        if self.room is not None:
            return self.room
        if kind in (ninep.T["read"], ninep.T["readdir"]):
            return 11 + min(struct.unpack_from("<I", body, 12)[0], self.msize)
        return 4096

    def pieces(self, kind, message, room):
        """Where request and reply are put: (pieces, [blocks to release], addresses of the reply)."""
        count = len(message)
        zero_copy = self.layout == "linux" and (
            (kind in (ninep.T["read"], ninep.T["readdir"]) and room > 11 + 1024) or
            (kind == ninep.T["write"] and count > 23 + 1024))
        t = self.mem.alloc(count + PAGE, PAGE)
        r = self.mem.alloc(room + 2 * PAGE, PAGE)
        blocks = [(t, count + PAGE, PAGE), (r, room + 2 * PAGE, PAGE)]
        if self.layout == "two":
            self.mem.write(t, message)
            out, back = [(t, count, False)], [(r, room, True)] if room else []
        elif zero_copy and kind == ninep.T["write"]:
            self.mem.write(t, message[:23])
            data = t + 64 + 24  # a buffer of the user's, anywhere in a page
            self.mem.write(data, message[23:])
            out = [(t, 23, False), *pages(data, count - 23, False)]
            back = list(pages(r, room, True))
        elif zero_copy:
            self.mem.write(t, message)
            out = list(pages(t, count, False))
            back = [(r, 11, True), *pages(r + 64 + 24, room - 11, True)]
        else:
            self.mem.write(t, message)
            out, back = list(pages(t, count, False)), list(pages(r, room, True))
        return out + back, blocks, [(a, n) for a, n, _ in back]

    def prepare(self, kind, body=b"", tag=None):
        tag = self.tag() if tag is None else tag
        ring = self.rings[self.turn]
        self.turn = (self.turn + 1) % len(self.rings)
        message = ninep.frame(kind, tag, body)
        pieces, blocks, back = self.pieces(kind, message, self.reply_room(kind, body))
        head = ring.chain(pieces, self.indirect)
        self.out[(ring, head)] = (tag, blocks, back)
        return ring, head, tag

    def send(self, kind, body=b"", tag=None):
        ring, head, tag = self.prepare(kind, body, tag)
        ring.submit(head, kick=None if self.kick else False)
        return tag

    def batch(self, requests):
        """Offers many at once, with one kick; [(name, args...)] -> tags."""
        made = [self.prepare(ninep.T[name], self.body(name, *a)) for name, *a in requests]
        by_ring = {}
        for ring, head, _ in made:
            by_ring.setdefault(ring, []).append(head)
        for ring, heads in by_ring.items():
            ring.submit(*heads)
        return [tag for _, _, tag in made]

    def _take(self):
        for ring in self.rings:
            for head, n in ring.take():
                tag, blocks, back = self.out.pop((ring, head))
                data, left = [], n
                for addr, k in back:
                    data.append(self.mem.read(addr, min(k, left)))
                    left -= min(k, left)
                if left:
                    raise AssertionError(f"used.len {n} is longer than the room of the chain")
                data = b"".join(data)
                for block in blocks:
                    self.mem.release(*block)
                if n == 0:
                    self.lens[tag] = 0
                    self.busy.discard(tag)
                    self.order.append(("silent", tag))
                    continue
                size, kind, got = struct.unpack_from("<IBH", data)
                if size != n or got != tag:
                    raise AssertionError(f"reply of size {size} tag {got} in a chain of tag {tag}, used.len {n}")
                self.got.setdefault(tag, []).append((kind, data[7:]))
                self.order.append(tag)
        return True

    def wait_any(self, seconds):
        """Takes in what is there, or waits for it. False when nothing came."""
        for ring in self.rings:
            if ring.arm():
                self._take()
                return True
        ready = select.select([r.call for r in self.rings] + [r.err for r in self.rings], [], [], seconds)[0]
        for ring in self.rings:
            ring.notifications()
            if ring.err in ready:
                raise ninep.Closed("the queue is stopped: err was signalled")
        self._take()
        return bool(ready)

    def reply(self, tag, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self._take()
        while not self.got.get(tag):
            left = deadline - time.monotonic()
            if left <= 0:
                raise ninep.Late(f"no reply to tag {tag}")
            self.wait_any(left)
        got = self.got[tag].pop(0)
        if not self.got[tag]:
            del self.got[tag]
        self.busy.discard(tag)
        return got

    def settle(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait_any(left)

    def silent(self, tag, timeout=10.0):
        """Waits until the chain of this tag came back empty."""
        deadline = time.monotonic() + timeout
        while tag not in self.lens:
            if tag in self.got:
                raise AssertionError(f"tag {tag} was answered")
            if time.monotonic() > deadline:
                raise ninep.Late(f"the chain of tag {tag} does not come back")
            self.wait_any(0.2)
        del self.lens[tag]
