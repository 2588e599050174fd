# SPDX-License-Identifier: MIT
"""tools/igd-report on machines that are made here: what it says of OpRegion,
VBT and registers, and what it finds to differ."""
import importlib.machinery
import importlib.util
import pathlib
import struct
import subprocess
import sys

import pytest

from igd import config, opregion

PATH = pathlib.Path(__file__).resolve().parents[2] / "tools" / "igd-report"
_LOADER = importlib.machinery.SourceFileLoader("igd_report", str(PATH))
TOOL = importlib.util.module_from_spec(
    importlib.util.spec_from_loader("igd_report", _LOADER))
_LOADER.exec_module(TOOL)
DEVICE = "sys/bus/pci/devices/0000:00:02.0"
ASLS = 0x1000
LFP, EDP = 0x5062, 0x78c6


def dtd(clock, width, hblank, height, vblank):
    """E-EDID 3.10.2, as a monitor's."""
    return struct.pack("<H6B", clock, width & 255, hblank & 255,
                       width >> 8 << 4 | hblank >> 8, height & 255,
                       vblank & 255, height >> 8 << 4 | vblank >> 8) + bytes(10)


def panel(number=2, clock=13850, pwm=200):
    """Blocks 40, 41, 42, 43; 42's offsets are from the BDB's start, 116 bytes
    before: its header, block 1, block 2 with two outputs."""
    blocks = opregion.block(40, bytes([number]) + bytes(30))
    at = 22 + 8 + 8 + 2 * 39 + len(blocks) + 3 + 1 + 9 * 16 + 3
    one = struct.calcsize("<46x18x10x")
    pointers = b"".join(struct.pack("<HBHBHB", at + one * n, 46,
                                    at + one * n + 46, 18,
                                    at + one * n + 64, 10) for n in range(16))
    data = b"".join(bytes(46) + dtd(clock + n, 1920, 160, 1080, 31) + bytes(10)
                    for n in range(16))
    light = b"".join(struct.pack("<BHBxx", 2 | 4, pwm + n, 10)
                     for n in range(16))
    return blocks + opregion.block(41, bytes([3]) + pointers) + \
        opregion.block(42, data) + opregion.block(
            43, bytes([6]) + light + bytes(16) + bytes([0x12] * 16))


def vbt(more=b""):
    """The tests' own, with further blocks behind."""
    child = bytearray(opregion.child_device(8, EDP, 10, 0))
    child[23], child[25], child[33] = 2, 0x40, 1
    table = bytearray(opregion.vbt(children=(opregion.child_device(),
                                             bytes(child))))
    at, = struct.unpack_from("<I", table, 28)
    size, = struct.unpack_from("<H", table, at + 20)
    struct.pack_into("<H", table, at + 20, size + len(more))
    struct.pack_into("<H", table, 24, len(table) + len(more))
    return bytes(table + more)


class Machine:
    """The files of a live Linux."""

    def __init__(self, root, device=0x1912, region=None):
        self.root = root
        space = bytearray(256)
        struct.pack_into("<HHH", space, 0, 0x8086, device, 7)
        space[0x0b] = 3
        struct.pack_into("<I", space, 0xfc, ASLS)
        self.put(f"{DEVICE}/config", space)
        self.regs = bytearray(2 << 20)
        self.put(f"{DEVICE}/resource0", self.regs)
        if region is not None:
            self.put("dev/mem", bytes(ASLS) + region)

    def put(self, path, data):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def register(self, at, value):
        struct.pack_into("<I", self.regs, at, value)
        self.put(f"{DEVICE}/resource0", self.regs)

    def report(self, gen=None):
        return "\n".join(TOOL.report(TOOL.Machine(self.root), gen)) + "\n"

    def values(self, gen=None):
        lines = [line.partition(" = ") for line in
                 self.report(gen).splitlines()]
        assert len({name for name, _, _ in lines}) == len(lines)
        return {name: value for name, _, value in lines}


def tool(*words):
    return subprocess.run([sys.executable, PATH, *words], text=True,
                          capture_output=True, check=False)


def test_a_panel_and_its_ports(tmp_path):
    table = vbt(panel())
    found = Machine(tmp_path, region=opregion.build(table=table)).values()
    assert found["opregion.version"] == "2.0"
    assert found["vbt.name"] == "MONOCLE TEST"
    assert found["vbt.bdb_version"] == "228"
    assert found["vbt.blocks"] == "1 2 40 41 42 43"
    assert found["vbt.port.0"].startswith("HDMI-B handle 0x4 type 0x60d2 (TMDS")
    assert found["vbt.port.1"] == (
        "DP-A handle 0x8 type 0x78c6 (internal, DisplayPort, USB-C, "
        "lane-reversed) ddc pin 0x0 aux A")
    assert found["vbt.panel.type"] == "0x2"
    # 138.52 MHz / (2080 * 1111)
    assert found["vbt.panel.2.timing"] == \
        "1920x1080 138.52 MHz 59.94 Hz blank 160x31"
    assert found["vbt.panel.2.backlight"] == "PWM, active low, 202 Hz, at " \
        "least 10"
    assert found["vbt.panel.2.backlight_by"] == "type 2, controller 1"
    assert bytes.fromhex(found["vbt.hex"]) == table
    assert "vbt.panel.1.timing" not in found


def test_a_panel_that_is_known_by_its_edid(tmp_path):
    found = Machine(tmp_path, region=opregion.build(
        table=vbt(panel(0xff)))).values()
    assert found["vbt.panel.type"] == "by EDID (0xff)"
    assert all(f"vbt.panel.{n}.timing" in found for n in range(16))


