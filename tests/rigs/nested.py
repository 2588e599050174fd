# SPDX-License-Identifier: MIT
"""The nested rig: Bochs runs Linux with KVM, which runs QEMU's q35.

The whole system without the hardware: VMX by KVM, VT-d by QEMU. One Linux
serves many cases, each with the QEMU command line of the kvm rig:

    one, two = nested.run([Spec(hv="assign=00:05.0"), Spec(native=True)])
    assert one.status == 0, one.report()

Cases and results travel as tar archives on two disks (tools/nested/init).
"""
import dataclasses
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import tarfile
import tempfile
import time

from . import iso, qemu, result
from .result import Result, RigError
from .run import boot as boot_machine
from .run import options
from .spec import BUILD, DEMO_APPEND, DEMO_KERNEL, STANDIN, Spec

INITRD = BUILD / "nested" / "initrd.img"
MEMORY = 2048           # of the machine in Bochs: Linux, a guest, the cases
APPEND = f"{DEMO_APPEND} loglevel=3 nowatchdog"
CYLINDER = 16 * 63 * 512
STREAMS_SIZE = 32 << 20     # for all that is no file of known size
# An emulated second is 100 million instructions, which takes a busy host
# some seconds; and there is Linux, too.
SLOWNESS = 8
LINUX_LIMIT = 600
DISKS = """\
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=disk, mode=flat, path={}
ata1-slave: type=disk, mode=flat, path={}
"""
PICTURE = "screen.png"
# Of VGA's text mode: 80 x 25 characters, an attribute behind each
TEXT_MEMORY = "pmemsave", {"val": 0xb8000, "size": 4000, "filename": "vga"}
IOMMU = (0xfed90000, 4096)  # q35's unit: its registers
# To the 8042: 1Ch is the next byte of its output buffer (command D2h).
GO_ON = tuple(("human-monitor-command", {"command-line": f"o /b {words}"})
              for words in ("0x64 0xd2", "0x60 0x1c"))
FILE_OPTION = re.compile(r"(?<![^,])file=([^,]+)")


@dataclasses.dataclass
class Case:
    """A Spec, and what is wanted of it besides its streams.

    Spec.timeout counts emulated seconds here. `dump_at` is a text: once it
    has come on the serial line or in the log, and while the machine stands
    still, its memory is dumped. A guest that waits there for a byte of the
    keyboard's controller goes on by `tell=GO_ON`.
    """
    spec: Spec
    dump_at: str = None
    dump: tuple = None          # (base, bytes); None: RAM and the IOMMU
    tell: tuple = ()            # QMP behind it: (command, {arguments}) pairs
    before: tuple = ()          # and before it: (text, QMP) pairs, in order
    look: bool = False          # texts may come on VGA's text screen, too
    picture: bool = False       # in its place the screen; the machine ends
    drives_back: bool = False   # the files behind Spec.drives as they ended
    files: dict = dataclasses.field(default_factory=dict)
    #                             beside QEMU, which runs there: {name: path}
    back: dict = dataclasses.field(default_factory=dict)
    #                             and what it leaves there: {name: size}
    words: tuple = ()           # a command line in place of the rig's QEMU

    def ranges(self):
        """What is dumped: {name: (base, bytes)}."""
        if not self.dump_at or self.picture:
            return {}
        ranges = self.dump
        if ranges is None:
            ranges = (0, self.spec.memory << 20), IOMMU
        return {f"memory-{base:x}": (base, size) for base, size in ranges}

    def sizes(self):
        """Bytes of the files that come back: {name: size}."""
        sizes = {name: size for name, (_, size) in self.ranges().items()}
        sizes.update(self.back)
        if self.picture:
            sizes[PICTURE] = 1 << 20
        if self.drives_back:
            sizes.update((name, os.stat(path).st_size)
                         for name, path in drive_files(self.spec).items())
        return sizes


@dataclasses.dataclass
class NestedResult(Result):
    """A Result with the files that were asked for: {name: path}.

    "drive0" is the file of the first drive that has one.
    """
    files: dict = dataclasses.field(default_factory=dict)
    ranges: dict = dataclasses.field(default_factory=dict)
    monitor: str = ""           # QMP's answers, a line each

    def memory(self, address, size):
        """Bytes of physical memory, where it was dumped."""
        for name, (base, length) in self.ranges.items():
            if base <= address and address + size <= base + length:
                with open(self.files[name], "rb") as file:
                    file.seek(address - base)
                    return file.read(size)
        raise RigError(f"{address:#x} was not dumped")


# -- what goes in

