# SPDX-License-Identifier: MIT
"""What runs nested: the cases that the selected tests name, in one Linux.

A test names those that it looks at, `@pytest.mark.nested("edu")`, and gets
each by the fixture `nested("edu")`.
"""
import functools
import os
import random
import re
import subprocess
import threading

import rigs
from bench import bench
from boot import dmar_tables as tables, realmode, runs
from rigs import disk as disk_image, nested, qemu
from rigs.nested import Case
from rigs.spec import BUILD, DEMO_KERNEL, Spec

INITRD = BUILD / "guest" / "initrd-drivers.img"
MKE2FS = "/sbin/mke2fs"
# Ticks of 10 ns, in which the machine must have been looked at.
HOLD = 2_000_000_000
X2APIC = "wrmsr 0x1b 0xfee00d00"    # IA32_APIC_BASE: EN, EXTD, BSP
PAYLOAD, SENT_BACK = 10 << 20, 1000000     # bytes by the network
RESETS = {"linux": 3, "tiny": 20}
READS = 1000
NVME, NET, AHCI, USB = "00:06.0", "00:07.0", "00:08.0", "00:09.0"
BEHIND = "01:00.0"
ROOT_AHCI, ROOT_NVME = "65:00.0", "66:00.0"     # behind a second root bus
XHCI, EHCI, SOUND = "00:14.0", "00:1d.0", "00:06.1"
DISKS = {NVME: "nvme", AHCI: "ahci,sd_mod", USB: "xhci_pci,usb_storage,sd_mod"}
# Lines of level 5 and below, without what differs between two boots.
CONSOLE = ("console=tty0 loglevel=6 printk.time=0 tsc=reliable "
           "vt.global_cursor_default=0")
MODE = "1024x768x32"

_cases = {}
_future = None
_lock = threading.Lock()


# -- devices

def payload(name):
    """A file of noise, the same each time."""
    path = runs.work(f"payload-{name}")
    with _lock:
        if not path.exists():
            path.write_bytes(random.Random(name).randbytes(
                PAYLOAD if name == "net" else 2_000_000))
    return path


def disk(name, what):
    """An image with an ext4 on it, and a file "payload" there."""
    image, root = (runs.work(f"{part}-{name}-{what}")
                   for part in ("disk", "root"))
    root.mkdir()
    (root / "payload").write_bytes(payload(what).read_bytes())
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run([MKE2FS, "-q", "-F", "-t", "ext4", "-d", root, image],
                   check=True)
    return image


def machine(name, sent="payload", received="received"):
    """Fields of a Spec with disks of its own, and a network that sends one
    file and receives another."""
    drives = [(n, disk(name, n)) for n in ("nvme", "ahci", "usb")]
    return {
        "devices": ("nvme,addr=06.0,drive=nvme,serial=1",
                    "e1000e,addr=07.0,netdev=net,romfile=",
                    "ich9-ahci,id=sata,addr=08.0",
                    "ide-hd,bus=sata.0,drive=ahci",
                    "qemu-xhci,id=hub,addr=09.0",
                    "usb-storage,bus=hub.0,drive=usb"),
        "drives": tuple(f"id={n},if=none,format=raw,file={path}"
                        for n, path in drives),
        "qemu": ("-netdev", "user,id=net,"
                 f"guestfwd=tcp:10.0.2.100:7-cmd:cat {sent},"
                 f"guestfwd=tcp:10.0.2.100:8-cmd:dd bs=65536 of={received}"),
    }


def linux(rig, tasks, **fields):
    """Debian's kernel with its drivers, and what they are to do. QEMU shows
    no invariant TSC; Linux would take its time from the ACPI timer, by an
    exit each."""
    return Spec(rig=rig, memory=256, initrd=str(INITRD), timeout=200,
                append="tsc=reliable demo.run="
                       f"'tasks {' '.join(tasks)}'", **fields)


TASKS = [f"config={NVME},{NET},{AHCI},{USB}",
         *(f"disk={at},{modules}" for at, modules in DISKS.items()),
         "net=0", "net=2", f"both={NVME}", f"steady={NVME},{READS}",
         f"config={NVME},{NET},{AHCI},{USB}"]


# -- cases

def define(function):
    """Decorator: the function makes the case of its name."""
    _cases[function.__name__.replace("_", "-")] = function
    return function


