# SPDX-License-Identifier: MIT
"""What is expected of a machine: NAME.expect beside its file.

    fleet 1 igd assign=all          the command line that it is for
    starts                          or: refuses WORDS OF THE LINE
    gfx 00:02.0                     each function that the guest has
    memory 99                       percent of the RAM, at least

A file that does not begin so is another's, and not looked at.
"""

from . import paper

MARK = "fleet 1 "


def path_of(row):
    return row.machine.path.with_suffix(".expect")


def _lines(row):
    out = [row.outcome.replace("refuses:", "refuses", 1)]
    out += [f"{kind} {paper.text_of(bdf)}"
            for bdf, kind in sorted(row.given.items())]
    if row.starts:
        out.append(f"memory {row.memory * 100 // max(row.machine.ram(), 1)}")
    return out


def write(row, words):
    text = "\n".join([MARK + words, *_lines(row)]) + "\n"
    path_of(row).write_text(text)


def _read(row, words):
    try:
        first, *rest = path_of(row).read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return None
    return rest if first == MARK + words else None


def differences(row, words):
    """[] too where nothing is expected with that command line."""
    wanted = _read(row, words)
    if wanted is None:
        return []
    out, found = [], _lines(row)
    outcome, memory = wanted[0], [w for w in wanted if w.startswith("memory ")]
    if outcome == "starts" and not row.starts:
        return [f"expected to start; {row.outcome}"]
    if outcome != "starts" and not (row.refused and
                                    outcome.split(" ", 1)[1] in row.outcome):
        return [f"expected: {outcome}; {row.outcome}"]
    functions = {w for w in wanted[1:] if w not in memory}
    given = {w for w in found[1:] if not w.startswith("memory ")}
    out += [f"expected but not given: {w}" for w in sorted(functions - given)]
    out += [f"given but not expected: {w}" for w in sorted(given - functions)]
    if memory and row.memory * 100 < int(memory[0].split()[1]) * \
            row.machine.ram():
        out.append(f"{row.memory} bytes given, expected {memory[0]} percent")
    return out