def drive_files(spec):
    """The host's files behind the drives: {name in the case: path}."""
    paths = [path for drive in spec.drives
             for path in FILE_OPTION.findall(drive)]
    return {f"drive{n}": path for n, path in enumerate(paths)}


def command(case):
    """The words that the Linux runs: the kvm rig's, with local files."""
    if case.words:
        return case.words
    spec = case.spec
    local = {path: name for name, path in drive_files(spec).items()}
    drives = tuple(FILE_OPTION.sub(lambda m: f"file={local[m[1]]}", drive)
                   for drive in spec.drives)
    words = qemu.command(
        "kvm", dataclasses.replace(spec, drives=drives), "boot.iso",
        "file,path=serial", "file,path=log",
        monitor="pipe,path=monitor" if case.dump_at else None,
        firmware_vars="firmware-vars")
    return [word.replace(str(qemu.OVMF_CODE), "firmware-code")
            for word in words]


def lines(commands):
    """What QEMU's monitor is told, a line each."""
    return [json.dumps({"execute": name, "arguments": arguments})
            for name, arguments in [("qmp_capabilities", {}), *commands]]


def dump_commands(case):
    """What it is told once Case.dump_at has come."""
    if case.picture:
        return [("screendump", {"filename": PICTURE, "format": "png"}),
                ("quit", {})]
    return [("stop", {}), *(
        ("pmemsave", {"val": base, "size": size, "filename": name})
        for name, (base, size) in case.ranges().items()), ("cont", {}),
            *case.tell]


def add_bytes(archive, name, data):
    """One small file."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def pack(archive, name, case, work):
    """One case's directory in the archive."""
    spec = case.spec
    files = {**case.files, **drive_files(spec)}
    if not case.words:
        files["boot.iso"] = spec.iso or iso.build(spec, options(spec), work)
    if spec.firmware == "uefi":
        files["firmware-code"] = qemu.OVMF_CODE
        files["firmware-vars"] = qemu.OVMF_VARS
    if spec.igd:
        files["standin"] = STANDIN
        for file, data in spec.igd.files().items():
            add_bytes(archive, f"{name}/{file}", data)
    for file, path in files.items():
        archive.add(os.path.realpath(path), f"{name}/{file}")
    add_bytes(archive, f"{name}/command",
              f"exec {shlex.join(command(case))}\n".encode())
    add_bytes(archive, f"{name}/limit", b"%d\n" % spec.timeout)
    keep = [*case.sizes(), *([qemu.IGD_LOG] if spec.igd else [])]
    add_bytes(archive, f"{name}/keep", " ".join(keep).encode())
    steps = [*case.before, (case.dump_at, dump_commands(case))]
    for n, (text, commands) in enumerate(steps if case.dump_at else ()):
        add_bytes(archive, f"{name}/dump{n or ''}",
                  "\n".join([text, *lines(commands), ""]).encode())
    if case.look:
        add_bytes(archive, f"{name}/look",
                  "\n".join([*lines([TEXT_MEMORY]), ""]).encode())


