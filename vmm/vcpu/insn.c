/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu/insn.h"
#include "arch/x86/errno.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

#define RFLAGS_CF BIT(0)
#define RFLAGS_PF BIT(2)
#define RFLAGS_AF BIT(4)
#define RFLAGS_ZF BIT(6)
#define RFLAGS_SF BIT(7)
#define RFLAGS_DF BIT(10)
#define RFLAGS_OF BIT(11)
#define RFLAGS_RF BIT(16)
#define RFLAGS_STATUS \
	(RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

#define REX_B 1
#define REX_X 2
#define REX_R 4
#define REX_W 8

/* Properties of an opcode. */
enum {
	MEM8 = 1, /* the memory operand is narrower than the register */
	MEM16 = 2,
	MEM32 = 4,
	MEM_SIZES = 7,
	SIGNED = 1 << 3, /* and its sign is extended */
	MODRM = 1 << 4,
	BYTE = 1 << 5,	   /* all operands are bytes */
	LOAD = 1 << 6,	   /* the register is the destination */
	IMM = 1 << 7,	   /* immediate of the operand's size, at most 4 */
	IMM8 = 1 << 8,	   /* immediate byte, sign-extended */
	GROUP = 1 << 9,	   /* op is an enum group, ModRM.reg chooses */
	MOFFS = 1 << 10,   /* the address follows as an immediate; RAX */
	FROM_SI = 1 << 11, /* string: reads [rSI] */
	TO_DI = 1 << 12,   /* string: writes ES:[rDI] */
	NO66 = 1 << 13,	   /* no word form: with 66 it is nothing */
	STRING = FROM_SI | TO_DI,
};

enum group { GROUP1 = 1, GROUP3, GROUP4, GROUP8, GROUP11 };

/* SDM vol 2, table A-6 */
static const u8 groups[][8] = {
	[GROUP1] = {INSN_ADD, INSN_OR, INSN_ADC, INSN_SBB, INSN_AND, INSN_SUB,
		    INSN_XOR, INSN_CMP},
	[GROUP3] = {[0] = INSN_TEST, [2] = INSN_NOT, [3] = INSN_NEG},
	[GROUP4] = {INSN_INC, INSN_DEC},
	[GROUP8] =
		{[4] = INSN_BT, [5] = INSN_BTS, [6] = INSN_BTR, [7] = INSN_BTC},
	[GROUP11] = {INSN_MOV},
};

struct opcode {
	u8 op; /* enum insn_op or enum group; 0: refused */
	u16 flags;
};

/* clang-format off */
#define PAIR(at, op, flags) \
	[at] = { op, (flags) | BYTE }, [(at) + 1] = { op, flags }
#define ALU(at, op) \
	PAIR(at, op, MODRM), PAIR((at) + 2, op, MODRM | LOAD)
/* clang-format on */

/* SDM vol 2, table A-2 */
static const struct opcode one_byte[256] = {
	ALU(0x00, INSN_ADD),
	ALU(0x08, INSN_OR),
	ALU(0x10, INSN_ADC),
	ALU(0x18, INSN_SBB),
	ALU(0x20, INSN_AND),
	ALU(0x28, INSN_SUB),
	ALU(0x30, INSN_XOR),
	ALU(0x38, INSN_CMP),
	[0x63] = {INSN_MOV, MODRM | LOAD | MEM32 | SIGNED},
	PAIR(0x80, GROUP1, MODRM | GROUP | IMM),
	[0x83] = {GROUP1, MODRM | GROUP | IMM8},
	PAIR(0x84, INSN_TEST, MODRM),
	PAIR(0x86, INSN_XCHG, MODRM),
	PAIR(0x88, INSN_MOV, MODRM),
	PAIR(0x8a, INSN_MOV, MODRM | LOAD),
	PAIR(0xa0, INSN_MOV, MOFFS | LOAD),
	PAIR(0xa2, INSN_MOV, MOFFS),
	PAIR(0xa4, INSN_MOVS, FROM_SI | TO_DI),
	PAIR(0xaa, INSN_MOV, TO_DI),
	PAIR(0xac, INSN_MOV, FROM_SI | LOAD),
	PAIR(0xc6, GROUP11, MODRM | GROUP | IMM),
	PAIR(0xf6, GROUP3, MODRM | GROUP),
	PAIR(0xfe, GROUP4, MODRM | GROUP),
};

/* Behind 0F: SDM vol 2, table A-3 */
static const struct opcode two_byte[256] = {
	[0xb6] = {INSN_MOV, MODRM | LOAD | MEM8},
	[0xb7] = {INSN_MOV, MODRM | LOAD | MEM16},
	[0xba] = {GROUP8, MODRM | GROUP | IMM8},
	[0xbe] = {INSN_MOV, MODRM | LOAD | MEM8 | SIGNED},
	[0xbf] = {INSN_MOV, MODRM | LOAD | MEM16 | SIGNED},
	[0xc3] = {INSN_MOV, MODRM | NO66},
};

/* Operations that leave the first operand alone; SDM vol 2, LOCK. */
#define READ_ONLY (BIT(INSN_CMP) | BIT(INSN_TEST) | BIT(INSN_BT))
#define NO_LOCK (READ_ONLY | BIT(INSN_MOV) | BIT(INSN_MOVS))

#define NO_SEGMENT 0xff /* until a prefix or a register names one */

struct decoder {
	const struct insn_cpu *cpu;
	const u8 *bytes;
	unsigned count, at;
	int error; /* the first one; what is fetched behind it is zero */
	u16 flags; /* of the opcode */
	u8 rex, modrm;
	bool prefix66, prefix67, prefix_f2, prefix_f3;
};

static void fail(struct decoder *d, int error)
{
	if (!d->error)
		d->error = error;
}

static u64 fetch(struct decoder *d, unsigned size)
{
	u64 value = 0;

	if (d->at + size > INSN_MAX)
		fail(d, -E2BIG);
	else if (d->at + size > d->count)
		fail(d, -ERANGE);
	if (d->error)
		return 0;
	for (unsigned i = 0; i < size; i++)
		value |= (u64)d->bytes[d->at++] << 8 * i;
	return value;
}

static u64 truncate(u64 value, unsigned size)
{
	return size >= 8 ? value : value & (BIT(8 * size) - 1);
}

static u64 sign_extend(u64 value, unsigned size)
{
	u64 sign = BIT(8 * size - 1);

	return (truncate(value, size) ^ sign) - sign;
}

static u64 fetch_signed(struct decoder *d, unsigned size)
{
	return sign_extend(fetch(d, size), size);
}

/* In 64-bit mode ES, CS, SS and DS prefixes do nothing: SDM vol 2, 2.1.1. */
static void override(struct decoder *d, struct insn *insn, unsigned segment)
{
	if (d->cpu->bits != 64 || segment >= SEG_FS)
		insn->segment = (u8)segment;
}

static bool take_prefix(struct decoder *d, struct insn *insn, u8 byte)
{
	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
		override(d, insn, byte >> 3 & 3);
		break;
	case 0x64:
	case 0x65:
		override(d, insn, byte & 7);
		break;
	case 0x66:
		d->prefix66 = true;
		break;
	case 0x67:
		d->prefix67 = true;
		break;
	case 0xf0:
		insn->lock = true;
		break;
	case 0xf2:
		d->prefix_f2 = true;
		break;
	case 0xf3:
		d->prefix_f3 = true;
		break;
	default:
		if (d->cpu->bits != 64 || (byte & 0xf0) != 0x40)
			return false;
		d->rex = byte;
		return true;
	}
	/* REX counts only directly before the opcode: SDM vol 2, 2.2.1. */
	d->rex = 0;
	return true;
}