def tiny(append, hv="assign=00:05.0", **fields):
    """A run of the tiny guest."""
    fields = {"memory": 64, "timeout": 60, **fields}
    return Spec(rig="nested", kernel=str(runs.GUEST), append=append,
                monocle=runs.MONOCLE, hv=f"debug {hv}".strip(), **fields)


def held(append, dump_at="edu: 0 failed", dump=None, make=tiny, **fields):
    """... which waits behind that text until its memory was dumped."""
    return Case(make(f"{append} hold={HOLD}", **fields), dump_at=dump_at,
                dump=dump, tell=nested.GO_ON)


@define
def native():
    return tiny("edu", hv="", native=True)


@define
def relocated():
    return held("edu")


@define
def identity():
    return held("edu", hv="assign=1234:11e8 ram=identity no-vga")


@define
def x2apic():
    return tiny("edu", grub=(X2APIC,))


@define
def gsi():
    """Its own line: q35 leads INTA of device 5 to pin 21."""
    return tiny("edu", hv="assign=00:05.0,gsi=21")


@define
def latency():
    return bench.nested_specs(runs.MONOCLE)[0]


@define
def latency_native():
    return bench.nested_specs(runs.MONOCLE)[1]


@define
def ahci():
    return tiny("ahci", hv=f"assign={AHCI}",
                devices=(f"ich9-ahci,addr={AHCI[3:]}",))


@define
def resets():
    return tiny(f"edu-resets count={RESETS['tiny']}")


@define
def many():
    fields = machine("many")
    assign = " ".join(f"assign={at}" for at in ("00:05.0", NET, *DISKS))
    return held("edu", hv=assign, **fields)


MORE_EDU = "edu,dma_mask=0xffffffffffffffff"


@define
def behind_a_port():
    """Of two root ports of one device, with ACS; the other one is empty."""
    return tiny("edu", hv="assign=02:00.0", devices=(
        "pcie-root-port,id=rp0,addr=1c.0,chassis=1,multifunction=on",
        "pcie-root-port,id=rp4,addr=1c.4,chassis=2",
        MORE_EDU + ",bus=rp4,addr=00.0"))


@define
def group():
    return tiny("edu", hv="strict-groups assign=00:06.1", devices=(
        MORE_EDU + ",addr=06.0,multifunction=on", MORE_EDU + ",addr=06.1"))


@define
def twice():
    return tiny("edu", hv="assign=00:05.0 assign=class=00ff")


@define
def absent():
    return tiny("edu", hv="assign=00:1d.0")


@define
def uart():
    return tiny("edu", hv="assign=00:06.0", devices=("pci-serial,addr=06.0",))


@define
def no_unit():
    """The DMAR table's one unit is for the first edu alone."""
    table = tables.dmar(tables.unit_at(
        tables.UNIT, tables.IOAPIC, tables.scope(tables.EDU)))
    return tables.with_table(
        "no-unit", table, make=functools.partial(
            tiny, "edu", hv="assign=00:06.0",
            devices=(MORE_EDU + ",addr=06.0",)))


@define
def bridge():
    return tiny("edu", hv="assign=00:1f.0")


def debian(name, tasks):
    """A case with all devices; what the disks hold comes back."""
    assign = " ".join(f"assign={at}" for at in (NET, *DISKS))
    return Case(linux("nested", tasks, hv=f"debug {assign}",
                      monocle=runs.MONOCLE, **machine(name)),
                drives_back=True, back={"received": SENT_BACK},
                files={"payload": payload("net")})


@define
def drivers():
    return debian("drivers", TASKS)


@define
def devices():
    """One of each kind, once: for the short suite."""
    return debian("devices", [task for task in TASKS if re.match(
        "disk=|net=2", task)])


@define
def nvme_behind_a_port():
    return Case(linux("nested", [f"flr={BEHIND}", f"disk={BEHIND},nvme"],
                      monocle=runs.MONOCLE,
                      hv=f"debug assign={BEHIND}", devices=(
                          "pcie-root-port,id=rp,addr=1c.0,chassis=1",
                          "nvme,bus=rp,addr=00.0,drive=nvme,serial=1"),
                      drives=machine("port")["drives"][:1]), drives_back=True)