@pytest.mark.parametrize("version", [(2, 0), (2, 1)])
def test_a_vbt_outside(tmp_path, version):
    """An address, or from 2.1 on an offset."""
    table = opregion.vbt(padding=7000)
    at = opregion.SIZE + (ASLS if version == (2, 0) else 0)
    region = opregion.build(version, rvda=at, rvds=len(table), tail=table)
    found = Machine(tmp_path, region=region).values()
    assert bytes.fromhex(found["vbt.hex"]) == table
    assert found["opregion.rvds"] == hex(len(table))


def test_the_drivers_files_come_first(tmp_path):
    machine = Machine(tmp_path, region=opregion.build())
    machine.put("sys/kernel/debug/dri/0/i915_opregion", b"")
    machine.put("sys/kernel/debug/dri/1/i915_opregion",
                opregion.build((2, 1)))
    machine.put("sys/kernel/debug/dri/1/i915_vbt", vbt(panel()))
    found = machine.values()
    assert found["opregion.version"] == "2.1"
    assert found["vbt.panel.type"] == "0x2"


@pytest.mark.parametrize("device, gen, there, absent", [
    (0x0046, "5", "reg.064000.DP_A", "reg.064000.DDI_BUF_CTL_A"),
    (0x0116, "6", "reg.0c8254.PCH_BLC_PWM_CTL2", "reg.072008.PIPECONF_C"),
    (0x0166, "7", "reg.072008.PIPECONF_C", "reg.045400.PWR_WELL_CTL1"),
    (0x0a16, "7.5", "reg.07f008.PIPECONF_EDP", "reg.070180.PLANE_CTL_A"),
    (0x1616, "8", "reg.070180.DSPCNTR_A", "reg.046000.CDCLK_CTL"),
    (0x1912, "9", "reg.070180.PLANE_CTL_A", "reg.0c8258.BLC_PWM_DUTY"),
    (0x3e9b, "9.5", "reg.0c8258.BLC_PWM_DUTY", "reg.045444.PWR_WELL_CTL_AUX2"),
    (0x8a52, "11", "reg.045444.PWR_WELL_CTL_AUX2", "reg.073008.PIPECONF_D"),
    (0x9a49, "12", "reg.073008.PIPECONF_D", "reg.07f008.PIPECONF_EDP"),
    (0xb0a0, "12", "reg.0c7204.PP_CONTROL", "reg.0c8254.PCH_BLC_PWM_CTL2")])
def test_registers_of_a_generation(tmp_path, device, gen, there, absent):
    machine = Machine(tmp_path, device)
    machine.register(int(there.split(".")[1], 16), 0xdeadbeef)
    found = machine.values()
    assert found["generation"] == gen
    assert found[there] == "0xdeadbeef" and absent not in found
    names = [name for name in found if name.startswith("reg.")]
    assert len(names) > 45
    assert machine.values(5.0)["generation"] == "5.0"


def test_what_cannot_be_read_has_a_line(tmp_path):
    """The rest is there."""
    machine = Machine(tmp_path, 0x1912)
    (tmp_path / DEVICE / "resource0").unlink()
    found = machine.values()
    assert "iomem=relaxed" in found["reg"] and "not read" in found["opregion"]
    assert found["pci.id"].startswith("8086:1912") and "ASLS" in str(found)
    machine = Machine(tmp_path, region=opregion.build(signature=b"?" * 16))
    assert machine.values()["opregion"] == "none (no signature)"


def test_no_intel_graphics(tmp_path):
    machine = Machine(tmp_path)
    assert tool("--root", tmp_path).stdout == machine.report()
    machine.put(f"{DEVICE}/config", struct.pack("<HH", 0x1234, 0x1111) +
                bytes(252))
    done = tool("--root", tmp_path)
    assert done.returncode and "no Intel graphics (1234:1111)" in done.stderr
    assert tool("--root", tmp_path / "nowhere").returncode


def test_what_differs_is_named(tmp_path):
    files = []
    for name, table, duty in (("a", vbt(panel()), 0x1f4),
                              ("b", vbt(panel(pwm=300)), 0)):
        machine = Machine(tmp_path / name, 0x9a49, opregion.build(table=table))
        machine.register(0xc8258, duty)
        files.append(tmp_path / f"{name}.txt")
        files[-1].write_text(machine.report())
    done = tool("--compare", *files)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "reg.0c8258.BLC_PWM_DUTY: 0x000001f4 -> 0x00000000" in lines
    assert "vbt.panel.2.backlight: PWM, active low, 202 Hz, at least 10 -> " \
        "PWM, active low, 302 Hz, at least 10" in lines
    assert any(line.startswith("vbt.hex: from byte 0x") for line in lines)
    assert len(lines) == 4      # and the sum over the VBT
    same = tool("--compare", files[0], files[0])
    assert (same.returncode, same.stdout) == (0, "no difference\n")
    (tmp_path / "none").write_text("hello\n")
    assert "not a report" in tool("--compare", files[0],
                                  tmp_path / "none").stderr


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_table_that_is_damaged_or_cut(tmp_path, at):
    """Firmware writes what it likes: a line, and no traceback."""
    table = bytearray(vbt(panel()))
    table[at] ^= 0xff
    for data in (bytes(table), bytes(table[:at])):
        assert list(TOOL.vbt_lines(data))
    region = opregion.build(table=bytes(table))
    assert list(TOOL.opregion_lines(region[:at]))


GM45 = "gen4-gm45"         # before what Monocle and this know


@pytest.mark.parametrize("name", [n for n in config.NAMES if n != GM45])
def test_the_tests_own_machines(tmp_path, name):
    """Each is of the generation that its file expects."""
    paper = config.load(name)
    machine = Machine(tmp_path)
    machine.put(f"{DEVICE}/config", paper.igd.bytes[:256])
    assert int(float(machine.values()["generation"])) == paper.gen
