# SPDX-License-Identifier: MIT
"""The MMIO instruction decoder against Capstone, and what it does against
the CPU that runs this test."""

import platform
import random
import subprocess

import capstone
import pytest
from capstone import x86_const as x86
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

U64 = 2**64 - 1
ON_X86 = platform.machine() == "x86_64"
RIP = 0x10203040
STATUS = 0x8d5          # OF SF ZF AF PF CF
CF, DF, RF = 1, 0x400, 0x10000
RCX, RSI, RDI = 1, 6, 7
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
BASES = (0x11110000, 0x22220000, 0x33330000, 0x44440000, 0x55550000,
         0x66660000)
ALU = "add or adc sbb and sub xor cmp".split()
OPS = [None, *ALU, "test", "not", "neg", "inc", "dec", "mov", "movs", "xchg", "bt",
       "bts", "btr", "btc"]
ONE_BYTE = [o + n for o in range(0, 64, 8) for n in range(4)] + [
    0x63, 0x80, 0x81, 0x83, *range(0x84, 0x8c), *range(0xa0, 0xa6),
    *range(0xaa, 0xae), 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff]
TWO_BYTE = [0xb6, 0xb7, 0xba, 0xbe, 0xbf, 0xc3]
PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]
NULL_PREFIXES = (0x26, 0x2e, 0x36, 0x3e)


def _registers():
    names = {}
    for n, r in enumerate("ax cx dx bx sp bp si di".split()):
        names.update({"r" + r: (n, 8), "e" + r: (n, 4), r: (n, 2)})
    for n, r in enumerate("al cl dl bl spl bpl sil dil".split()):
        names[r] = (n, 1)
    for n in range(8, 16):
        names.update({f"r{n}": (n, 8), f"r{n}d": (n, 4), f"r{n}w": (n, 2),
                      f"r{n}b": (n, 1)})
    return names


REGISTERS = _registers()
HIGH = {"ah": 0, "ch": 1, "dh": 2, "bh": 3}


@pytest.fixture(scope="module")
def m():
    oracle = ["tests/unit/insn_oracle.h"] if ON_X86 else []
    return harness.build(
        "insn", ["vmm/vcpu/insn.c"], headers=["vmm/vcpu/insn.h", *oracle],
        fakes=oracle[0].replace(".h", ".c") if oracle else None)


@pytest.fixture(scope="module")
def cpu(m):
    return Cpu(m)


class Cpu:
    """A struct insn_cpu, and the decoder's answers about it."""

    def __init__(self, m):
        self.m = m
        self.bases = list(BASES)
        self.regs = m.new("u64[16]")
        self.base = m.callback("u64(void *, enum insn_segment)",
                               lambda _ctx, segment: self.bases[segment])
        self.c = m.new("struct insn_cpu *", {
            "regs": self.regs, "segment_base": self.base})
        self.insn = m.new("struct insn *")
        self.disassemblers = {
            16: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16),
            32: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32),
            64: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)}
        for d in self.disassemblers.values():
            d.detail = True

    def state(self, bits, regs, rip=RIP, rflags=2):
        self.c.bits, self.c.rip, self.c.rflags = bits, rip, rflags
        for i, value in enumerate(regs):
            self.regs[i] = value

    def decode(self, code, count=None):
        count = len(code) if count is None else count
        buffer = self.m.new("u8[]", max(count, 1))
        self.m.ffi.memmove(buffer, code, count)
        status = self.m.insn_decode(self.insn, self.c, buffer, count)
        if status == 0:
            self.m.insn_address(self.insn, self.c)
        return status

    def finish(self, memory=0):
        """Executes and retires what was decoded; returns what to store."""
        result = self.m.new("struct insn_result *")
        result[0] = self.m.insn_execute(self.insn, self.c, memory)
        self.m.insn_retire(self.insn, self.c, result)
        return result.store

    def disassemble(self, bits, code):
        return next(self.disassemblers[bits].disasm(code, self.c.rip, 1),
                    None)

    def linear(self, theirs, op, bits):
        """The address of Capstone's memory operand."""
        mem, size = op.mem, theirs.addr_size
        offset = mem.disp
        for reg, scale in ((mem.base, 1), (mem.index, mem.scale)):
            name = theirs.reg_name(reg) if reg else None
            if name in ("rip", "eip"):
                offset += self.c.rip + theirs.size
            elif name and name not in ("riz", "eiz"):
                number, width = REGISTERS[name]
                assert width == size
                offset += self.regs[number] * scale
        offset &= 2 ** (8 * size) - 1
        segment = SEGMENTS.index(self.segment(theirs, op))
        if bits == 64:
            base = self.bases[segment] if segment >= 4 else 0
            return (base + offset) & U64
        return (self.bases[segment] + offset) & 0xffffffff

    @staticmethod
    def segment(theirs, op):
        if op.mem.segment:
            return theirs.reg_name(op.mem.segment)
        base = theirs.reg_name(op.mem.base) if op.mem.base else ""
        return "ss" if base in ("rsp", "esp", "rbp", "ebp", "bp") else "ds"