@define
def root_buses():
    """Linux finds them by the guest's ACPI alone. An AHCI controller has
    ports, too, and its driver wants all BARs in windows."""
    drives = [(n, disk("root-buses", n)) for n in ("ahci", "nvme")]
    return Case(linux("nested", [f"disk={ROOT_AHCI},ahci,sd_mod",
                                 f"disk={ROOT_NVME},nvme"],
                      monocle=runs.MONOCLE, hv="debug assign=all", devices=(
                          "pxb-pcie,id=root,bus_nr=0x64,addr=08.0",
                          "pcie-root-port,id=rp1,bus=root,addr=03.0,chassis=1",
                          "pcie-root-port,id=rp2,bus=root,addr=04.0,chassis=2",
                          "ich9-ahci,id=sata,bus=rp1",
                          "ide-hd,bus=sata.0,drive=ahci",
                          "nvme,bus=rp2,drive=nvme,serial=1"),
                      drives=tuple(f"id={n},if=none,format=raw,file={path}"
                                   for n, path in drives)), drives_back=True)


@define
def linux_resets():
    return debian("resets", [f"resets={NVME},{RESETS['linux']}"])


# -- USB, and neighbours that are not given

TEXT = "the quick brown fox jumps over the lazy dog 0123456789"
SAMPLES = "".join(f"{n}\n" for n in range(1, 100001)).encode()[:384000]
KEYBOARD = f"qemu-xhci,id=hub,addr={XHCI[3:]}", "usb-kbd,bus=hub.0"
# Function 0 before SOUND, of a class that assign=all gives; another behind it.
NEIGHBOURS = ("nvme,addr=06.0,serial=1,multifunction=on",
              MORE_EDU + ",addr=06.2")


def bdf(address):
    """A requester ID."""
    bus, device, function = (int(n, 16) for n in re.split("[:.]", address))
    return bus << 8 | device << 3 | function


def space(address):
    """What to dump of a function: its configuration space, by ECAM. While
    it is read all stands still, so that a whole bus is too much."""
    return tables.ECAM + (bdf(address) << 12), 4096


# The slot of SOUND
SLOT = tuple(space(f"{SOUND[:-1]}{n}") for n in range(3))


def with_rmrr(name, at, last, make, **fields):
    """make() where firmware still wants a page for a function's DMA."""
    return tables.with_table(name, tables.dmar(
        tables.ALL, tables.rmrr(last - 0xfff, last,
                                    tables.scope(bdf(at)))),
        make=make, **fields)


def typed(text):
    """What QEMU's monitor is told: a line on the keyboard."""
    return tuple(("send-key", qemu.key(char, **{"hold-time": 30}))
                 for char in text + "\n")


@define
def parked():
    """edu between neighbours, and a USB controller with an RMRR."""
    return with_rmrr("parked", XHCI, (64 << 20) - 1, functools.partial(
        held, "edu-parked", hv=f"assign={SOUND} assign={XHCI}",
        devices=(*NEIGHBOURS, f"{MORE_EDU},addr={SOUND[3:]}", *KEYBOARD),
        dump=((0, 64 << 20), nested.IOMMU, *SLOT)))


def usb(rig, name, **fields):
    """A keyboard and a stick."""
    return linux(rig, [f"keys={XHCI},xhci_pci",
                       f"disk={XHCI},usb_storage,sd_mod"],
                 devices=(*KEYBOARD, "usb-storage,bus=hub.0,drive=usb"),
                 drives=("id=usb,if=none,format=raw,"
                         f"file={disk(name, 'usb')}",), **fields)


@define
def keys_xhci():
    return Case(with_rmrr("keys", XHCI, (256 << 20) - 1, functools.partial(
        usb, "nested", "keys", hv="debug assign=all", monocle=runs.MONOCLE)),
        dump_at="keys: ready", dump=(), tell=typed(TEXT),
        drives_back=True)


def two_names(name, *names):
    """The PC's keyboard, where DMAR has these IDs for q35's I/O APIC 0."""
    ways = [tables.scope(0xff00, kind=3, ident=n) for n in names]
    return Case(tables.with_table(
        name, tables.dmar(tables.unit_at(tables.UNIT, *ways, everything=True)),
        make=functools.partial(linux, "nested", ["ps2"], hv="debug",
                               monocle=runs.MONOCLE)),
        dump_at="keys: ready", dump=(), tell=typed(TEXT))


@define
def ioapic_renamed():
    return two_names("ioapic-renamed", 5)


