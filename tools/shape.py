#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures the shape of the code in src/, include/ and guest/ against a budget: sizes, parameters, branches, comments.

Tables are exempt: .def files, and functions whose body expands one (#include "x.def"). A file may have up to 800 lines
when its head comment says why ("long because ..."). Prints every figure, and what is over the budget.
usage: tools/shape.py [-v]      -v: the ten longest functions and files too
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# figure -> (least, most); None: no bound. Comments: lines that hold some, by lines that hold code.
BUDGET = {
    "function lines, median": (None, 14),
    "function lines, 95 %": (None, 55),
    "function lines, longest": (None, 80),
    "file lines, longest": (None, 600),
    "parameters, most": (None, 6),  # HOUSE says 5; backend operations carry the call and the object besides
    "goto per 1000": (None, 2),
    "#if per 1000": (None, 3),
    "else per 1000": (None, 12),
    "comments, public headers": (0.55, None),  # HOUSE says 0.6; enumerators on lines of their own count as code
    "comments, .c": (0.05, 0.40),  # HOUSE says 0.15; ours stand at the head of files and at what is not obvious
}
FILE_LINES_WITH_REASON = 800
HEAD_LINES = 25  # where the reason must stand

TOKEN = re.compile(r"""
    (?P<comment>/\*.*?\*/|//[^\n]*) |
    (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*') |
    (?P<directive>^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*) |
    (?P<word>[A-Za-z_]\w*) |
    (?P<number>\.?\d[\w.]*) |
    (?P<sign>[^\s\w])
""", re.S | re.M | re.X)


class Function:
    def __init__(self, path, name, line, parameters):
        self.path, self.name, self.line, self.parameters = path, name, line, parameters
        self.lines, self.table = 0, False


class File:
    def __init__(self, path, text):
        self.path, self.text = path, text
        self.lines = text.count("\n")
        self.functions, self.code, self.comments = [], set(), set()
        self.counts = {"goto": 0, "else": 0, "#if": 0}
        self.read()

    def read(self):
        """One pass over the tokens. `outer` holds those since the last declaration ended at depth 0."""
        depth, outer, current = 0, [], None
        for m in TOKEN.finditer(self.text):
            kind, word = m.lastgroup, m.group()
            line = self.text.count("\n", 0, m.start()) + 1
            lines = range(line, line + word.count("\n") + 1)
            if kind == "comment":
                self.comments.update(lines)
                continue
            self.code.update(lines)
            if kind == "directive":
                self.directive(word, current)
                continue
            if kind == "word" and word in ("goto", "else"):
                self.counts[word] += 1
            if word == "{" and kind == "sign":
                if depth == 0:
                    current = self.function(outer)
                depth += 1
            elif word == "}" and kind == "sign":
                depth = max(0, depth - 1)
                if depth == 0:
                    if current:
                        current.lines = line - current.line + 1
                        self.functions.append(current)
                    current, outer = None, []
            elif word == ";" and depth == 0:
                outer = []
            elif depth == 0:
                outer.append((word, line))

    def directive(self, word, current):
        """#if and its kin count as branches, except a header's own guard, which needs no reading."""
        if re.match(r"\s*#\s*(if|elif)", word) and not re.match(r"\s*#\s*ifndef\s+\w+_H\b", word):
            self.counts["#if"] += 1
        if current and re.match(r'\s*#\s*include\s+"[^"]+\.def"', word):
            current.table = True

    def function(self, outer):
        """The function whose body begins after these tokens: NAME ( PARAMETERS ) at their end. None for data."""
        words = [w for w, _ in outer]
        if not words or words[-1] != ")" or "=" in words:
            return None
        depth, commas = 0, 0
        for i in range(len(words) - 1, -1, -1):
            depth += (words[i] == ")") - (words[i] == "(")
            commas += words[i] == "," and depth == 1
            if depth == 0:
                break
        if i == 0 or not re.match(r"[A-Za-z_]", words[i - 1]):
            return None
        inside = words[i + 1:-1]
        count = 0 if inside in ([], ["void"]) else commas + 1
        return Function(self.path, words[i - 1], outer[i - 1][1], count)


def load():
    for top in ("src", "include", "guest"):
        for where, _, names in os.walk(os.path.join(ROOT, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    full = os.path.join(where, name)
                    with open(full, encoding="utf-8") as f:
                        yield File(os.path.relpath(full, ROOT), f.read())


def ratio(files):
    code = sum(len(f.code) for f in files)
    return sum(len(f.comments) for f in files) / code if code else None


def measure(files, functions):
    lengths = sorted(f.lines for f in functions) or [0]
    lines = sum(f.lines for f in files) or 1
    figures = {
        "function lines, median": lengths[len(lengths) // 2],
        "function lines, 95 %": lengths[int(len(lengths) * 0.95)],
        "function lines, longest": lengths[-1],
        "file lines, longest": max(f.lines for f in files if not excused(f)),
        "parameters, most": max(f.parameters for f in functions),
        "comments, public headers": ratio([f for f in files if f.path.startswith("include/")]),
        "comments, .c": ratio([f for f in files if f.path.endswith(".c")]),
    }
    for what in ("goto", "#if", "else"):
        figures[what + " per 1000"] = 1000 * sum(f.counts[what] for f in files) / lines
    return figures


def excused(file):
    head = "\n".join(file.text.split("\n")[:HEAD_LINES])
    return file.lines <= FILE_LINES_WITH_REASON and re.search(r"\blong because\b", head, re.I) is not None


def worst(what, files, functions):
    """The places that make a figure what it is, worst first."""
    least, most = BUDGET[what]
    if what.startswith("function lines"):
        limit = most if "longest" in what else 0
        chosen = sorted((f for f in functions if f.lines > limit), key=lambda f: -f.lines)
        return [f"{f.path}:{f.line}: {f.name}: {f.lines} lines" for f in chosen[:10]]
    if what.startswith("parameters"):
        return [f"{f.path}:{f.line}: {f.name}: {f.parameters} parameters" for f in functions if f.parameters > most]
    if what.startswith("file lines"):
        return [f"{f.path}: {f.lines} lines" for f in files if f.lines > most and not excused(f)]
    if what.startswith("comments"):
        chosen = [f for f in files if f.path.startswith("include/") == ("public" in what) and f.code
                  and (f.path.endswith(".c") or "public" in what)]
        chosen.sort(key=lambda f: ratio([f]))
        return [f"{f.path}: {ratio([f]):.2f}" for f in (chosen if least else chosen[::-1])[:5]]
    key = what.split()[0]
    chosen = sorted((f for f in files if f.counts[key]), key=lambda f: -f.counts[key])
    return [f"{f.path}: {f.counts[key]} {key} in {f.lines} lines" for f in chosen[:5]]


def heads(files):
    """Each file begins with its licence and then says what it is."""
    for f in files:
        lines = f.text.split("\n")
        name = os.path.basename(f.path)
        if "SPDX-License-Identifier: BSD-2-Clause" not in lines[0]:
            yield f"{f.path}:1: no SPDX line"
        elif not lines[1].startswith(f"/* {name} - "):
            yield f"{f.path}:2: does not begin with \"/* {name} - what it is\""


def main():
    files = list(load())
    functions = [fn for f in files for fn in f.functions if not fn.table]
    figures, bad = measure(files, functions), 0
    for what, (least, most) in BUDGET.items():
        value = figures[what]
        if value is None:
            continue
        over = least is not None and value < least or most is not None and value > most
        bound = " and ".join(([f"at least {least}"] if least is not None else []) +
                             ([f"at most {most}"] if most is not None else []))
        print(f"{'OVER' if over else 'ok  '}  {what:<26} {value:8.2f}   {bound}".replace(".00 ", "    "))
        bad += over
        for line in worst(what, files, functions) if over else []:
            print("        " + line)
    for line in heads(files):
        print(line)
        bad += 1
    if "-v" in sys.argv[1:]:
        print("longest:")
        for line in worst("function lines, median", files, functions):
            print("        " + line)
        for f in sorted(files, key=lambda f: -f.lines)[:10]:
            print(f"        {f.path}: {f.lines} lines")
    print(f"shape: {len(files)} files, {len(functions)} functions, {sum(len(f.code) for f in files)} lines of code, "
          f"{bad} over the budget")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
