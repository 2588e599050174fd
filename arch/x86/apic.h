/* SPDX-License-Identifier: MIT */
/*
 * The host's local APIC (SDM chapter 10), in the mode that it is found in or
 * in x2APIC mode where the CPU has it, and an IOAPIC's registers.
 */
#ifndef ARCH_X86_APIC_H
#define ARCH_X86_APIC_H

#include "arch/x86/types.h"

/* Byte offsets of the xAPIC page; MSR 0x800 + offset / 16 in x2APIC mode. */
enum local_apic_register {
	APIC_ID = 0x20,
	APIC_TPR = 0x80,
	APIC_EOI = 0xb0,
	APIC_SVR = 0xf0,
	APIC_IRR = 0x200, /* and seven more */
	APIC_ICR = 0x300,
	APIC_ICR_HIGH = 0x310,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_LVT_ERROR = 0x370,
	APIC_TIMER_INITIAL = 0x380,
	APIC_TIMER_CURRENT = 0x390,
	APIC_TIMER_DIVIDE = 0x3e0,
};

/*
 * Enables the calling CPU's local APIC: all LVTs masked, spurious vector
 * set. page: where the xAPIC page (MSR_APIC_BASE) is mapped; kept for all
 * CPUs. x2APIC mode is entered where firmware is in it or remapping allows
 * (x2apic).
 */
void local_apic_init(volatile void *page, bool x2apic, u8 spurious_vector);
/* Likewise a further CPU's, as the first one's was; after that. */
void local_apic_join(u8 spurious_vector);
u32 local_apic_id(void);
void local_apic_eoi(void);
/* Has the calling CPU an interrupt at this vector that it has not taken yet? */
bool local_apic_is_pending(u8 vector);
/* The ICR's low half: SDM figure 10-12. */
enum apic_icr {
	APIC_ICR_FIXED = 0x4000, /* with a vector */
	APIC_ICR_NMI = 0x4400,
	APIC_ICR_INIT = 0x4500,
	APIC_ICR_SIPI = 0x4600,	   /* with a page's number */
	APIC_ICR_OTHERS = 0xc0000, /* to all but the sender */
};

/*
 * Sends an interprocessor interrupt and waits (bounded) until it is
 * accepted. low: the ICR's low half (SDM figure 10-12). -ETIMEDOUT; -EINVAL:
 * in xAPIC mode there is no such ID.
 */
int local_apic_send(u32 apic_id, u32 low);

/*
 * The calling CPU's timer, to raise vector: by TSC deadline where there is
 * that mode and deadline allows it, else one-shot, measured against the TSC for
 * `window` of its ticks. -EIO: it does not count.
 */
int local_apic_timer_init(u8 vector, u64 window, bool deadline);
/*
 * Once, when the TSC is at deadline or soon before; ~0: never. A long one-shot
 * ends far before: who gets the interrupt looks at the TSC and sets it anew.
 */
void local_apic_timer_set(u64 deadline);

/* IOAPIC (82093AA): base is the mapped register window. */
unsigned ioapic_pins(volatile void *base);
/*
 * Redirection entry: masked while its halves are set, so that it is never live
 * half-set; not as an edge's meanwhile, which would clear Remote IRR.
 */
void ioapic_set_entry(volatile void *base, unsigned pin, u64 entry);

#define IOAPIC_MASKED BIT(16)
#define IOAPIC_LEVEL BIT(15)
#define IOAPIC_ACTIVE_LOW BIT(13)

#endif