@define
def ioapic_unnamed():
    return two_names("ioapic-unnamed", 5, 6)


def ehci(rig, **fields):
    """It has neither MSI nor MSI-X."""
    return linux(rig, [f"keys={EHCI},ehci_pci"], devices=(
        f"usb-ehci,id=hub,addr={EHCI[3:]}", "usb-kbd,bus=hub.0"), **fields)


@define
def keys_ehci():
    return Case(ehci("nested", hv=f"debug assign={EHCI}",
                     monocle=runs.MONOCLE),
                dump_at="keys: ready", dump=(), tell=typed(TEXT))


def sound_card(rig, wav, qemu=(), **fields):
    """One between nvme and edu."""
    return linux(rig, ["sound", "functions", f"config={SOUND[:-1]}0"],
                 devices=(*NEIGHBOURS, f"intel-hda,id=hda,addr={SOUND[3:]}",
                          "hda-output,bus=hda.0,audiodev=wav,mixer=off"),
                 qemu=("-audiodev", "wav,id=wav,out.frequency=48000,"
                       f"out.buffer-length=100000,path={wav}", *qemu),
                 **fields)


@define
def sound():
    return Case(sound_card("nested", "sound.wav", monocle=runs.MONOCLE,
                           hv=f"debug assign=all,-{NVME}"),
                dump_at="sound: begins", dump=SLOT,
                back={"sound.wav": 1 << 20})


# -- what a refusal leaves

XHCI_BAR = 0xfeb58000, 0x4000
SPACES = tuple(space(at) for at in (
    "00:00.0", "00:02.0", "00:05.0", "00:06.0", "00:06.1", "00:06.2", NET,
    XHCI, "00:1f.0", "00:1f.2", "00:1f.3"))


def untouched(hv, at="monocle: end:", tell=(), **fields):
    """A machine with two CPUs, looked at when this text has come: its last
    line."""
    return Case(tiny("exit", hv=hv, cpus=2, devices=(
        *NEIGHBOURS, f"{MORE_EDU},addr={SOUND[3:]}", *KEYBOARD,
        f"e1000e,addr={NET[3:]},romfile="), **fields),
        dump_at=at, dump=(nested.IOMMU, XHCI_BAR, *SPACES), tell=(
            ("human-monitor-command", {"command-line": "info registers -a"}),
            *tell))


@define
def untouched_grub():
    """In GRUB, which waits for a line on the keyboard."""
    return untouched("", at="grub", tell=(("quit", {}),), grub=(
        *(f"outb 0xe9 {ord(char):#x}" for char in "grub"), "read"))


@define
def untouched_group():
    return untouched(f"strict-groups assign={SOUND}")


@define
def untouched_no_unit():
    return untouched("assign=all", grub=("acpi --exclude=DMAR",))


@define
def untouched_rmrr():
    return with_rmrr("untouched", NET, 0x2000fff, untouched,
                     hv=f"assign={NET}")


@define
def untouched_not():
    """One that starts: what is looked at does change."""
    return untouched(f"assign={XHCI}")


def real_mode(case):
    """A real-mode guest on SeaBIOS and SeaVGABIOS, and what it has drawn."""
    return Case(Spec(rig="nested", kernel=str(realmode.image(case)),
                     hv=realmode.HV, monocle=runs.MONOCLE, memory=64,
                     timeout=400),
                dump_at="bios: ready", picture=True)


for _case in realmode.CASES:
    _cases[f"bios-{_case}"] = functools.partial(real_mode, _case)


def console(**fields):
    """Linux's first lines on a framebuffer."""
    return Case(Spec(rig="nested", monocle=runs.MONOCLE, memory=256,
                     append=CONSOLE, timeout=120, **fields),
                dump_at=rigs.DEMO_READY, picture=True)


@define
def console_vbe():
    return console(gfx=MODE)


@define
def console_efi():
    return console(firmware="uefi")


# -- guest firmware

