# SPDX-License-Identifier: MIT
"""Tables that a command writes into a document, between its marks."""


def marks(command):
    """Where they begin and end."""
    return f"<!-- written by {command} -->", f"<!-- end of {command} -->"


def markdown(table):
    """[[cell]] as Markdown; the first line is the head."""
    lines = [table[0], ["---"] + ["---:"] * (len(table[0]) - 1), *table[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def parts(words, command):
    """A file's text before, between and after the marks."""
    first, last = marks(command)
    before, begin, rest = words.partition(first)
    between, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the marks of {command} are missing")
    return before, between, after


def write(path, command, tables):
    """Put tables between the marks of a file."""
    before, _, after = parts(path.read_text(), command)
    first, last = marks(command)
    between = "\n".join(map(markdown, tables))
    path.write_text(f"{before}{first}\n{between}{last}{after}")


def rows(path, command):
    """[[cell]] of the first table between the marks of a file, without its
    head."""
    table = parts(path.read_text(), command)[1].strip().split("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