def expected_operation(theirs):
    """Our name of Capstone's instruction, or None where we have none."""
    name = theirs.insn_name()
    for string in ("movs", "stos", "lods"):
        if name in [string + s for s in "bwdq"] and name != "movsx":
            return "movs" if string == "movs" else "mov"
    if name in ("movzx", "movsx", "movsxd", "movabs", "movnti"):
        return "mov"
    return name if name in OPS else None


def for_capstone(code, bits):
    """The same instruction in an order of prefixes that Capstone 4 reads as
    the CPU does (which is asked below): F2 and F3 directly before the opcode
    hide a 66 from it, and in 64-bit mode it lets ES, CS, SS and DS prefixes
    override FS and GS. None: a REX before another prefix."""
    end = next((n for n, p in enumerate(code) if p not in PREFIXES), 0)
    if bits == 64 and code[end] >> 4 == 4 and (
            code[end + 1] in PREFIXES or code[end + 1] >> 4 == 4):
        return None
    weak = NULL_PREFIXES if bits == 64 else ()
    return bytes(sorted(code[:end], key=lambda p: (
        p not in (0xf2, 0xf3), p not in weak))) + code[end:]


def compare(cpu, bits, code):
    """Decodes both ways; returns the status of ours."""
    status = cpu.decode(code)
    code = for_capstone(code, bits)
    if code is None:
        return status
    theirs = cpu.disassemble(bits, code)
    if status:
        assert status in (-cpu.m.ENOTSUP, -cpu.m.EINVAL, -cpu.m.E2BIG,
                          -cpu.m.ERANGE)
        return status
    ours = cpu.insn
    assert theirs is not None, "Capstone knows no such instruction"
    said = f"{theirs.mnemonic} {theirs.op_str}"
    assert ours.length == theirs.size, said
    assert OPS[ours.op] == expected_operation(theirs), said
    assert ours.address_size == theirs.addr_size, said
    assert ours.lock == (0xf0 in code[:theirs.size - 2] and
                         "lock" in theirs.mnemonic), said
    compare_memory(cpu, bits, ours, theirs, said)
    compare_others(ours, theirs, said)
    return 0


