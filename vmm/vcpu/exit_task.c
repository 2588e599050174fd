/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switches, which exit (SDM 26.4.2): the CPU has checked the gate
 * and the descriptor of the new TSS, and SDM 8.3 is carried out here.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "kernel/string.h"
#include "vmm/vcpu/exits.h"

enum source { BY_CALL, BY_IRET, BY_JMP, BY_GATE };

/* As the VMCS numbers them. */
enum { CS = 1, SS = 2, FS = 4, GS = 5, LDTR = 6, TR = 7 };

/* What both kinds of TSS (SDM figures 8-2, 8-10) have in this order, in 4 bytes
 * each or in 2; one of 16 bits has no FS and no GS. */
enum { IP, FLAGS, GPR, SEGMENT = GPR + 8, FIELDS = SEGMENT + 7 };

#define TYPE_ACCESSED BIT(40)
#define TYPE_BUSY BIT(41) /* of data: writable; of code: readable */
#define TYPE_CONFORMING BIT(42)
#define TYPE_CODE BIT(43) /* of a TSS: of 32 bits */
#define DESCRIPTOR_S BIT(44)
#define DESCRIPTOR_P BIT(47)
#define FLAGS_NT 0x4000u
#define FLAGS_KNOWN 0x3f7fd5u /* SDM vol 1, figure 3-8 */
#define DR6_BT BIT(15)
#define DR7_LOCAL 0x155ull /* L0 to L3, LE */

struct task_switch {
	struct vcpu *v;
	enum source source;
	u32 event; /* that a gate serves, as injected; 0: none */
	u32 ext;   /* of error codes: an event from outside the program */
	unsigned cpl;
	u16 old, selector; /* of the TSSs */
	u64 descriptor;	   /* the new one's */
	bool wide, trap;   /* the new one has 32 bits, T */
	u32 cr3, field[FIELDS];
};

static gva_t base_of(u64 descriptor)
{
	return (descriptor >> 16 & 0xffffff) | descriptor >> 56 << 24;
}

static int fault(struct task_switch *t, unsigned vector, u16 selector)
{
	vcpu_inject(t->v, vector, true, (selector & ~3u) | t->ext);
	return -EFAULT;
}

/* LDTR was loaded here: without a table its limit is 0. */
static int read_descriptor(struct task_switch *t, u16 selector, u64 *descriptor,
			   gva_t *at)
{
	bool local = selector & 4;
	u64 base = vmread(local ? VMCS_GUEST_ES_BASE + 2 * LDTR
				: VMCS_GUEST_GDTR_BASE);
	u64 limit = vmread(local ? VMCS_GUEST_ES_LIMIT + 2 * LDTR
				 : VMCS_GUEST_GDTR_LIMIT);

	if ((selector | 7u) > limit)
		return fault(t, VECTOR_TS, selector);
	*at = (u32)(base + (selector & ~7u));
	return vcpu_read_linear(t->v, *at, descriptor, 8, GUEST_IMPLICIT);
}

static int write_type(struct task_switch *t, gva_t at, u64 descriptor)
{
	u8 type = (u8)(descriptor >> 40);

	return vcpu_write_linear(t->v, at + 5, &type, 1, GUEST_IMPLICIT);
}

static void set_segment(unsigned n, u16 selector, u64 descriptor)
{
	u64 limit = (descriptor & 0xffff) | (descriptor >> 32 & 0xf0000);
	u64 rights = descriptor >> 40 & 0xf0ff;

	if (rights & SEGMENT_G)
		limit = limit << 12 | 0xfff;
	vmwrite(VMCS_GUEST_ES + 2 * n, selector);
	vmwrite(VMCS_GUEST_ES_LIMIT + 2 * n, limit);
	vmwrite(VMCS_GUEST_ES_RIGHTS + 2 * n,
		descriptor ? rights : SEGMENT_UNUSABLE);
	vmwrite(VMCS_GUEST_ES_BASE + 2 * n, base_of(descriptor));
}

static int read_new(struct task_switch *t)
{
	bool wide = t->wide = t->descriptor & TYPE_CODE;
	u8 bytes[104] = {0};
	u64 first = wide ? 0x20 : 14, size = wide ? 4 : 2;
	int err = vcpu_read_linear(t->v, base_of(t->descriptor), bytes,
				   wide ? 104 : 44, GUEST_IMPLICIT);

	for (unsigned n = 0; n < (wide ? FIELDS : FIELDS - 2); n++)
		memcpy(&t->field[n], bytes + first + size * n, size);
	if (!wide) { /* LDTR follows DS */
		t->field[SEGMENT + LDTR] = t->field[SEGMENT + FS];
		t->field[SEGMENT + FS] = 0;
	}
	memcpy(&t->cr3, bytes + 0x1c, sizeof(t->cr3));
	t->trap = bytes[0x64] & 1;
	return err;
}

