/* SPDX-License-Identifier: MIT */
/*
 * Decodes and carries out the instructions with which drivers access device
 * memory (SDM vol 2): MOV, MOVZX, MOVSX, MOVSXD, MOVNTI, the two-operand ALU
 * group, TEST, NOT, NEG, INC, DEC, XCHG, BT/BTS/BTR/BTC with an immediate,
 * MOVS, STOS and LODS, each with a memory operand. Whatever else there is, it
 * refuses. Nothing here touches a guest: the caller
 *   1. insn_decode()s the bytes at RIP, or keeps what came of it: that hangs
 *      on them and on cpu->bits alone; then insn_address() looks at registers,
 *   2. reads insn.size bytes at insn.read_from if insn.reads,
 *   3. asks insn_execute() for the outcome,
 *   4. writes result.store to insn.write_to if insn.writes,
 *   5. lets insn_retire() change registers, flags and RIP.
 * A fault in 2 or 4 leaves the guest as it was. A repeated string instruction
 * is one element each time: RIP stays until the count is used up.
 */
#ifndef VMM_VCPU_INSN_H
#define VMM_VCPU_INSN_H

#include "arch/x86/types.h"

#define INSN_MAX 15  /* bytes: SDM vol 2, 2.3.11 */
#define INSN_NONE 16 /* no register */

enum insn_segment { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

/* The first eight are the order of the opcodes and of group 1. */
enum insn_op {
	INSN_ADD = 1,
	INSN_OR,
	INSN_ADC,
	INSN_SBB,
	INSN_AND,
	INSN_SUB,
	INSN_XOR,
	INSN_CMP,
	INSN_TEST,
	INSN_NOT,
	INSN_NEG,
	INSN_INC,
	INSN_DEC,
	INSN_MOV, /* also with extension, STOS and LODS */
	INSN_MOVS,
	INSN_XCHG,
	INSN_BT,
	INSN_BTS,
	INSN_BTR,
	INSN_BTC,
};

/* What the CPU is like at the instruction. */
struct insn_cpu {
	u64 *regs; /* 16: RAX RCX RDX RBX RSP RBP RSI RDI R8-R15 */
	u64 rip, rflags;
	u8 bits; /* of the code segment: 16, 32, or 64 */
	/* Outside 64-bit mode of each segment, in it of FS and GS only. */
	u64 (*segment_base)(void *ctx, enum insn_segment segment);
	void *ctx;
};

struct insn {
	u8 length;	 /* bytes */
	u8 op;		 /* enum insn_op */
	u8 size;	 /* of the memory operand: 1, 2, 4, 8 bytes */
	u8 reg_size;	 /* of the register; not size: the load extends */
	u8 address_size; /* 2, 4, 8 bytes */
	u8 segment;	 /* of the memory operand (MOVS: of the source) */
	u8 base, index;	 /* its offset is of these registers, or INSN_NONE, */
	u8 scale;	 /* the second shifted by this, */
	bool rip_relative;
	u8 reg;		/* the register operand, if has_reg */
	bool has_reg;	/* else imm is the other operand, if there is one */
	bool high_byte; /* reg 0-3 stands for AH, CH, DH, BH */
	bool load;	/* the register is the first operand */
	bool sign_extend;
	bool lock, rep;
	bool step_rsi, step_rdi; /* a string instruction moves these on */
	bool reads, writes;	 /* both false: a repetition of none */
	/* A MOV of 4 or 8 bytes in 64-bit mode, of an immediate or a register
	 * that is not RSP, at insn_offset(). */
	bool plain;
	u64 displacement; /* and this; sign-extended, as imm */
	u64 imm;
	/* By insn_address(): linear addresses; they differ for MOVS. */
	gva_t read_from;
	gva_t write_to;
};

struct insn_result {
	u64 store; /* zero-extended from insn.size */
	u64 reg;   /* what the register becomes, likewise from reg_size */
	u64 rflags;
};

/*
 * count: how many of bytes there are. -ERANGE: the instruction goes on behind
 * them, fetch more; -E2BIG: longer than INSN_MAX (the CPU gives #GP);
 * -EINVAL: LOCK where the CPU gives #UD; -ENOTSUP: not one of the above.
 */
int insn_decode(struct insn *insn, const struct insn_cpu *cpu, const u8 *bytes,
		unsigned count);

/* The operand's offset in its segment, before it is truncated. */
static inline u64 insn_offset(const struct insn *insn, const u64 *regs, u64 rip)
{
	u64 offset = insn->displacement;

	if (insn->base != INSN_NONE)
		offset += regs[insn->base];
	if (insn->index != INSN_NONE)
		offset += regs[insn->index] << insn->scale;
	return insn->rip_relative ? offset + rip + insn->length : offset;
}

/*
 * Where its operands are, with registers as they stand now. A repetition of
 * none neither reads nor writes.
 */
void insn_address(struct insn *insn, const struct insn_cpu *cpu);

/* memory: what was read, or anything if !insn->reads. */
struct insn_result insn_execute(const struct insn *insn,
				const struct insn_cpu *cpu, u64 memory);

/* Registers, RFLAGS (RF is cleared) and RIP as after the instruction. */
void insn_retire(const struct insn *insn, struct insn_cpu *cpu,
		 const struct insn_result *result);

#endif