def compare_memory(cpu, bits, ours, theirs, said):
    memory = [op for op in theirs.operands if op.type == x86.X86_OP_MEM]
    addresses = [cpu.linear(theirs, op, bits) for op in memory]
    assert {op.size for op in memory} == {ours.size}, said
    if OPS[ours.op] == "movs":
        assert addresses == [ours.write_to, ours.read_from], said
    else:
        assert addresses == [ours.read_from], said
        assert ours.write_to == ours.read_from, said
        segment = SEGMENTS[ours.segment], cpu.segment(theirs, memory[0])
        if bits == 64:      # the others all have base 0
            segment = [s if s in ("fs", "gs") else "" for s in segment]
        assert segment[0] == segment[1], said
    name = OPS[ours.op]
    first = theirs.operands[0].type == x86.X86_OP_MEM
    none = ours.rep and not cpu.regs[RCX] % 2 ** (8 * ours.address_size)
    reads = name != "mov" or not first
    writes = name == "xchg" or first and name not in ("cmp", "test", "bt")
    assert (ours.reads, ours.writes) == (
        (False, False) if none else (reads, writes)), said


def compare_others(ours, theirs, said):
    names = [theirs.reg_name(op.reg) for op in theirs.operands
             if op.type == x86.X86_OP_REG]
    values = [op.imm for op in theirs.operands if op.type == x86.X86_OP_IMM]
    assert bool(names) == ours.has_reg, said
    for name in names:
        assert ours.high_byte == (name in HIGH), said
        assert (ours.reg, ours.reg_size) == (
            (HIGH[name], 1) if name in HIGH else REGISTERS[name]), said
    bits = 8 if OPS[ours.op].startswith("bt") else 8 * ours.size
    for value in values:
        assert (ours.imm - value) % 2 ** bits == 0, said
    if names and OPS[ours.op] not in ("xchg", "test"):
        first = theirs.operands[0].type == x86.X86_OP_REG
        assert ours.load == first, said
    assert ours.sign_extend == (theirs.insn_name() in ("movsx", "movsxd"))


def random_registers(rng):
    """Addresses, counts, and corner cases."""
    return [rng.choice((rng.getrandbits(64), rng.getrandbits(32),
                        rng.getrandbits(16), rng.getrandbits(4), U64 - 3))
            for _ in range(16)]


def encoding(rng, bits):
    """Prefixes, a known opcode most times, and bytes that mean the rest."""
    code = bytes(rng.choices(PREFIXES, k=rng.choice((0, 0, 0, 1, 1, 2, 3))))
    if bits == 64 and rng.random() < 0.6:
        code += bytes([0x40 + rng.randrange(16)])
    if rng.random() < 0.05:
        code += rng.randbytes(2)
    elif rng.random() < 0.2:
        code += bytes([0x0f, rng.choice(TWO_BYTE)])
    else:
        code += bytes([rng.choice(ONE_BYTE)])
    modrm = rng.randrange(0xc0) if rng.random() < 0.95 else 0xff
    return (code + bytes([modrm]) + rng.randbytes(15))[:15]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_encodings_mean_what_capstone_says(cpu, bits):
    rng = random.Random(bits)
    accepted = 0
    for _ in range(6000):
        cpu.state(bits, random_registers(rng))
        code = encoding(rng, bits)
        try:
            accepted += compare(cpu, bits, code) == 0
        except AssertionError as error:
            raise AssertionError(f"{bits}-bit {code.hex(' ')}") from error
    assert accepted > 3000


@settings(max_examples=2000)
@given(st.sampled_from([16, 32, 64]), st.binary(min_size=15, max_size=15),
       st.randoms(use_true_random=False))
def test_random_bytes(cpu, bits, code, rng):
    cpu.state(bits, random_registers(rng))
    compare(cpu, bits, code)


def test_the_bytes_may_come_in_parts(cpu):
    """Whatever is accepted is asked for in full, and no byte more."""
    rng = random.Random(4)
    for bits in (16, 32, 64):
        for _ in range(200):
            cpu.state(bits, random_registers(rng))
            code = encoding(rng, bits)
            if cpu.decode(code) == 0:
                length = cpu.insn.length
                for count in range(length):
                    assert cpu.decode(code, count) == -cpu.m.ERANGE
                assert cpu.decode(code, length) == 0
                assert cpu.insn.length == length


