#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Prints what the public headers declare: as a linker's version script, or as a list, one name a line.

A name is public when a header given declares it as a function that is not inline, or as extern data.
usage: tools/exports.py map|list HEADER...
"""
import re
import sys


def declared(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", "", text, flags=re.M)
    text = re.sub(r"\b(P9_C_BEGIN|P9_C_END|P9_MUST_USE)\b", "", text)
    while re.search(r"\{[^{}]*\}", text):  # bodies of structs, enums and inline functions; these end a declaration
        text = re.sub(r"\{[^{}]*\}", "@", text)
    for one in re.split(r";|@(?=\s*(?:static|struct|enum|int|uint|const|void|size_t|bool|typedef|extern)\b)", text):
        one = one.strip()
        if not one or re.match(r"(static|typedef)\b", one):
            continue
        data = re.match(r"extern\s+[\w\s*]+?\b(\w+)\s*(\[\])?$", one)
        function = re.match(r"[\w\s*]*?\b(\w+)\s*\(", one)
        if data:
            yield data.group(1)
        elif function:
            yield function.group(1)


def main():
    names = sorted({n for path in sys.argv[2:] for n in declared(path)})
    if len(sys.argv) < 3 or sys.argv[1] not in ("map", "list") or not names:
        sys.exit(__doc__)
    if sys.argv[1] == "list":
        print("\n".join(names))
    else:
        print("LIBP9_0 {\nglobal:\n" + "".join(f"\t{n};\n" for n in names) + "local:\n\t*;\n};")


if __name__ == "__main__":
    main()
