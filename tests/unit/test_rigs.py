# SPDX-License-Identifier: MIT
"""The rigs and tools/boot, on a stand-in for Monocle (rigs/standin.asm)."""
import os
import pathlib
import pty
import select
import socket
import struct
import subprocess
import sys
import time
import zlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools" / "demo")]
import initrd  # noqa: E402
import repack  # noqa: E402
import rigs  # noqa: E402
from rigs import (choose, iso, machine, nested, qemu, qmp,  # noqa: E402
                  result, spec, terminal)

STANDIN = pathlib.Path(__file__).with_name("rigs") / "standin.asm"
BOTH = pytest.mark.parametrize("rig", ["tcg", "bochs"])


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """Return a function that assembles a stand-in with an end line."""
    work = tmp_path_factory.mktemp("standin")

    def build(end, *defines):
        out = work / f"{zlib.crc32(repr((end, defines)).encode()):08x}"
        line = f"'monocle: end: {end}'" if end else "''"
        subprocess.run(["nasm", "-f", "bin", f"-DEND={line}",
                        *(f"-D{define}" for define in defines),
                        "-o", out, STANDIN], check=True)
        return str(out)
    return build


def tool(*args, stdin=subprocess.DEVNULL):
    """Run tools/boot; return (status, stdout, lines of stderr)."""
    done = subprocess.run([ROOT / "tools" / "boot", *args], stdin=stdin,
                          capture_output=True, text=True, timeout=120,
                          check=False)
    return done.returncode, done.stdout, done.stderr.splitlines()


# -- the contract with Monocle, end to end

@pytest.mark.parametrize("end, status, last", [
    ("0 guest power-off", 0, "boot: guest power-off"),
    ("10 guest exit 7", 10, "guest exit 7"),
    ("3 guest stopped", 3, "boot: guest stopped"),
    ("4 refused", 4, "boot: refused"),
])
def test_exit_status(standin, end, status, last):
    got = tool("--rig", "tcg", "--no-module", "--monocle",
               standin(end, "AT_ONCE"))
    assert got[0] == status and got[1] == ""
    assert got[2][-1].startswith(last)


def test_machine_that_dies_is_a_stop(standin):
    status, _, lines = tool("--rig", "tcg", "--no-module", "--monocle",
                            standin("", "AT_ONCE"))
    assert status == 3 and "ended" in lines[-1]


def test_time_out_says_where_it_stands(standin):
    status, _, lines = tool("--rig", "tcg", "--no-module", "--timeout", "3",
                            "--monocle", standin("0 end"))
    assert status == 124
    assert "time-out after 3 s" in lines[-1]
    assert "monocle: options: log=e9" in lines[-1]


@BOTH
def test_command_lines_reach_monocle(standin, tmp_path, rig):
    file = tmp_path / "with space=and more"
    file.write_text("x")
    done = rigs.boot(rig=rig, monocle=standin("0 end", "AT_ONCE"),
                     hv="a=1 'b=$x; \"y'", kernel=str(file),
                     append='c="d e" f;g', initrd=str(file))
    assert done.status == 0, done.report()
    # GRUB puts a word with a space in quotes, and \ before quotes.
    assert done.log.splitlines() == [
        'monocle: options: log=e9 a=1 "b=$x; \\"y"',
        'monocle: module: kernel "c=d e" f;g',
        "monocle: module: initrd",
        "monocle: end: 0 end"]


@BOTH
def test_a_running_machine(standin, tmp_path, rig):
    with rigs.start(rig=rig, module=False, timeout=60,
                    monocle=standin("0 bye")) as machine:
        machine.wait_for("options", 30, "log")
        machine.send("abc")
        machine.wait_for("ABC", 30)
        before = len(machine.text("log"))
        machine.key("a")
        machine.wait_for("key: 1E", 30, "log", before)
        image = machine.memory(0x200000, 12)
        assert struct.unpack("<I", image[:4])[0] == 0xE85250D6
        assert machine.memory(0x200002, 3) == image[2:5]
        picture = tmp_path / "screen.png"
        machine.screenshot(str(picture))
        machine.send("q")
        done = machine.finish()
    assert (done.status, done.text, done.serial) == (0, "bye", "ABC")
    from PIL import Image
    with Image.open(picture) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors()}
        assert image.size == (720, 400)
    assert len(colours) == 2 and max(colours) == (255, 255, 255)
    assert min(colours)[:2] == (0, 0) and min(colours)[2] > 0xA0
    assert not pathlib.Path(machine.work).exists()
    assert machine.process.poll() is not None