# What compilers make of readl(), writeb(), memcpy_toio(), x |= ..., and what
# firmware and boot loaders are written in.
DRIVER_FORMS = {
    64: """
        mov eax, [rdi]
        mov eax, [rdi+0xf0]
        mov [rdi+0xb0], esi
        mov dword [rax+0x380], 0
        mov dword [0xfffffffffee000b0], 0
        mov eax, [0xfffffffffee00020]
        mov eax, [rel $+0x1000]
        mov [r8+r9*8+0x12345678], r10
        mov rax, [rbx+rcx*4]
        mov word [rsi], 0x1234
        mov byte [rsi+1], 0x80
        mov qword [rsi], -1
        mov ax, [rdx]
        mov [rdx], cx
        mov [rdx], cl
        mov [rdx], ah
        mov [rdx], sil
        mov dl, [rdx]
        movzx eax, byte [rdi]
        movzx eax, word [rdi]
        movzx rax, byte [rdi]
        movsx eax, byte [rdi]
        movsx rax, word [rdi]
        movsxd rax, dword [rdi]
        movnti [rdi], eax
        movnti [rdi], rax
        or dword [rdi], 1
        and dword [rdi], ~0xff
        and byte [rdi], 0xfe
        xor dword [rdi], 0x80000000
        add dword [rdi], 4
        sub qword [rdi], rax
        or [rdi], eax
        and eax, [rdi]
        or al, [rdi]
        add rax, [rdi]
        cmp dword [rdi], 0
        cmp eax, [rdi]
        cmp [rdi], al
        test byte [rdi], 1
        test dword [rdi], 0x10000
        test [rdi], eax
        xchg [rdi], eax
        lock or dword [rdi], 1
        lock bts dword [rdi], 3
        bt dword [rdi], 31
        btr dword [rdi], 0
        inc dword [rdi]
        dec byte [rdi]
        not dword [rdi]
        neg dword [rdi]
        lock inc dword [rdi]
        rep movsb
        rep movsd
        rep movsq
        movsb
        rep stosb
        rep stosd
        rep stosq
        stosw
        lodsd
        a32 mov [edi], eax
        mov [fs:0x28], rax
        mov eax, [gs:rbx]
        mov [abs qword 0xfee00300], eax
    """,
    32: """
        mov eax, [0xfee00020]
        mov [0xfee000b0], eax
        mov dword [0xfee000b0], 0
        mov [ebx+esi*4+8], edx
        mov al, [ebp-4]
        movzx ecx, byte [esp+4]
        and dword [edi], 0xfffffffe
        rep movsd
        rep stosb
        mov ax, [es:edi]
        mov [fs:bx+si], al
    """,
    16: """
        mov ax, [bx+si]
        mov [es:di], al
        mov [es:di], ax
        mov al, [0x1234]
        mov dword [es:di+4], 0x12345678
        rep stosw
        rep movsw
        rep movsd
        lodsb
        stosb
        a32 mov [fs:ebx], eax
        o32 mov [bp+2], eax
        xor byte [si], 0xff
    """}


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_what_drivers_use_is_known(cpu, bits, tmp_path):
    lines = [s.strip() for s in DRIVER_FORMS[bits].split("\n") if s.strip()]
    source, binary = tmp_path / "forms.asm", tmp_path / "forms.bin"
    # Each stands in a slot of its own, so that a wrong length shows.
    source.write_text(f"bits {bits}\n" + "".join(
        f"align 16, db 0xcc\n{line}\n" for line in lines))
    subprocess.run(["nasm", "-f", "bin", "-o", binary, source], check=True)
    code = binary.read_bytes()
    for n, line in enumerate(lines):
        slot = code[16 * n:16 * n + 16]
        cpu.state(bits, range(100, 116))
        assert cpu.decode(slot, 15) == 0, line
        assert set(slot[cpu.insn.length:]) <= {0xcc}, line
        assert slot[cpu.insn.length - 1] != 0xcc, line


