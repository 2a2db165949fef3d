# SPDX-License-Identifier: BSD-2-Clause
"""Takes the ELF kernel out of a bzImage: vmlinux.py BZIMAGE VMLINUX."""
import lzma
import struct
import subprocess
import sys
import zlib

image = open(sys.argv[1], "rb").read()
sectors = image[0x1F1] or 4
offset, length = struct.unpack_from("<II", image, 0x248)
start = (sectors + 1) * 512 + offset
payload = image[start:start + length]
if payload.startswith(b"\xfd7zXZ"):
    kernel = lzma.LZMADecompressor().decompress(payload)
elif payload.startswith(b"\x1f\x8b"):
    kernel = zlib.decompressobj(31).decompress(payload)
elif payload.startswith(b"\x28\xb5\x2f\xfd"):
    kernel = subprocess.run(["zstd", "-dc"], input=payload, stdout=subprocess.PIPE).stdout
else:
    kernel = b""
if not kernel.startswith(b"\x7fELF"):
    sys.exit("vmlinux.py: %s: unknown compression" % sys.argv[1])
with open(sys.argv[2], "wb") as out:
    out.write(kernel)