static struct opcode fetch_opcode(struct decoder *d, struct insn *insn)
{
	const struct opcode *table = one_byte;
	struct opcode opcode;
	u8 byte;

	do {
		byte = (u8)fetch(d, 1);
	} while (!d->error && take_prefix(d, insn, byte));
	if (byte == 0x0f) {
		table = two_byte;
		byte = (u8)fetch(d, 1);
	}
	opcode = table[byte];
	if (opcode.flags & MODRM)
		d->modrm = (u8)fetch(d, 1);
	if (opcode.flags & GROUP)
		opcode.op = groups[opcode.op][d->modrm >> 3 & 7];
	if (opcode.op == 0)
		fail(d, -ENOTSUP);
	return opcode;
}

static void default_segment(struct insn *insn, unsigned base)
{
	if (insn->segment == NO_SEGMENT && (base == RSP || base == RBP))
		insn->segment = SEG_SS;
}

/* SDM vol 2, table 2-1 */
static void address16(struct decoder *d, struct insn *insn)
{
	static const u8 base[] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
	static const u8 index[] = {RSI, RDI, RSI, RDI};
	unsigned mod = d->modrm >> 6, rm = d->modrm & 7;

	if (mod == 0 && rm == 6) {
		insn->displacement = fetch(d, 2);
		return;
	}
	insn->base = base[rm];
	if (rm < ARRAY_SIZE(index))
		insn->index = index[rm];
	if (mod)
		insn->displacement = fetch_signed(d, mod);
	default_segment(insn, base[rm]);
}