@pytest.mark.parametrize("code, why", [
    ("0f ae 38", "clflush"), ("0f 11 00", "movups"), ("66 0f 7f 00", "movdqa"),
    ("d8 00", "fadd"), ("c5 f8 10 00", "vmovups"), ("ff 30", "push"),
    ("8f 00", "pop"), ("ff 10", "call"), ("0f b1 08", "cmpxchg"),
    ("0f c7 08", "cmpxchg8b"), ("0f c1 08", "xadd"), ("a6", "cmpsb"),
    ("ae", "scasb"), ("8b c0", "mov eax, eax"), ("89 c0", "no memory"),
    ("0f ba e0 01", "bt eax, 1"), ("c6 08 00", "group 11 /1"),
    ("c7 f8 00 00 00 00", "xbegin"), ("f6 08 01", "group 3 /1"),
    ("63 00", "movsxd without REX.W"), ("66 0f c3 00", "no such movnti"),
    ("f3 8b 00", "a hint of another kind"), ("f2 a4", "repne movsb"),
    ("8e 00", "mov es, [rax]"), ("90", "nop"), ("6c", "insb"),
    ("d7", "xlat"), ("82 00 00", "not in 64-bit mode")])
def test_what_is_no_plain_access_is_refused(cpu, code, why):
    cpu.state(64, [0] * 16)
    code = bytes.fromhex(code) + bytes(12)
    assert cpu.decode(code) == -cpu.m.ENOTSUP, why


@pytest.mark.parametrize("bits, address, start, after", [
    (64, 8, 2**64 - 2, 2), (64, 4, 2**33 - 2, 2), (32, 4, 0xfffffffe, 2),
    (32, 2, 0xab0000fffe, 0xab00000002), (16, 2, 0xabfffe, 0xab0002)])
@pytest.mark.parametrize("op", ["movs", "stos", "lods"])
def test_string_pointers_wrap_at_the_address_size(cpu, bits, address, start,
                                                  after, op):
    prefix = b"\x67" if address != bits // 8 else b""
    prefix += b"\x66" if bits == 16 else b""
    opcode = {"movs": 0xa5, "stos": 0xab, "lods": 0xad}[op]
    regs = [0] * 16
    regs[RSI] = regs[RDI] = start
    cpu.state(bits, regs, rflags=RF | 2)
    assert cpu.decode(prefix + bytes([opcode])) == 0
    cpu.finish(0x12345678)
    assert cpu.regs[RSI] == (start if op == "stos" else after)
    assert cpu.regs[RDI] == (start if op == "lods" else after)
    assert cpu.c.rip == RIP + len(prefix) + 1
    assert cpu.c.rflags == 2


def test_rip_wraps_outside_64_bit_mode(cpu):
    for bits, after in ((64, 2**32 + 1), (32, 1), (16, 1)):
        cpu.state(bits, [0] * 16, rip=0xffffffff)
        assert cpu.decode(b"\x8b\x07") == 0
        cpu.finish()
        assert cpu.c.rip == after


def test_a_repetition_is_one_element_at_a_time(cpu):
    regs = [0] * 16
    regs[RCX], regs[RDI] = 2, 0x1000
    cpu.state(64, regs)
    for rip, address in ((RIP, 0x1000), (RIP + 2, 0x1004)):
        assert cpu.decode(b"\xf3\xab") == 0
        assert (cpu.insn.writes, cpu.insn.write_to) == (True, address)
        cpu.finish()
        assert cpu.c.rip == rip
    assert (cpu.regs[RCX], cpu.regs[RDI]) == (0, 0x1008)
    cpu.c.rip = RIP
    assert cpu.decode(b"\xf3\xab") == 0
    assert not cpu.insn.reads and not cpu.insn.writes
    cpu.finish()
    assert (cpu.regs[RDI], cpu.c.rip) == (0x1008, RIP + 2)


