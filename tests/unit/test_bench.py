# SPDX-License-Identifier: MIT
"""What `make bench` writes into the documents, and that it can."""

import pytest

from bench import bench, marked

FILES = [bench.DOCS, bench.README]
MARKS = marked.marks(bench.COMMAND)


def tables(words):
    """[[[cell]]] of the Markdown between a file's marks."""
    found = []
    for block in marked.parts(words, bench.COMMAND)[1].strip().split("\n\n"):
        found.append([line.strip("| ").split(" | ")
                      for line in block.splitlines()])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_marks(path):
    for table in tables(path.read_text()):
        assert len(table) > 2
        assert {len(line) for line in table} == {len(table[0])}


def test_the_text_around_stays(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("above\n" + "\nold\n".join(MARKS) + "\nbelow\n")
    for value in ("1", "2,000"):
        marked.write(path, bench.COMMAND, [[["a", "b"], ["x", value]]] * 2)
    above, between, below = marked.parts(path.read_text(), bench.COMMAND)
    assert (above, below) == ("above\n", "\nbelow\n")
    one = f"| a | b |\n| --- | ---: |\n| x | {value} |\n"
    assert between == f"\n{one}\n{one}"


@pytest.mark.parametrize("words", ["", "\n".join(reversed(MARKS))])
def test_without_marks_nothing_is_written(tmp_path, words):
    path = tmp_path / "page.md"
    path.write_text(words)
    with pytest.raises(ValueError):
        marked.write(path, bench.COMMAND, [])
    assert path.read_text() == words