/* SDM vol 2, tables 2-2 and 2-3; with REX 2.2.1.2, RIP-relative 2.2.1.6 */
static void address32(struct decoder *d, struct insn *insn)
{
	unsigned mod = d->modrm >> 6, base = d->modrm & 7;
	bool sib = base == RSP;

	if (sib) {
		u8 byte = (u8)fetch(d, 1);
		unsigned index = (byte >> 3 & 7) | (d->rex & REX_X ? 8 : 0);

		if (index != RSP)
			insn->index = (u8)index;
		insn->scale = byte >> 6;
		base = byte & 7;
	}
	if (mod == 0 && base == RBP) {
		insn->displacement = fetch_signed(d, 4);
		insn->rip_relative = !sib && d->cpu->bits == 64;
		return;
	}
	base |= d->rex & REX_B ? 8 : 0;
	insn->base = (u8)base;
	if (mod)
		insn->displacement = fetch_signed(d, mod == 1 ? 1 : 4);
	default_segment(insn, base);
}

static void decode_offset(struct decoder *d, struct insn *insn)
{
	if (d->flags & MOFFS)
		insn->displacement = fetch(d, insn->address_size);
	else if (d->flags & STRING)
		insn->base = d->flags & FROM_SI ? RSI : RDI;
	else if (d->modrm >> 6 == 3)
		fail(d, -ENOTSUP);
	else if (insn->address_size == 2)
		address16(d, insn);
	else
		address32(d, insn);
}

static void decode_sizes(struct decoder *d, struct insn *insn)
{
	bool wide = d->cpu->bits != 16;

	if (d->flags & BYTE)
		insn->reg_size = 1;
	else if (d->rex & REX_W)
		insn->reg_size = 8;
	else if (d->flags & NO66)
		insn->reg_size = 4;
	else
		insn->reg_size = wide != d->prefix66 ? 4 : 2;
	if (d->flags & MEM_SIZES)
		insn->size = (u8)(d->flags & MEM_SIZES);
	else
		insn->size = insn->reg_size;
	insn->sign_extend = d->flags & SIGNED;
	if (d->cpu->bits == 64)
		insn->address_size = d->prefix67 ? 4 : 8;
	else
		insn->address_size = wide != d->prefix67 ? 4 : 2;
}

static void decode_operands(struct decoder *d, struct insn *insn)
{
	unsigned size = MIN(insn->size, (u8)4);

	/* Of group 3 only TEST has an immediate. */
	if (d->flags & GROUP && insn->op == INSN_TEST)
		d->flags |= IMM;
	if (d->flags & (IMM | IMM8))
		insn->imm = fetch_signed(d, d->flags & IMM8 ? 1 : size);
	else
		insn->has_reg = !(d->flags & GROUP) && insn->op != INSN_MOVS;
	if (insn->has_reg && d->flags & MODRM)
		insn->reg = (d->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0);
	if (insn->reg_size == 1 && !d->rex && insn->reg >= 4) {
		insn->high_byte = true;
		insn->reg -= 4;
	}
}

static gva_t linear(const struct insn *insn, const struct insn_cpu *cpu,
		    enum insn_segment segment, u64 offset)
{
	offset = truncate(offset, insn->address_size);
	if (cpu->bits == 64 && segment < SEG_FS)
		return offset;
	offset += cpu->segment_base(cpu->ctx, segment);
	return cpu->bits == 64 ? offset : truncate(offset, 4);
}

