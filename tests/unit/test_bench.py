# SPDX-License-Identifier: MIT
"""What `make bench` writes into the documents, and that it can."""
import json
import types

import pytest

from bench import bench, firmware, marked

PLACES = [(bench.README, bench.COMMAND),
          *((bench.DOCS, bench.place(part)) for part in bench.PARTS)]
MARKS = marked.marks(bench.COMMAND)


@pytest.mark.parametrize("path, command", PLACES)
def test_marks(path, command):
    rows = marked.rows(path, command)
    assert len(rows) > 0
    assert {len(row) for row in rows} == {len(rows[0])}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Documents of its own, whose marks have nothing between them."""
    for name in ("ROWS", "DOCS", "README"):
        monkeypatch.setattr(bench, name, tmp_path / name)
    commands = [bench.COMMAND, *map(bench.place, bench.PARTS)]
    marks = "".join("\n".join(marked.marks(c)) + "\n" for c in commands)
    bench.DOCS.write_text(marks)
    bench.README.write_text(marks)


def measured(value):
    rows = [bench.row(bench.EXIT + "cpuid", "ticks", value, 5, 40)]
    return rows, bench.beside(rows)


def test_parts_are_measured_one_by_one(files):
    """What another run has measured stays; README waits for all parts."""
    for n, part in enumerate(bench.PARTS):
        assert marked.rows(bench.README, bench.COMMAND) == []
        bench.write_down(part, *measured(n))
    bench.write_down("exits", *measured(10))
    rows = json.loads(bench.ROWS.read_text())
    assert [row["value"] for row in rows] == [
        10, *range(1, len(bench.PARTS))]
    assert rows[0].keys() >= {"name", "unit", "value", "goal", "kvm"}
    for path, command in ((bench.DOCS, bench.place("exits")),
                          (bench.README, bench.COMMAND)):
        assert marked.rows(path, command)[0] == [
            "exit cost: cpuid", "10", "40", "4.0", "ticks", "5"]


@pytest.mark.parametrize("value, reasons, status", [
    (5, {}, 0), (6, {}, 1), (6, {"cpuid": "because"}, 0)])
def test_a_miss_needs_its_reason(monkeypatch, files, capsys, value, reasons,
                                 status):
    monkeypatch.setattr(bench, "PARTS", {"exits": lambda _: measured(value)})
    monkeypatch.setattr(bench, "REASONS", reasons)
    monkeypatch.setattr("sys.argv", ["bench"])
    assert bench.main() == status
    assert ("missed" in capsys.readouterr().out) == (value > 5)


def stats(**exits):
    """As monoclectl prints them."""
    return f"{sum(exits.values())} exits, 1 of 9 ticks in Monocle (1.00 %)\n" \
        "reason  exits  ticks  each\n" + "".join(
            f"{reason:22} {n:9} {n * 7:12} {7:6}\n"
            for reason, n in exits.items())


def test_a_second_of_an_idle_guest(monkeypatch):
    """Ten more seconds of sleep, and nothing of what is around them."""
    texts = [stats(WRMSR=100), stats(WRMSR=140, CPUID=30),
             stats(WRMSR=200, CPUID=30), stats(WRMSR=500, CPUID=62)]
    monkeypatch.setattr(bench, "boot", lambda **_: types.SimpleNamespace(
        serial="demo\n" + "".join(texts)))
    assert bench.idle(None) == {"WRMSR": 26.0, "CPUID": 0.2}


def test_sleep_is_taken_off_what_firmware_takes():
    """Before its start there is nothing of the guest's; behind a HLT Bochs stops
    as it begins, and as its interrupt ends."""
    halt = firmware.sleeps()[-1] & 0xffff
    stops = iter([(10, firmware.VECTOR), (20, 0xe05b), (50, halt),
                  (51, halt + 1), (950, halt + 1), (970, halt),
                  (1970, halt + 1), (2000, 0xe6f2), (2100, halt)])
    spent = firmware.spent(types.SimpleNamespace(next=lambda *_: next(stops)))
    assert spent == 2100 - 20 - (950 - 50) - (1970 - 970)


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
