/* SPDX-License-Identifier: MIT */
/*
 * Local APIC (SDM vol 3 chapter 10): xAPIC and x2APIC mode, one for each
 * vCPU. The APIC timer's input clock, which the divide configuration register
 * divides, has the frequency of the TSC. Moving the page away from its default
 * place works where the guest has no memory there.
 */
#ifndef VMM_DEVMODEL_LAPIC_H
#define VMM_DEVMODEL_LAPIC_H

#include "arch/x86/types.h"
#include "vmm/core/bus.h"
#include "vmm/core/vclock.h"
#include "vmm/devmodel/apic_bus.h"

#define MSR_X2APIC 0x800
#define LAPIC_DEFAULT_BASE 0xFEE00000ull

/* Index of a register: its offset in the page / 16, its MSR - 0x800. */
enum lapic_register {
	LAPIC_ID = 0x02,
	LAPIC_VERSION = 0x03,
	LAPIC_TPR = 0x08,
	LAPIC_APR = 0x09,
	LAPIC_PPR = 0x0A,
	LAPIC_EOI = 0x0B,
	LAPIC_RRD = 0x0C,
	LAPIC_LDR = 0x0D,
	LAPIC_DFR = 0x0E,
	LAPIC_SVR = 0x0F,
	LAPIC_ISR = 0x10, /* to 0x17 */
	LAPIC_TMR = 0x18, /* to 0x1F */
	LAPIC_IRR = 0x20, /* to 0x27 */
	LAPIC_ESR = 0x28,
	LAPIC_ICR = 0x30,
	LAPIC_ICR_HIGH = 0x31, /* xAPIC only */
	LAPIC_LVT_TIMER = 0x32,
	LAPIC_LVT_THERMAL = 0x33,
	LAPIC_LVT_PERF = 0x34,
	LAPIC_LVT_LINT0 = 0x35,
	LAPIC_LVT_LINT1 = 0x36,
	LAPIC_LVT_ERROR = 0x37,
	LAPIC_TIMER_INITIAL = 0x38,
	LAPIC_TIMER_CURRENT = 0x39,
	LAPIC_TIMER_DIVIDE = 0x3E,
	LAPIC_SELF_IPI = 0x3F, /* x2APIC only */
	LAPIC_REGISTERS = 0x40,
};

#define LAPIC_LVT_MASKED BIT(16)
#define LAPIC_SVR_ENABLE BIT(8)

/* IA32_APIC_BASE: SDM 10.4.4 and 10.12.1. */
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_EXTD BIT(10)
#define APIC_BASE_EN BIT(11)

enum lapic_signal {
	SIGNAL_NMI = 1u << 8,
	SIGNAL_EXTINT = 1u << 9,
	SIGNAL_INIT = 1u << 10,
	SIGNAL_SIPI = 1u << 11,
	SIGNAL_SIPI_SHIFT = 16, /* its vector */
};

struct lapic {
	/*
	 * The registers, laid out as the page that VMX calls the virtual-APIC
	 * page (SDM 29.1.1). Register r is page[4 * r].
	 */
	_Alignas(4096) u32 page[1024];
	/*
	 * What CPUs and devices send, from any CPU, by locked instructions;
	 * lapic_collect() takes it on the vCPU's own. The vectors lie as in
	 * the IRR and TMR, as posted interrupts do (SDM 30.6).
	 */
	_Alignas(64) u32 posted[8];
	u32 posted_level[8];
	u32 signals; /* enum lapic_signal; the low 8: words of posted */

	_Alignas(64) u32 id;
	u8 irr_words, isr_words; /* bit n: word n of the register is not 0 */
	bool pv_offered;	 /* bit 0 of *pv_eoi was set for the highest */
	u8 errors;		 /* what the next write of ESR shows */

	/* For the vCPU loop, which clears what it has taken. */
	bool *attention; /* set when something comes; or NULL */
	bool nmi_pending;
	bool init_pending; /* then call lapic_init_signal() */
	bool sipi_pending;
	bool extint_pending; /* by a message; taken with pic_ack() */
	u8 sipi_vector;

	u32 *pv_eoi;  /* in the guest's RAM; NULL: off */
	u64 base;     /* IA32_APIC_BASE */
	u64 deadline; /* of the timer, TSC ticks; 0: not armed */
	u64 base_reserved;
	struct vtimer timer;
	struct vclock *clock;
	struct apic_bus *apics;
	struct bus *bus;
	/* Has the vCPU look; NULL: what is sent is collected at once. */
	void (*kick)(void *vcpu);
	void *vcpu;
};

_Static_assert(sizeof(((struct lapic *)0)->page) == 4096, "SDM 29.1.1");
_Static_assert(offsetof(struct lapic, page) == 0, "the page is aligned");