def test_machine_is_gone_when_the_caller_fails(standin):
    with pytest.raises(ZeroDivisionError):
        with rigs.start(rig="tcg", module=False,
                        monocle=standin("0 bye")) as machine:
            raise ZeroDivisionError
    assert machine.process.poll() is not None
    assert not pathlib.Path(machine.work).exists()


def test_waiting_for_what_does_not_come(standin):
    with rigs.start(rig="tcg", module=False,
                    monocle=standin("0 bye")) as machine:
        with pytest.raises(rigs.TimeOut, match="nothing"):
            machine.wait_for("nothing", 0.1)
        machine.wait_for("options", 30, "log")
        machine.send("q")
        with pytest.raises(rigs.RigError, match="ended before"):
            machine.wait_for("nothing", 60)


def test_uefi(standin):
    done = rigs.boot(rig="tcg", module=False, firmware="uefi",
                     monocle=standin("0 end", "AT_ONCE"))
    assert done.status == 0, done.report()


def test_two_machines_at_once(standin):
    """They find ports of their own."""
    monocle = standin("0 bye")
    with rigs.start(rig="bochs", module=False, monocle=monocle) as one:
        with rigs.start(rig="bochs", module=False, monocle=monocle) as two:
            assert one.display.socket.getpeername() != \
                two.display.socket.getpeername()
            for machine in (two, one):
                machine.wait_for("options", 60, "log")
                machine.send("q")
                assert machine.finish(60).status == 0


