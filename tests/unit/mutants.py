# SPDX-License-Identifier: MIT
"""The tests' own test: a copy of the C source with one defect, which Bochs
would not show, makes the check that is meant for it fail."""

import harness


def variant(source, *changes):
    """The path of a copy in which each (old, new) was put through once."""
    text = (harness.ROOT / source).read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{source} no longer reads {old!r}"
        text = text.replace(old, new)
    stem = source.rsplit("/", 1)[1].removesuffix(".c")
    return harness._file_of_text(text, f"mutant-{stem}")


mutated = variant       # with a defect: mutate.py passes over its tests