/* To the old TSS: all of it, or a page fault and nothing. */
static int save(struct task_switch *t)
{
	bool wide = vmcs_read32(VMCS_GUEST_TR_RIGHTS) & 8;
	gva_t at = vmcs_readn(VMCS_GUEST_TR_BASE) + (wide ? 0x20 : 14);
	u64 value[FIELDS], size = wide ? 4 : 2;
	unsigned count = wide ? FIELDS - 1 : FIELDS - 3;
	u8 bytes[4 * FIELDS];

	value[IP] = vmcs_readn(VMCS_GUEST_RIP);
	if (!t->ext) /* it goes on behind the instruction */
		value[IP] += vmcs_read32(VMCS_EXIT_LENGTH);
	value[FLAGS] = vmcs_readn(VMCS_GUEST_RFLAGS);
	if (t->source == BY_IRET)
		value[FLAGS] &= ~(u64)FLAGS_NT;
	for (unsigned n = 0; n < 8; n++)
		value[GPR + n] = vcpu_gpr(t->v, n);
	for (unsigned n = 0; n < 6; n++)
		value[SEGMENT + n] = vmread(VMCS_GUEST_ES + 2 * n);
	for (unsigned n = 0; n < count; n++)
		memcpy(bytes + size * n, &value[n], size);
	return vcpu_write_linear(t->v, at, bytes, size * count, GUEST_IMPLICIT);
}

/* SDM 8.3, steps 5 to 11. A fault in the midst of it is no harm: what was
 * written will be written again. */
static int leave(struct task_switch *t)
{
	bool nests = t->source == BY_CALL || t->source == BY_GATE;
	u64 old = (u64)vmcs_read32(VMCS_GUEST_TR_RIGHTS) << 40;
	gva_t at;
	int err = read_descriptor(t, t->selector, &t->descriptor, &at);

	if (!err)
		err = read_new(t);
	if (!err)
		err = save(t);
	if (!err && nests)
		err = vcpu_write_linear(t->v, base_of(t->descriptor), &t->old,
					2, GUEST_IMPLICIT);
	if (!err)
		err = write_type(t, at, t->descriptor |= TYPE_BUSY);
	if (!err && !nests)
		err = write_type(
			t, vmcs_readn(VMCS_GUEST_GDTR_BASE) + (t->old & ~7u),
			old & ~TYPE_BUSY);
	t->field[FLAGS] |= nests ? FLAGS_NT : 0;
	return err;
}

/* SDM table 8-1 */
static int check_segment(struct task_switch *t, unsigned n, u16 selector, u64 d)
{
	unsigned dpl = d >> 45 & 3, rpl = selector & 3;
	bool code = d & TYPE_CODE, open = code && d & TYPE_CONFORMING, good;

	if (n == LDTR)
		good = (d >> 40 & 0x9f) == 0x82 && !(selector & 4);
	else if (!(d & DESCRIPTOR_S))
		good = false;
	else if (n == CS)
		good = code && (open ? dpl <= rpl : dpl == rpl);
	else if (n == SS)
		good = !code && d & TYPE_BUSY && dpl == t->cpl && rpl == dpl;
	else
		good = (!code || d & TYPE_BUSY) &&
		       (open || dpl >= MAX(t->cpl, rpl));
	if (!good)
		return fault(t, VECTOR_TS, selector);
	if (!(d & DESCRIPTOR_P))
		return fault(t, n == SS ? VECTOR_SS : VECTOR_NP, selector);
	return 0;
}

/* *d: 0 for a null selector. */
static int fetch_segment(struct task_switch *t, unsigned n, u16 selector,
			 u64 *d)
{
	gva_t at;
	int err;

	*d = 0;
	if (t->field[FLAGS] & RFLAGS_VM && n != LDTR) {
		*d = 0xf3ull << 40 | (u64)selector << 20 | 0xffff;
		return 0;
	}
	if (!(selector & ~3u))
		return n == CS || n == SS ? fault(t, VECTOR_TS, 0) : 0;
	err = read_descriptor(t, selector, d, &at);
	if (!err)
		err = check_segment(t, n, selector, *d);
	if (err || *d & TYPE_ACCESSED || n == LDTR)
		return err;
	*d |= TYPE_ACCESSED;
	return write_type(t, at, *d);
}