# --- The CPU as the judge -------------------------------------------------

class Oracle:
    """A code page, and a window of memory for the operands."""
    SIZE = 0x3000

    def __init__(self, cpu):
        self.cpu, self.m = cpu, cpu.m
        base = self.m.oracle_map(0x1000 + self.SIZE)
        assert base != self.m.NULL
        self.code = base
        self.rip = int(self.m.ffi.cast("uintptr_t", base))
        self.low = self.rip + 0x1000
        self.window = self.m.ffi.buffer(
            self.m.ffi.cast("char *", base) + 0x1000, self.SIZE)
        self.m.oracle_set_gs_base(0x1230)
        self.bases = [0xdead0000] * 4 + [self.m.oracle_fs_base(), 0x1230]

    def run(self, code, regs, rflags, memory):
        """(signal, registers, status flags and DF, memory) afterwards."""
        state = self.m.lib.oracle
        for i, value in enumerate(regs):
            state.regs[i] = value
        state.rflags = rflags
        self.window[:] = bytes(memory)
        self.m.oracle_run(self.code, code, len(code))
        return (state.signal, list(state.regs),
                state.rflags & (STATUS | DF), bytes(self.window))

    def emulate(self, code, memory):
        """The same by Monocle, from self.cpu's state on."""
        cpu = self.cpu
        for _ in range(16):
            assert cpu.decode(code) == 0
            insn, value = cpu.insn, 0
            if insn.reads:
                at = insn.read_from - self.low
                value = int.from_bytes(memory[at:at + insn.size], "little")
            store = cpu.finish(value)
            if insn.writes:
                at = insn.write_to - self.low
                memory[at:at + insn.size] = store.to_bytes(insn.size,
                                                           "little")
            if cpu.c.rip != self.rip:
                break
        assert cpu.c.rip == self.rip + insn.length
        return (0, list(cpu.regs), cpu.c.rflags & (STATUS | DF),
                bytes(memory))

    def aim(self, rng, theirs, code, regs):
        """Changes code or regs so that the operands lie in the window: in
        the decoder's opinion, which the CPU is then asked about."""
        cpu = self.cpu
        middle = self.low + self.SIZE // 2
        count = regs[RCX]
        if theirs.insn_name()[:4] in ("movs", "stos", "lods") and \
                not theirs.insn_name().startswith("movsx"):
            base = self.bases[cpu.insn.segment] if cpu.insn.segment >= 4 else 0
            regs[RSI] = (middle + rng.randrange(64) - base) & U64
            regs[RDI] = middle + 256 + rng.randrange(64)
            regs[RCX] = rng.randrange(6)
            if theirs.addr_size == 4:       # the rest must not count
                for reg in (RSI, RDI, RCX):
                    regs[reg] = regs[reg] & 0xffffffff | count << 32 & U64
            return code
        op = next(o for o in theirs.operands if o.type == x86.X86_OP_MEM)
        off = middle + rng.randrange(256) - cpu.insn.read_from
        names = [theirs.reg_name(r) if r else None
                 for r in (op.mem.base, op.mem.index)]
        if names[0] in REGISTERS:
            by = 1 + (op.mem.scale if names[1] == names[0] else 0)
            regs[REGISTERS[names[0]][0]] += off // by
        elif names[1] in REGISTERS:
            regs[REGISTERS[names[1]][0]] += off // op.mem.scale
        else:                               # RIP-relative, or absolute
            at = theirs.disp_offset or theirs.size - theirs.addr_size
            size = 4 if theirs.disp_offset else theirs.addr_size
            disp = int.from_bytes(code[at:at + size], "little") + off
            code = code[:at] + (disp % 2 ** (8 * size)).to_bytes(
                size, "little") + code[at + size:]
        regs[:] = [r & U64 for r in regs]
        return code

    def hits_window(self, insn):
        return all(self.low + 256 <= a < self.low + self.SIZE - 256
                   for a in (insn.read_from, insn.write_to))