static void decode_access(struct decoder *d, struct insn *insn)
{
	if (insn->segment == NO_SEGMENT)
		insn->segment = SEG_DS;
	/* STOS and the destination of MOVS have no other: SDM vol 2, 3-17. */
	if ((d->flags & STRING) == TO_DI)
		insn->segment = SEG_ES;
	insn->reads = insn->load || insn->op != INSN_MOV;
	insn->writes = !insn->load && !(BIT(insn->op) & READ_ONLY);
	insn->rep = d->prefix_f3;
	insn->step_rsi = d->flags & FROM_SI;
	insn->step_rdi = d->flags & TO_DI;
}

static bool is_plain(const struct decoder *d, const struct insn *insn)
{
	return insn->op == INSN_MOV && !(d->flags & STRING) &&
	       d->cpu->bits == 64 && insn->address_size == 8 &&
	       insn->segment < SEG_FS && insn->size >= 4 &&
	       insn->size == insn->reg_size && insn->base != RSP &&
	       !(insn->has_reg && insn->reg == RSP);
}

/* What has a row in the tables, but not with these prefixes. */
static int check_prefixes(const struct decoder *d, const struct insn *insn)
{
	bool movsxd = d->flags & MEM32;

	if (insn->lock && (insn->load || BIT(insn->op) & NO_LOCK))
		return -EINVAL;
	/* Elsewhere F2 and F3 do nothing, or are hints, or are undefined. */
	if (d->prefix_f2 || (d->prefix_f3 && !(d->flags & STRING)))
		return -ENOTSUP;
	/* Without REX.W 63 is another instruction, or one to avoid. */
	if ((movsxd && !(d->rex & REX_W)) || (d->flags & NO66 && d->prefix66))
		return -ENOTSUP;
	return 0;
}

int insn_decode(struct insn *insn, const struct insn_cpu *cpu, const u8 *bytes,
		unsigned count)
{
	struct decoder d = {.cpu = cpu, .bytes = bytes, .count = count};
	struct opcode opcode;

	*insn = (struct insn){
		.segment = NO_SEGMENT, .base = INSN_NONE, .index = INSN_NONE};
	opcode = fetch_opcode(&d, insn);
	d.flags = opcode.flags;
	insn->op = opcode.op;
	insn->load = d.flags & LOAD;
	decode_sizes(&d, insn);
	if (!d.error)
		decode_offset(&d, insn);
	if (!d.error)
		decode_operands(&d, insn);
	if (!d.error)
		d.error = check_prefixes(&d, insn);
	if (d.error)
		return d.error;
	insn->length = (u8)d.at;
	decode_access(&d, insn);
	insn->plain = is_plain(&d, insn);
	return 0;
}

void insn_address(struct insn *insn, const struct insn_cpu *cpu)
{
	u64 offset = insn_offset(insn, cpu->regs, cpu->rip);

	insn->read_from = linear(insn, cpu, insn->segment, offset);
	insn->write_to = insn->op == INSN_MOVS
				 ? linear(insn, cpu, SEG_ES, cpu->regs[RDI])
				 : insn->read_from;
	if (insn->rep && !truncate(cpu->regs[RCX], insn->address_size)) {
		insn->reads = false;
		insn->writes = false;
	}
}

/* Bytes and words leave the rest of the register, doublewords clear it. */
static void write_reg(u64 *reg, unsigned size, unsigned shift, u64 value)
{
	u64 mask = size >= 4 ? ~0ull : truncate(~0ull, size) << shift;

	*reg = (*reg & ~mask) | (truncate(value, size) << shift);
}

/* carries: for each bit, whether a carry (or a borrow) went out of it. */
static u64 status_flags(u64 result, u64 carries, unsigned size)
{
	unsigned top = 8 * size - 1;
	u64 overflow = carries >> top ^ carries >> (top - 1);
	u64 flags = 0;

	result = truncate(result, size);
	flags |= (carries >> top & 1) ? RFLAGS_CF : 0;
	flags |= __builtin_parity(result & 0xff) ? 0 : RFLAGS_PF;
	flags |= (carries >> 3 & 1) ? RFLAGS_AF : 0;
	flags |= (result == 0) ? RFLAGS_ZF : 0;
	flags |= (result >> top) ? RFLAGS_SF : 0;
	flags |= (overflow & 1) ? RFLAGS_OF : 0;
	return flags;
}

