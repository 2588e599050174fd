# SPDX-License-Identifier: MIT
"""fw_cfg, and the port of firmware's messages."""
import pytest

import devmodel
import fwcfg


@pytest.fixture
def machine():
    machine = devmodel.Machine()
    machine.m.reset()
    machine.cfg = machine.m.new("struct fw_cfg *")
    assert machine.m.fw_cfg_init(machine.cfg, machine.bus) == 0
    machine.cfg.vcpus = 3
    return machine


def add(machine, name, data, **fields):
    m = machine.m
    keep = m.new("u8[]", data)
    machine._keep.append(keep)
    return m.fw_cfg_add(machine.cfg, name, m.new("struct fw_cfg_file *", {
        "data": keep, "size": len(data), **fields})[0])


def test_what_firmware_looks_for(machine):
    """OvmfPkg's QemuFwCfgLib: signature, and no DMA in the features."""
    assert fwcfg.read(machine, 0, 4) == b"QEMU"
    assert fwcfg.read(machine, 1, 4) == b"\1\0\0\0"
    for key in 5, 15:
        assert fwcfg.read(machine, key, 2) == b"\3\0"
    assert fwcfg.read(machine, 14, 2) == b"\1\0"   # SeaBIOS's boot menu
    assert fwcfg.directory(machine) == {}


@pytest.mark.parametrize("port", [fwcfg.PORT, fwcfg.DATA, 0x402])
def test_a_port_that_is_taken(port):
    machine = devmodel.Machine()
    m = machine.m
    assert m.bus_register(machine.bus, m.BUS_PORT, port, port,
                          m.ffi.NULL, m.ffi.NULL, b"another") == 0
    assert m.fw_cfg_init(m.new("struct fw_cfg *"), machine.bus) < 0


@pytest.mark.parametrize("key", [2, 3, 9, 0x1f, 0x20, 0x7fff, 0x8002, 0xffff])
def test_what_is_not_there_reads_0(machine, key):
    assert fwcfg.read(machine, key, 8) == bytes(8)


def test_files(machine):
    text = bytes(range(1, 200))
    assert add(machine, b"etc/one", text) == 0
    assert add(machine, b"opt/two WORDS", b"ab") == 0
    assert list(fwcfg.directory(machine)) == ["etc/one", "opt/two"]
    assert fwcfg.file(machine, "etc/one") == text
    assert fwcfg.file(machine, "opt/two") == b"ab"
    # A selection begins anew, and behind the end there are zeros.
    key, _ = fwcfg.directory(machine)["opt/two"]
    assert fwcfg.read(machine, key, 5) == b"ab\0\0\0"
    assert fwcfg.read(machine, key, 1) == b"a"
    assert machine.inp(fwcfg.DATA) == ord("b")
    machine.m.fw_cfg_reset(machine.cfg)
    assert bytes(machine.inp(fwcfg.DATA) for _ in range(4)) == b"QEMU"


def test_nothing_can_be_written(machine):
    add(machine, b"etc/one", b"abc")
    key, _ = fwcfg.directory(machine)["etc/one"]
    machine.out(fwcfg.PORT, key, 2)
    machine.out(fwcfg.DATA, 0x55)
    machine.out(fwcfg.PORT, 0, 1)           # no selector of a byte
    assert machine.inp(fwcfg.DATA) == ord("a")
    assert machine.inp(fwcfg.PORT, 2) == 0


def test_a_file_may_be_made_when_it_is_selected(machine):
    m = machine.m
    data = m.new("u8[]", b"old")

    def fill(_):
        m.ffi.memmove(data, b"new", 3)
    callback = m.callback("void(void *)", fill)
    assert m.fw_cfg_add(machine.cfg, b"etc/x", m.new("struct fw_cfg_file *", {
        "data": data, "size": 3, "fill": callback})[0]) == 0
    assert bytes(data)[:3] == b"old"
    assert fwcfg.file(machine, "etc/x") == b"new"


def test_how_many_and_how_long(machine):
    m = machine.m
    assert add(machine, b"n" * 56, b"x") == -m.EINVAL
    assert add(machine, b"n" * 55, b"x") == 0
    for n in range(m.FW_CFG_FILES - 1):
        assert add(machine, b"f%d" % n, b"x") == 0
    assert add(machine, b"more", b"x") == -m.ENOSPC
    assert len(fwcfg.directory(machine)) == m.FW_CFG_FILES


@pytest.mark.parametrize("said, lines", [
    ("one\ntwo\n", ["one", "two"]), ("half", []), ("\n\n", []),
    ("a\tb\r\n", ["ab"]), ("x" * 250 + "\n", ["x" * 120, "x" * 120, "x" * 10]),
    ("x" * 120 + "\ny\n", ["x" * 120, "y"])])
def test_messages_are_lines_of_the_log(machine, said, lines):
    assert machine.inp(0x402) == 0xe9
    for c in said:
        machine.out(0x402, ord(c))
    assert [line for _, line in machine.m.log_lines()] == [
        f"firmware: {line}" for line in lines]