@pytest.fixture(scope="module")
def oracle(cpu):
    if not ON_X86:
        pytest.skip("needs an x86-64 CPU")
    return Oracle(cpu)


def compare_with_cpu(oracle, rng):
    """Returns what became of one random instruction: a word to count."""
    cpu, m = oracle.cpu, oracle.m
    cpu.bases = oracle.bases
    code, regs = encoding(rng, 64), random_registers(rng)
    if rng.random() < 0.2:      # what for_capstone() changes
        code = bytes(rng.choices([*PREFIXES[:6], 0x48, 0x4f], k=2)) + code[:13]
    rflags = 2 | rng.getrandbits(12) & (STATUS | DF)
    cpu.state(64, regs, oracle.rip)
    status = cpu.decode(code)
    theirs = cpu.disassemble(64, code)
    if status == -m.EINVAL:
        signal = oracle.run(code, regs, rflags, bytes(oracle.SIZE))[0]
        assert signal == 4, f"SIGILL expected for {code.hex(' ')}"
        return "undefined"
    if status or theirs is None:
        return "refused"
    code = oracle.aim(rng, theirs, code, regs)[:cpu.insn.length]
    cpu.state(64, regs, oracle.rip, rflags)
    if cpu.decode(code) or not oracle.hits_window(cpu.insn):
        return "missed"
    memory = rng.randbytes(oracle.SIZE)
    truth = oracle.run(code, regs, rflags, memory)
    ours = oracle.emulate(code, bytearray(memory))
    said = f"{code.hex(' ')}: {theirs.mnemonic} {theirs.op_str}"
    op = OPS[cpu.insn.op]
    assert truth[0] == 0, said
    for number, (a, b) in enumerate(zip(ours[1], truth[1])):
        assert a == b, f"register {number} of {said}"
    undefined = 0
    if op in ("and", "or", "xor", "test"):
        undefined = 0x10                    # AF
    elif op.startswith("bt"):
        undefined = STATUS & ~(CF | 0x40)   # all but CF and ZF
    assert ours[2] | undefined == truth[2] | undefined, said
    assert ours[3] == truth[3], said
    return op


def test_the_cpu_does_the_same(oracle):
    rng = random.Random(7)
    counts = dict.fromkeys(
        [*OPS[1:], "undefined", "refused", "missed"], 0)
    for _ in range(12000):
        counts[compare_with_cpu(oracle, rng)] += 1
    print(counts)
    assert counts["missed"] < 600
    assert min(counts.values()) > 10, counts


@pytest.mark.parametrize("rsp", [
    0x7ffffff0, 0xffff800000000000, 0x0604dcb92e36b71f, 1 << 47, 0, U64])
def test_an_exception_with_any_stack_ends(oracle, rsp):
    """The guest's RSP is told, and the handler returns with another one: with
    one that is not canonical the return would fault, again and again."""
    code = b"\x48\xff\xc4\x0f\x0b"      # inc rsp, ud2
    regs = [*range(4), rsp, *range(5, 16)]
    signal, after, *_ = oracle.run(code, regs, 2, bytes(oracle.SIZE))
    regs[4] = rsp + 1 & U64
    assert (signal, after) == (4, regs)
    assert all(0 < value < 1 << 47 for value in oracle.m.lib.oracle.back)


def test_15_bytes_and_no_more(oracle):
    cpu, m = oracle.cpu, oracle.m
    regs = [oracle.low] * 16
    for prefixes in (12, 13):
        code = b"\x2e" * prefixes + b"\x8b\x47\x10"
        cpu.state(64, regs, oracle.rip)
        signal = oracle.run(code, regs, 2, bytes(oracle.SIZE))[0]
        assert (cpu.decode(code) == -m.E2BIG) == (signal == 11)
        assert (cpu.decode(code) == 0) == (signal == 0)
    assert signal == 11