static u64 arithmetic(enum insn_op op, u64 a, u64 b, u64 carry, u64 *carries)
{
	u64 result;

	*carries = 0;
	switch (op) {
	case INSN_OR:
		return a | b;
	case INSN_XOR:
		return a ^ b;
	case INSN_AND:
	case INSN_TEST:
		return a & b;
	case INSN_ADD:
	case INSN_ADC:
	case INSN_INC:
		result = a + b + carry;
		*carries = (a & b) | ((a | b) & ~result);
		return result;
	default:
		result = a - b - carry;
		*carries = (~a & b) | ((~a | b) & result);
		return result;
	}
}

/* CF gets the bit, the other flags stay (the SDM leaves all but ZF open). */
static u64 bit_op(enum insn_op op, u64 a, u64 bit, u64 *rflags)
{
	*rflags &= ~RFLAGS_CF;
	*rflags |= (a & bit) ? RFLAGS_CF : 0;
	switch (op) {
	case INSN_BTS:
		return a | bit;
	case INSN_BTR:
		return a & ~bit;
	case INSN_BTC:
		return a ^ bit;
	default:
		return a;
	}
}

/* op of a (the first operand) and b. */
static u64 compute(enum insn_op op, u64 a, u64 b, unsigned size, u64 *rflags)
{
	u64 change = RFLAGS_STATUS, carry = 0, carries;

	switch (op) {
	case INSN_MOV:
	case INSN_XCHG:
		return b;
	case INSN_MOVS:
		return a;
	case INSN_NOT:
		return ~a;
	case INSN_BT:
	case INSN_BTS:
	case INSN_BTR:
	case INSN_BTC:
		return bit_op(op, a, BIT(b & (8 * size - 1)), rflags);
	case INSN_INC:
	case INSN_DEC:
		change &= ~RFLAGS_CF;
		b = 1;
		break;
	case INSN_NEG:
		b = a;
		a = 0;
		break;
	case INSN_ADC:
	case INSN_SBB:
		carry = *rflags & RFLAGS_CF;
		break;
	default:
		break;
	}
	a = arithmetic(op, a, b, carry, &carries);
	*rflags &= ~change;
	*rflags |= status_flags(a, carries, size) & change;
	return a;
}

struct insn_result insn_execute(const struct insn *insn,
				const struct insn_cpu *cpu, u64 memory)
{
	struct insn_result result = {.rflags = cpu->rflags};
	u64 other, value;

	other = insn->has_reg ? cpu->regs[insn->reg] : insn->imm;
	other = truncate(other >> (insn->high_byte ? 8 : 0), insn->reg_size);
	memory = truncate(memory, insn->size);
	result.reg =
		insn->sign_extend ? sign_extend(memory, insn->size) : memory;
	if (insn->load && insn->op != INSN_MOV)
		result.reg = compute(insn->op, other, memory, insn->size,
				     &result.rflags);
	if (insn->load)
		return result;
	value = compute(insn->op, memory, other, insn->size, &result.rflags);
	result.store = truncate(value, insn->size);
	return result;
}

static void step(u64 *reg, const struct insn *insn, u64 by)
{
	write_reg(reg, insn->address_size, 0, *reg + by);
}

/* Returns whether there are more elements. */
static bool retire_string(const struct insn *insn, struct insn_cpu *cpu)
{
	u64 by = (cpu->rflags & RFLAGS_DF) ? -(u64)insn->size : insn->size;

	if (insn->step_rsi)
		step(&cpu->regs[RSI], insn, by);
	if (insn->step_rdi)
		step(&cpu->regs[RDI], insn, by);
	if (!insn->rep)
		return false;
	step(&cpu->regs[RCX], insn, ~0ull);
	return truncate(cpu->regs[RCX], insn->address_size) != 0;
}

void insn_retire(const struct insn *insn, struct insn_cpu *cpu,
		 const struct insn_result *result)
{
	bool sets_reg = insn->load ? !(BIT(insn->op) & READ_ONLY)
				   : insn->op == INSN_XCHG;
	bool nothing = !insn->reads && !insn->writes;

	if (!nothing && sets_reg)
		write_reg(&cpu->regs[insn->reg], insn->reg_size,
			  insn->high_byte ? 8 : 0, result->reg);
	if (!nothing && retire_string(insn, cpu))
		return;
	cpu->rflags = result->rflags & ~RFLAGS_RF;
	cpu->rip += insn->length;
	if (cpu->bits != 64)
		cpu->rip = truncate(cpu->rip, 4);
}
