#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Prints a manual page from its .3.in file, with what it quotes put in.

@HEADER file.h FROM-TO@      the declarations of include/p9/file.h between its sections FROM and TO ("/* ---- FROM ---- */"),
                             comments made into text; without TO to the file's end, with "head" its head comment
@EXAMPLE file.c@             doc/examples/file.c, which the build compiles and a test runs
So that a manual cannot say anything that the headers and examples do not.
usage: tools/manual.py FILE.3.in VERSION
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def literal(text):
    return ".Bd -literal\n" + escape(text.expandtabs(8).strip("\n")) + "\n.Ed\n"


def prose(comment):
    """Text of a comment: a line for each sentence, as manual pages are written; "- " begins an item."""
    out = []
    for line in comment.split("\n"):
        line = re.sub(r"^\s*\*? ?", "", line).rstrip()
        if line.lstrip().startswith("- "):
            out.append("\n.br\n\\(bu " + escape(line.lstrip()[2:]))
        else:
            out.append("\n.Pp\n" if not line else escape(line.strip()))
    text = " ".join(out)
    text = re.sub(r" *\n *", "\n", text).strip().removesuffix(".Pp").rstrip()
    text = re.sub(r"([.?!][)\"]?) +(?=\S)", r"\1\n", text)
    return re.sub(r"^([.'])(?!Pp|br)", r"\\&\1", text, flags=re.M) + "\n"


def head(text):
    body = re.search(r"/\* \S+ - (.*?)\*/", text.split("\n", 1)[1], re.S).group(1)
    return prose(body)


def sections(text):
    """name -> text, in order."""
    parts = re.split(r"^/\* ---- (.*?) ---- \*/\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def declarations(text):
    """Comments in the first column are text; what follows them is literal."""
    text = re.sub(r"^(#endif|P9_C_END)\s*$", "", text, flags=re.M).replace("P9_MUST_USE ", "")
    out = []
    for m in re.finditer(r"^/\*(.*?)\*/\n|(.+?)(?=^/\*|\Z)", text, re.S | re.M):
        if m.group(1):
            out.append(".Pp\n" + prose(m.group(1)))
        elif m.group(2).strip():
            out.append(literal(m.group(2)))
    return "".join(out)


def header(name, what):
    text = read("include", "p9", name)
    if what == "head":
        return head(text)
    found = sections(text)
    out = []
    for one in found if what == "all" else what.split("|"):
        out.append(f".Ss {one.capitalize()}\n" + declarations(found[one]))
    return re.sub(r"^(\.Ss [^\n]*\n)\.Pp\n", r"\1", re.sub(r"^\.Pp\n(?=\.Ss )", "", "".join(out), flags=re.M), flags=re.M)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        page = f.read()
    page = page.replace("@VERSION@", sys.argv[2])
    page = re.sub(r"^@HEADER (\S+) (.*)@\n", lambda m: header(m.group(1), m.group(2)), page, flags=re.M)
    page = re.sub(r"^@EXAMPLE (\S+)@\n", lambda m: literal(read("doc", "examples", m.group(1))), page, flags=re.M)
    if re.search(r"^@", page, re.M):
        sys.exit(f"{sys.argv[1]}: a line begins with @ still")
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
