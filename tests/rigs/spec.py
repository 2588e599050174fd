# SPDX-License-Identifier: MIT
"""What to boot, and on which machine: one record for every rig."""
import dataclasses
import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build"
DEMO_KERNEL = BUILD / "guest" / "vmlinuz-demo"
DEMO_INITRD = BUILD / "guest" / "initrd.img"
DEMO_INITRD_DRM = BUILD / "guest" / "initrd-drm.img"
STANDIN = BUILD / "igd" / "standin"
DEMO_READY = "demo: shell is ready"
# What spares an emulator work: no self-tests, no probing, no clock checks;
# rodata=off for the check of every page table entry that goes with it; and
# what looks up each of the kernel's 40,000 symbols, or parses its BTF.
DEMO_APPEND = ("console=ttyS0 quiet cryptomgr.notests audit=0 apparmor=0 "
               "8250.nr_uarts=1 no_timer_check mitigations=off panic=-1 "
               "rodata=off initcall_blacklist="
               "ftrace_check_for_weak_functions,ftrace_check_sync,"
               "cubictcp_register,bpf_rstat_kfunc_init,kfunc_init,"
               "bpf_prog_test_run_init,bpf_tcp_ca_kfunc_init")


@dataclasses.dataclass
class Igd:
    """Intel graphics at 00:02.0, played by build/igd/standin."""
    config: str                 # the text of its file (tests/igd/config.py)
    opregion: bytes = b""       # what the firmware places
    stolen: int = 0             # ... and reserves, in bytes

    def files(self):
        """What lies beside QEMU: {name: bytes}."""
        files = {"igd.txt": self.config.encode()}
        if self.opregion:
            files["igd-opregion"] = self.opregion
        if self.stolen:
            files["igd-bdsm-size"] = self.stolen.to_bytes(8, "little")
        return files


@dataclasses.dataclass
class Spec:
    """One boot. Paths may be strings; sizes are MiB, times are seconds."""
    rig: str = "auto"
    kernel: str = None          # None: the demo guest
    initrd: str = None
    append: str = ""            # the demo guest: added to DEMO_APPEND
    hv: str = ""                # Monocle's options
    memory: int = 512           # of the whole machine
    cpu: str = None             # a CPU model by the emulator's name
    cpus: int = 1               # Bochs takes as many times as long
    timeout: float = 300
    firmware: str = "bios"
    native: bool = False        # the guest alone, without Monocle
    module: bool = True         # False: no guest at all
    monocle: str = None         # another image than build/monocle.elf
    iso: str = None             # boot this image as it is
    modules: tuple = ()         # further (file, module string) pairs
    gfx: str = "text"           # bios: GRUB's gfxpayload, a VBE mode
    grub: tuple = ()            # GRUB commands before Monocle is loaded
    files: dict = dataclasses.field(default_factory=dict)
    #                             further files of the image: {path: file}
    devices: tuple = ()         # QEMU rigs: -device
    drives: tuple = ()          # QEMU rigs: -drive
    display: str = "VGA"        # QEMU rigs: the -device at 00:02.0
    igd: Igd = None             # QEMU rigs: in its place
    iommu: str = ""             # QEMU rigs: more properties of intel-iommu
    qemu: tuple = ()            # QEMU rigs: more words of the command line
    bochsrc: tuple = ()         # bochs: lines that override the rig's
    breakpoints: tuple = ()     # bochs: linear addresses, set at the start

    def guest(self):
        """Return (kernel, initrd, command line) as paths or None."""
        if not self.module:
            return None, None, ""
        if self.kernel is None:
            demo = (DEMO_INITRD_DRM if "demo.drm" in self.append.split()
                    else DEMO_INITRD)
            return (DEMO_KERNEL, pathlib.Path(self.initrd or demo),
                    f"{DEMO_APPEND} {self.append}".strip())
        initrd = pathlib.Path(self.initrd) if self.initrd else None
        return pathlib.Path(self.kernel), initrd, self.append