OVMF = "/usr/share/ovmf/OVMF.fd"
# Debian 12's has Secure Boot, and so forgets all variables at each reset.
OVMF_13 = BUILD / "cache" / "ovmf@trixie" / "usr" / "share" / "ovmf" / "OVMF.fd"
VARIABLE = "Monocle-6d4f1a8e-5b7c-4d0e-9a53-c6f1b2e07d94"
# A display that OVMF has no driver for. The file has this model's IDs.
ATI = "ati-vga,model=rv100,romfile=vgabios-ati.bin"
ATI_BIOS = {"vgabios-ati.bin": "/usr/share/seabios/vgabios-ati.bin"}
GRUB_READY = "automatically in 57s"     # two seconds after it was drawn
GFXTERM = f"""loadfont /EFI/BOOT/unicode.pf2
set gfxmode={MODE}
set gfxpayload=keep
terminal_output gfxterm serial"""
GRUB_MENU = f"""serial
{GFXTERM}
menuentry Linux {{
	linux /vmlinuz console=tty0 {rigs.DEMO_APPEND} loglevel=6 \\
		tsc=reliable demo.run="tasks uefi={AHCI},{VARIABLE}"
	initrd /initrd
}}
"""


def esp(name, timeout):
    """A disk that UEFI starts; GRUB's menu waits so long."""
    return disk_image.esp(
        runs.work(f"esp-{name}"), f"set timeout={timeout}\n{GRUB_MENU}",
        {"/vmlinuz": DEMO_KERNEL, "/initrd": INITRD})


def ovmf(disk=None, image=OVMF, hv="", **fields):
    """Debian's OVMF as the guest, with GRUB's picture."""
    more = {} if not disk else {
        "devices": (f"ich9-ahci,id=sata,addr={AHCI[3:]}",
                    "ide-hd,bus=sata.0,drive=esp"),
        "drives": (f"id=esp,if=none,format=raw,file={disk}",)}
    return Spec(rig="nested", monocle=runs.MONOCLE, memory=512, module=False,
                modules=((image, "firmware"),), gfx=MODE, display=ATI,
                hv=f"assign={AHCI} {hv}".strip() if disk else hv, **more,
                **fields)


@define
def ovmf_shell():
    return Case(ovmf(timeout=200), dump_at="Shell>", picture=True,
                files=ATI_BIOS)


@define
def ovmf_grub():
    return Case(ovmf(esp("grub", 60), timeout=200), dump_at=GRUB_READY,
                picture=True, files=ATI_BIOS)


@define
def ovmf_linux():
    """Linux on UEFI's framebuffer, a reboot, and the system partition."""
    return Case(ovmf(esp("linux", 0), OVMF_13, timeout=400), dump_at="uefi: set",
                dump=(), files=ATI_BIOS, drives_back=True,
                back={nested.PICTURE: 1 << 20}, tell=(
                    ("screendump", {"filename": nested.PICTURE,
                                    "format": "png"}),
                    ("send-key", qemu.key("\n"))))


# -- the run

def limit(names):
    """Seconds within which the rig itself ends these cases."""
    return nested.limit([runs.TIMEOUT] * len(set(names))) if names else 0


def request(names):
    """Run these cases, in their order, while other tests go on."""
    global _future
    chosen = [name for name in _cases if name in names]
    if chosen:
        _future = runs.submit(functools.partial(_run, chosen))


def _run(names):
    keep = runs.work("nested")
    keep.mkdir()
    cases = [_cases[name]() for name in names]
    assert all(getattr(case, "spec", case).timeout <= runs.TIMEOUT
               for case in cases), "see limit()"
    done = nested.run(cases, say=print, keep=keep,
                      show="MONOCLE_SHOW" in os.environ)
    return dict(zip(names, done))


def result(name):
    """The NestedResult of a case."""
    return _future.result()[name]


def typing(spec):
    """A run natively, with somebody at the keyboard."""
    with rigs.start(spec) as machine:
        machine.wait_for("keys: ready", runs.TIMEOUT)
        machine.type(TEXT + "\n")
        return machine.finish()


runs.define("tcg-keys-xhci")(
    lambda: typing(usb("tcg", "tcg-keys", native=True)))
runs.define("tcg-keys-ehci")(lambda: typing(ehci("tcg", native=True)))


@runs.define("tcg-sound")
def _sound_natively():
    """The machine's clock is its instructions: no busy host interrupts."""
    return rigs.boot(sound_card("tcg", runs.work("tcg.wav"), native=True,
                                qemu=("-icount", "shift=3,sleep=off")))


@runs.define("tcg-drivers")
def _natively():
    """The same Debian, the same devices, without Monocle."""
    return rigs.boot(linux("tcg", TASKS, native=True, **machine(
        "native", payload("net"), runs.work("received"))))