/*
 * Puts a LAPIC on apics (the first is the bootstrap processor's) and its
 * registers on bus, which is the vCPU's own where there are several. All
 * pointers are kept. phys_bits: guest-physical address width, bits.
 * Returns 0, -ENOSPC or -EEXIST; the state is that after power-on.
 */
int lapic_init(struct lapic *l, struct apic_bus *apics, struct bus *bus,
	       struct vclock *clock, u32 id, unsigned phys_bits);
void lapic_reset(struct lapic *l);

/* INIT (SDM 10.4.7.3): registers as after reset, ID and mode stay. */
void lapic_init_signal(struct lapic *l);

/* May a read in x2APIC mode be one of the page's? So it is with APICv. */
bool lapic_is_plain(unsigned reg);
/* With APICv: the guest has written it; the value is in the page. */
void lapic_written(struct lapic *l, unsigned reg);

/*
 * What firmware leaves on the bootstrap processor: virtual-wire mode
 * (MP specification 3.6.2.2), for a guest that has no firmware.
 */
void lapic_virtual_wire(struct lapic *l);

static inline u32 lapic_get(const struct lapic *l, unsigned reg)
{
	return __atomic_load_n(&l->page[4ul * reg], __ATOMIC_RELAXED);
}

static inline void lapic_set(struct lapic *l, unsigned reg, u32 value)
{
	__atomic_store_n(&l->page[4ul * reg], value, __ATOMIC_RELAXED);
}

static inline bool lapic_is_x2apic(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED) & APIC_BASE_EXTD;
}

/* Will the LAPIC take interrupts that messages bring? (SDM 10.4.7.2) */
static inline bool lapic_is_enabled(const struct lapic *l)
{
	return lapic_get(l, LAPIC_SVR) & LAPIC_SVR_ENABLE;
}

/* lapic_accept.c: what a LAPIC takes and gives to its CPU (SDM 10.8) */

/* The processor priority register: SDM 10.8.3.1. */
u32 lapic_priority(const struct lapic *l);

/* A message that addresses this LAPIC, from any CPU; true if it took it. */
bool lapic_accept(struct lapic *l, const struct apic_message *m);
/* Its own CPU's: in force at once. */
bool lapic_accept_own(struct lapic *l, const struct apic_message *m);
/* What others have sent becomes IRR, TMR and the words below `signals`. */
void lapic_collect(struct lapic *l);
/* Its own interrupt, as LVT register reg says. */
void lapic_lvt_deliver(struct lapic *l, unsigned reg);
/* A bit of the ESR (SDM 10.5.3), with the error's interrupt. */
void lapic_report_error(struct lapic *l, u8 error);

/* Highest vector in the IRR above the PPR, or -1; irr_words is not 0. */
int lapic_deliverable(const struct lapic *l);

/* The vector to deliver next, or -1. */
static inline int lapic_pending(const struct lapic *l)
{
	return l->irr_words ? lapic_deliverable(l) : -1;
}

/*
 * The priority class of the highest vector in the IRR, if the TPR alone holds
 * it back, or 0; irr_words is not 0. Never above the TPR's.
 */
u32 lapic_held_class(const struct lapic *l);

/* The CPU took the vector that lapic_pending() gave: IRR to ISR. */
void lapic_ack(struct lapic *l, unsigned vector);
void lapic_eoi(struct lapic *l);
/*
 * Paravirtual EOI: word in the guest's RAM, or NULL. Offered for a vector behind
 * which nothing waits, neither a lower one nor an IOAPIC; the guest ends it by
 * clearing bit 0. Whoever looks at IRR and ISR hears of it first, and what is
 * about to be sent has to be heard of before it is offered.
 */
void lapic_pv_eoi(struct lapic *l, u32 *word);
void lapic_pv_offer(struct lapic *l);
void lapic_pv_hear(struct lapic *l);

/* With APICv: that of a level interrupt, which the CPU has ended. */
void lapic_level_eoi(struct lapic *l, unsigned vector);
/*
 * With APICv the CPU has changed IRR and ISR. Returns the highest vector of
 * the IRR, or 0, and that of the ISR << 8: RVI and SVI (SDM 25.4.2).
 */
u16 lapic_recount(struct lapic *l);

/* CR8 is bits 7:4 of the TPR (SDM 10.8.6). */
static inline u64 lapic_cr8(const struct lapic *l)
{
	return lapic_get(l, LAPIC_TPR) >> 4;
}

static inline void lapic_set_cr8(struct lapic *l, u64 cr8)
{
	lapic_set(l, LAPIC_TPR, (u32)(cr8 & 0xF) << 4);
}

/* Does the 8259's INTR reach this CPU? (SDM 10.1, 10.4.3) */
bool lapic_accepts_pic(const struct lapic *l);

#endif