def test_a_monitor_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(qmp, "ANSWER_LIMIT", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(rigs.RigError, match="not answer"):
        qmp.Qmp(ours)


def test_no_guest_runs_before_it_is_read(tmp_path):
    image = tmp_path / "boot.iso"
    image.write_bytes(bytes(2048))
    with qemu.Qemu(spec.Spec(rig="tcg")) as machine:
        machine.launch(image)
        status = machine.qmp.command("query-status")
        assert status["status"] == "prelaunch"


def test_a_process_that_outlives_its_emulator(monkeypatch):
    """... and holds its streams, does not keep the rig."""
    class Leaving(machine.Machine):
        name = "leaving"

        def launch(self, image):
            self.process = machine.run_as_child(
                ["sh", "-c", "sleep 600 & exec true"], stdout=subprocess.PIPE)
            return {"console": self.process.stdout}
    monkeypatch.setattr(machine, "OFF_LIMIT", 1)
    rig = Leaving(spec.Spec(timeout=1)).start(None)
    assert rig.finish().status == result.TIME_OUT
    assert not rig.alive()


# -- the terminal

def test_terminal_escape():
    typed = terminal.Terminal(None, None)
    assert typed.filter(b"a\x01\x01b\x01c") == (b"a\x01b\x01c", False)
    assert typed.filter(b"d\x01") == (b"d", False)
    assert typed.filter(b"xe") == (b"", True)


def read_until(fd, text, limit=30):
    """Read a terminal until a text has come."""
    data, end = b"", time.monotonic() + limit
    while text not in data and time.monotonic() < end:
        if select.select([fd], [], [], 1)[0]:
            data += os.read(fd, 4096)
    return data


def test_interactive(standin):
    ours, theirs = pty.openpty()
    with subprocess.Popen(
            [ROOT / "tools" / "boot", "--interactive", "--rig", "tcg",
             "--no-module", "--monocle", standin("0 bye")],
            stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            seen = read_until(ours, b"monocle: options")
            assert b"Ctrl-A x" in seen
            os.write(ours, b"hi\x03")       # Ctrl-C goes to the guest
            assert b"HI" in read_until(ours, b"HI")
            os.write(ours, b"\x01x")
            assert process.wait(30) == 0
        finally:
            process.kill()
    os.close(ours)


# -- the pieces

@pytest.mark.parametrize("word, quoted", [
    ("console=ttyS0,115200", "console=ttyS0,115200"), ("a b", "'a b'"),
    ("$x", "'$x'"), ("it's", "'it'\\''s'"), ("a;b", "'a;b'"), ("", "''")])
def test_grub_quoting(word, quoted):
    assert iso.quote(word) == quoted


def test_open_quote_is_refused():
    with pytest.raises(rigs.RigError, match="command line"):
        iso.words('a "b')


def test_kernels_are_told_apart(tmp_path):
    linux = bytearray(0x300)
    linux[0x202:0x206] = b"HdrS"
    multiboot = bytes(64) + struct.pack("<3I", 0x1BADB002, 3,
                                        2**32 - 0x1BADB002 - 3)
    other = bytes(64) + struct.pack("<3I", 0x1BADB002, 3, 1)
    assert iso.is_linux(linux) and not iso.is_multiboot(linux)
    assert iso.is_multiboot(multiboot) and not iso.is_linux(multiboot)
    assert not iso.is_multiboot(other)
    file = tmp_path / "other"
    file.write_bytes(other)
    with pytest.raises(rigs.RigError, match="neither"):
        iso.native_commands(file, None, "")


def test_a_guest_cannot_feign_the_end():
    rig = machine.Machine(rigs.Spec(rig="tcg"))
    rig._feed("serial", b"monocle: end: 0 all is well\n")
    assert rig.ended is None
    rig._feed("log", b"monocle: end: 3 guest")
    assert rig.ended is None
    rig._feed("log", b" stopped\n")
    assert rig.ended == (3, "guest stopped")
    rig.close()


@pytest.mark.parametrize("log, end", [
    ("monocle: end: 0 guest power-off\n", (0, "guest power-off")),
    ("x\nmonocle: end: 10 guest exit 7\n", (10, "guest exit 7")),
    ("monocle: end: 3", None), ("not monocle: end: 3 x\n", None)])
def test_end_line(log, end):
    assert result.end_of(log) == end


@pytest.mark.parametrize("flags, kvm, nested, why", [
    ("flags: fpu vmx", True, "Y", None), ("flags: fpu vmx", True, "1", None),
    ("flags: fpu svm", True, "Y", "no vmx"),
    ("flags: fpu vmx", False, "Y", "kvm"),
    ("flags: fpu vmx", True, "N", "nested=N"),
    ("flags: fpu vmx", True, None, "not loaded")])
def test_choice_of_rig(tmp_path, flags, kvm, nested, why):
    cpuinfo, device, parameter = (tmp_path / name
                                  for name in ("cpuinfo", "kvm", "nested"))
    cpuinfo.write_text(flags)
    if kvm:
        device.write_text("")
    if nested:
        parameter.write_text(nested + "\n")
    got = choose.why_not_kvm(cpuinfo, device, parameter)
    assert got is None if why is None else why in got


def test_qemu_command():
    words = qemu.command("kvm", spec.Spec(rig="kvm", cpus=3, devices=("nvme,drive=d",),
                                          drives=("file=x,id=d,if=none",)),
                         "a.iso", "stdio", "file,path=log")
    line = " ".join(words)
    for part in ("-accel kvm -cpu host", "q35,kernel-irqchip=split", "-smp 3",
                 "caching-mode=on", "eim=on", "-device nvme,drive=d",
                 "-drive file=x,id=d,if=none", "-cdrom a.iso"):
        assert part in line
    # Without VMX no part of KVM's is asked for.
    assert "kvm" not in " ".join(qemu.command(
        "tcg", spec.Spec(rig="tcg"), "a.iso", "stdio", "null"))


@pytest.mark.parametrize("args, words", [
    (["--rig", "bochs", "--firmware", "uefi"], "no UEFI"),
    (["--rig", "bochs", "--device", "edu"], "no QEMU devices"),
    (["--rig", "tcg", "--kernel", "/no/such"], "/no/such"),
    (["--rig", "tcg", "--device", "nonsense"], "nonsense")])
def test_bad_use_is_one_clear_end(standin, args, words):
    status, _, lines = tool("--monocle", standin("0 end"),
                            *args, *(["--no-module"]
                                     if "--kernel" not in args else []))
    assert status == result.USAGE
    assert words in "\n".join(lines)


QEMU_WORDS = "qemu-system-x86_64: -device nonsense: not a valid device"


@pytest.mark.parametrize("code, log, console, status, words", [
    ("1", "", QEMU_WORDS, result.USAGE, "nonsense"),
    ("127", "", "sh: qemu-system-x86_64: not found", result.USAGE, "found"),
    ("1", "monocle: starts\n", QEMU_WORDS, result.STOPPED, "status 1"),
    ("134", "", "Assertion failed", result.STOPPED, "status 134"),
    ("0", "", "", result.STOPPED, "status 0"),
    ("1", "", "", result.POWER_OFF, "guest exit 0"),
    ("15", "", "", result.GUEST_EXIT, "guest exit 7"),
    ("1", "monocle: end: 4 refused\n", "", result.REFUSED, "refused"),
    ("", "", "", result.TIME_OUT, "not run")])
def test_status_of_a_nested_case(code, log, console, status, words):
    """As the other rigs: a QEMU that does not start is not Monocle's doing."""
    got = nested.status_of(spec.Spec(rig="nested"), code, log, "", console)
    assert got[0] == status and words in got[1]


# -- the images

def test_release_image_is_reproducible(tmp_path):
    (tmp_path / "file").write_text("x" * 5000)
    images = []
    for name in ("one", "two"):
        subprocess.run([ROOT / "tools" / "mkiso", tmp_path / name,
                        f"boot/file={tmp_path / 'file'}"], check=True)
        images.append((tmp_path / name).read_bytes())
        # Past the two seconds of a FAT time stamp.
        end = time.time() // 2 * 2 + 2
        while time.time() < end:
            time.sleep(end - time.time())
    assert images[0] == images[1]


def unlz4(data):
    """Decode a block of LZ4, from the format's description."""
    out, at = bytearray(), 0

    def length(value):
        nonlocal at
        while value >= 15 and data[at] == 255:
            value, at = value + 255, at + 1
        if value >= 15:
            value, at = value + data[at], at + 1
        return value
    while at < len(data):
        token, at = data[at], at + 1
        count = length(token >> 4)
        out += data[at:at + count]
        at += count
        if at == len(data):
            break
        back, at = data[at] | data[at + 1] << 8, at + 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-back])
    return bytes(out)