def fit(file, size):
    """Make a file the size of a disk."""
    file.truncate(-(-size // CYLINDER) * CYLINDER)


def write_disks(cases_disk, results_disk, cases):
    """The cases, and room for the results."""
    with open(results_disk, "wb") as file:
        fit(file, STREAMS_SIZE + sum(sum(case.sizes().values())
                                     for case in cases.values()))
    with open(cases_disk, "wb") as file:
        with tarfile.open(fileobj=file, mode="w",
                          format=tarfile.USTAR_FORMAT) as archive:
            for name, case in cases.items():
                with tempfile.TemporaryDirectory() as work:
                    pack(archive, name, case, work)
        fit(file, file.tell())


# -- what comes out

class Output:
    """The results on the disk: a directory "results/NAME" for each case."""

    def __init__(self, path):
        # Between two archives there are zeros, and behind the last.
        self.archive = tarfile.open(path, mode="r:", ignore_zeros=True)
        self.members = {}
        for member in self.archive:
            parts = member.name.split("/")
            if parts[0] == "results" and len(parts) == 3:
                self.members.setdefault(parts[1], {})[parts[2]] = member

    def text(self, case, name):
        """A stream, or what stands for one that is not there: nothing."""
        member = self.members.get(case, {}).get(name)
        data = self.archive.extractfile(member).read() if member else b""
        return data.decode(errors="replace").replace("\r\n", "\n")

    def copy(self, case, name, path):
        """Whether the file was there."""
        member = self.members.get(case, {}).get(name)
        if member:
            with open(path, "wb") as file:
                shutil.copyfileobj(self.archive.extractfile(member), file)
        return bool(member)


def status_of(spec, code, log, serial, console):
    """(status, text) of a case, as the kvm rig would say."""
    end = result.end_of(log) or result.end_of(serial)
    if end:
        return end
    if not code.isdigit():
        return (result.TIME_OUT, f"{code or 'not run'}; last line of the "
                f"log: {result.last_line(log)}; of the serial line: "
                f"{result.last_line(serial)}")
    code = int(code)
    if code & 1 and code < 128 and not qemu.complaints(console):
        return ((result.POWER_OFF, "guest exit 0") if code == 1 else
                (result.GUEST_EXIT, f"guest exit {code >> 1}"))
    if code == 0 and spec.native:
        return result.POWER_OFF, "power-off"
    if 0 < code < 128 and not log and not serial:
        # No signal's, and no machine has run.
        return (result.USAGE,
                f"QEMU does not start: {qemu.complaints(console)}")
    return result.STOPPED, f"QEMU ended with status {code}"


def result_of(name, case, output, seconds, keep):
    """The Result of one case."""
    serial, log, console = (output.text(name, stream)
                            for stream in ("serial", "log", "console"))
    files = {}
    for file in case.sizes() if keep else ():
        path = pathlib.Path(keep, f"{name}-{file}")
        if output.copy(name, file, path):
            files[file] = path
    status = status_of(case.spec, output.text(name, "status").strip(), log,
                       serial, console)
    return NestedResult(*status, serial, log, console, seconds, files=files,
                        device=output.text(name, qemu.IGD_LOG),
                        monitor=output.text(name, "monitor"),
                        ranges=case.ranges())


class Progress:
    """The Linux's own words, a line at a time, and how long cases took."""

    def __init__(self, say):
        self.say = say
        self.last = time.monotonic()
        self.seconds = {}
        self.rest = ""

    def __call__(self, data):
        *lines, self.rest = (self.rest + data.decode(errors="replace")
                             ).replace("\r", "").split("\n")
        for line in lines:
            now = time.monotonic()
            words = line.split()
            if words[:1] == ["nested:"]:
                self.seconds[words[1].rstrip(":")] = now - self.last
                self.last = now
            self.say(line)


# -- the rig

def check(cases):
    """Refuse what this rig cannot do."""
    for case in cases:
        if case.spec.firmware == "uefi" and not qemu.OVMF_CODE.exists():
            raise RigError("OVMF is not installed: tools/install")
    for file in (INITRD, DEMO_KERNEL):
        if not os.access(file, os.R_OK):
            raise RigError(f"{file}: cannot be read; has `make` been run?")


def limit(timeouts):
    """Seconds after which a Linux with such cases is ended."""
    return LINUX_LIMIT + SLOWNESS * sum(timeouts)


def linux(cases, disks, more="", **fields):
    """The Linux, which runs these cases and ends; more: words for it."""
    return Spec(rig="bochs", native=True, kernel=str(DEMO_KERNEL),
                initrd=str(INITRD), memory=MEMORY,
                append=f"{APPEND} {more}".strip(),
                timeout=limit(case.spec.timeout for case in cases),
                bochsrc=DISKS.format(*disks).splitlines(), **fields)


def run(cases, say=None, keep=None, show=False):
    """Run cases (or Specs) in one Linux; return a NestedResult for each.

    Files that come back go to the directory `keep`. A case that did not
    run, for an earlier one took all the time, is a time-out. `show` has
    `say` told the guest's lines as they come, which takes time.
    """
    say = say or (lambda line: None)
    cases = [case if isinstance(case, Case) else Case(case)
             for case in cases]
    check(cases)
    named = {f"{number:02}": case for number, case in enumerate(cases)}
    with tempfile.TemporaryDirectory(prefix="monocle-") as work:
        disks = [pathlib.Path(work, name) for name in ("cases", "results")]
        write_disks(*disks, named)
        progress = Progress(say)
        done = boot_machine(linux(cases, disks, "nested.show" * show),
                            {"serial": progress}, say)
        output = Output(disks[1])
        if not output.members:
            raise RigError(f"nested: no case was run\n{done.report()}")
        return [result_of(name, case, output,
                          progress.seconds.get(name, 0.0), keep)
                for name, case in named.items()]


def boot(spec=None, hooks=None, say=None, **fields):
    """Boot one Spec to its end; return its NestedResult.

    `hooks` are given their streams at the end, as a whole.
    """
    done = run([spec or Spec(rig="nested", **fields)], say)[0]
    for stream in ("serial", "log"):
        hook = (hooks or {}).get(stream)
        if hook:
            hook(getattr(done, stream).encode())
    return done