/* CS and SS together: entry wants them of one level. */
static int load_all_segments(struct task_switch *t)
{
	static const u8 order[] = {LDTR, CS, SS, 0, 3, FS, GS};
	u64 d[7];
	int err = 0;

	set_segment(LDTR, 0, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(order) && !err; i++) {
		unsigned n = order[i];
		u16 selector = (u16)t->field[SEGMENT + n];

		err = fetch_segment(t, n, selector, &d[n]);
		if (n == SS && !err)
			set_segment(CS, (u16)t->field[SEGMENT + CS], d[CS]);
		if (n != CS && !err)
			set_segment(n, selector, d[n]);
	}
	return err;
}

/* SDM 8.3, step 12; what fails from here on is the new task's. */
static int enter(struct task_switch *t)
{
	struct vcpu *v = t->v;
	u32 blocking = vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY);

	if ((t->event & INTERRUPTION_TYPE) == INTERRUPTION_NMI)
		blocking |= BLOCKING_NMI;
	set_segment(TR, t->selector, t->descriptor);
	vmcs_writen(VMCS_GUEST_RFLAGS,
		    (t->field[FLAGS] & FLAGS_KNOWN) | RFLAGS_FIXED);
	vmcs_writen(VMCS_GUEST_RIP, t->field[IP]);
	for (unsigned n = 0; n < 8; n++)
		vcpu_set_gpr(v, n, t->field[GPR + n]);
	vmcs_writen(VMCS_GUEST_CR0, vmcs_readn(VMCS_GUEST_CR0) | CR0_TS);
	vmcs_writen(VMCS_GUEST_DR7, vmcs_readn(VMCS_GUEST_DR7) & ~DR7_LOCAL);
	vmcs_writen(VMCS_GUEST_PENDING_DEBUG, 0);
	/* NMIs are blocked from a gate that serves one to IRET. */
	if (t->source == BY_IRET)
		blocking = 0;
	vmcs_write32(VMCS_GUEST_INTERRUPTIBILITY, blocking & BLOCKING_NMI);
	t->cpl = t->field[SEGMENT + CS] & 3;
	/* The hidden parts follow; with them CS's RPL, which is to be SS's. */
	for (unsigned n = 0; n < 6; n++) {
		u64 kept = n == CS ? 3 : 0;

		vmwrite(VMCS_GUEST_ES + 2 * n,
			(vmread(VMCS_GUEST_ES + 2 * n) & kept) |
				(t->field[SEGMENT + n] & ~kept));
	}
	if (t->wide && vmcs_readn(VMCS_GUEST_CR0) & CR0_PG &&
	    vcpu_load_cr3(v, t->cr3))
		return fault(t, VECTOR_GP, 0);
	return load_all_segments(t);
}

static int push_error_code(struct task_switch *t, u32 error)
{
	bool wide = vmcs_read32(VMCS_GUEST_SS_RIGHTS) & SEGMENT_DB;
	u64 mask = wide ? 0xffffffff : 0xffff, size = t->wide ? 4 : 2;
	u64 rsp = vmcs_readn(VMCS_GUEST_RSP), at = (rsp - size) & mask;

	vmcs_writen(VMCS_GUEST_RSP, (rsp & ~mask) | at);
	at += vmread(VMCS_GUEST_ES_BASE + 2 * SS);
	return vcpu_write_linear(t->v, (u32)at, &error, size, 0);
}

enum exit_action exit_task_switch(struct vcpu *v)
{
	struct injection event = v->injection;
	struct task_switch t = {
		.v = v,
		.source = (enum source)(v->qualification >> 30 & 3),
		.event = event.info,
		.ext = event.info &&
		       (event.info & INTERRUPTION_TYPE) < INTERRUPTION_SOFTWARE,
		.old = (u16)vmread(VMCS_GUEST_ES + 2 * TR),
		.selector = (u16)v->qualification,
	};
	int err;

	lend_end(v);
	err = leave(&t);
	if (!err)
		err = enter(&t);
	if (!err && event.info & INTERRUPTION_ERROR)
		err = push_error_code(&t, event.error);
	if (err)
		return err == -EFAULT ? EXIT_RESUME : EXIT_STOP;
	v->injection.info = 0; /* till then it decided over #DF */
	if (t.trap) {
		write_dr(6, read_dr6() | DR6_BT);
		v->attention = true;
		v->injection.info = VECTOR_DB | INTERRUPTION_EXCEPTION |
				    (u32)INTERRUPTION_VALID;
	}
	return EXIT_RESUME;
}