def fake_bzimage(flat, bss):
    """A bzImage with an uncompressed ELF of one segment as its payload."""
    elf = bytearray(0x1000)
    elf[:5] = b"\x7fELF\x02"
    struct.pack_into("<QQ", elf, 24, 0x1000000, 64)
    struct.pack_into("<HH", elf, 54, 56, 1)
    struct.pack_into("<IIQQQQQQ", elf, 64, 1, 7, 0x1000, 0, 0x1000000,
                     len(flat), len(flat) + bss, 0x200000)
    elf += flat
    setup = bytearray(1024)
    repack.put(setup, repack.SETUP_SECTS, 1)
    repack.put(setup, repack.HEADER, b"HdrS")
    repack.put(setup, repack.VERSION, 0x20F)
    repack.put(setup, repack.PAYLOAD_LENGTH, len(elf))
    return bytes(setup + elf)


def test_repacked_kernel_is_the_same():
    flat = bytes(i * i >> 3 & 0xFF for i in range(60000)) + b"abc" * 9999
    image = repack.repack(fake_bzimage(flat, 100000))
    assert repack.get(image, repack.HEADER) == b"HdrS"
    assert repack.get(image, repack.PREF_ADDRESS) == 0x1000000 - (2 << 20)
    body = image[1024:]
    assert repack.get(image, repack.SYSSIZE) * 16 == len(body)
    assert len(body) < len(flat)
    at, out = 4096, b""
    while size := struct.unpack_from("<I", body, at)[0]:
        out += unlz4(body[at + 4:at + 4 + size])
        at += 4 + size
    assert out.rstrip(b"\0") == flat and len(out) % 4096 == 0
    room = repack.get(image, repack.INIT_SIZE)
    assert room >= (2 << 20) + len(flat) + 100000


@pytest.mark.parametrize("damage, words", [
    (lambda image: image[:0x200], "no HdrS"),
    (lambda image: image[:0x206] + b"\x00\x02" + image[0x208:], "older"),
    (lambda image: image[:1024] + b"nope" + image[1028:], "unknown format")])
def test_no_bzimage(damage, words):
    with pytest.raises(repack.RepackError, match=words):
        repack.repack(damage(fake_bzimage(b"x" * 5000, 0)))


def test_initrd_as_cpio_reads_it(tmp_path):
    """bsdtar and GNU cpio are not everywhere: Linux's rules, read anew."""
    members = [("b", 0o100755, b"data" * 3, (0, 0)), ("a", 0o40755, b"",
               (0, 0)), ("c", 0o20600, b"", (5, 1))]
    blob, at, seen = initrd.archive(members), 0, {}
    while True:
        assert blob[at:at + 6] == b"070701"
        field = [int(blob[at + 6 + 8 * i:at + 14 + 8 * i], 16)
                 for i in range(13)]
        name = blob[at + 110:at + 110 + field[11] - 1].decode()
        at = (at + 110 + field[11] + 3) & ~3
        if name == "TRAILER!!!":
            break
        seen[name] = (field[1], blob[at:at + field[6]], field[9:11])
        at = (at + field[6] + 3) & ~3
    assert list(seen) == ["a", "b", "c"]
    assert seen["b"] == (0o100755, b"data" * 3, [0, 0])
    assert seen["c"] == (0o20600, b"", [5, 1])
