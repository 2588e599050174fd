/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/lapic.h"

#define ESR_RECEIVE_VECTOR BIT(6) /* SDM 10.5.3 */

/* The registers of 256 bits: one bit a vector, 32 in each word. */

static bool vector_test(const struct lapic *l, unsigned reg, unsigned v)
{
	return lapic_get(l, reg + v / 32) >> (v % 32) & 1;
}

static void vector_set(struct lapic *l, unsigned reg, unsigned v, u8 *words)
{
	lapic_set(l, reg + v / 32, lapic_get(l, reg + v / 32) | 1u << (v % 32));
	*words = (u8)(*words | 1u << (v / 32));
}

static void vector_clear(struct lapic *l, unsigned reg, unsigned v, u8 *words)
{
	u32 word = lapic_get(l, reg + v / 32) & ~(1u << (v % 32));

	lapic_set(l, reg + v / 32, word);
	if (!word)
		*words = (u8)(*words & ~(1u << (v / 32)));
}

static int vector_highest(const struct lapic *l, unsigned reg, u8 words)
{
	int word;

	if (!words)
		return -1;
	/* By XOR it is the one instruction BSR. */
	word = 31 ^ __builtin_clz(words);
	return 32 * word +
	       (31 ^ __builtin_clz(lapic_get(l, reg + (unsigned)word)));
}

u32 lapic_priority(const struct lapic *l)
{
	u32 tpr = lapic_get(l, LAPIC_TPR), class = 0;

	if (l->isr_words)
		class = (u32)vector_highest(l, LAPIC_ISR, l->isr_words) & 0xF0;
	return (tpr & 0xF0) >= class ? tpr : class;
}

int lapic_deliverable(const struct lapic *l)
{
	int v = vector_highest(l, LAPIC_IRR, l->irr_words);

	return (u32)v >> 4 > lapic_priority(l) >> 4 ? v : -1;
}

u32 lapic_held_class(const struct lapic *l)
{
	u32 class = (u32)vector_highest(l, LAPIC_IRR, l->irr_words) >> 4;
	int in_service = vector_highest(l, LAPIC_ISR, l->isr_words);

	if (class > lapic_cr8(l) || in_service >> 4 >= (int)class)
		return 0;
	return class;
}

void lapic_ack(struct lapic *l, unsigned vector)
{
	vector_clear(l, LAPIC_IRR, vector & 0xFF, &l->irr_words);
	vector_set(l, LAPIC_ISR, vector & 0xFF, &l->isr_words);
}

void lapic_level_eoi(struct lapic *l, unsigned vector)
{
	if (l->apics->eoi)
		l->apics->eoi(l->apics->ioapic, (u8)vector);
}

u16 lapic_recount(struct lapic *l)
{
	unsigned irr = 0, isr = 0;
	int rvi, svi;

	for (unsigned word = 0; word < 8; word++) {
		irr |= (lapic_get(l, LAPIC_IRR + word) ? 1u : 0) << word;
		isr |= (lapic_get(l, LAPIC_ISR + word) ? 1u : 0) << word;
	}
	l->irr_words = (u8)irr;
	l->isr_words = (u8)isr;
	rvi = vector_highest(l, LAPIC_IRR, l->irr_words);
	svi = vector_highest(l, LAPIC_ISR, l->isr_words);
	return (u16)(MAX(svi, 0) << 8 | MAX(rvi, 0));
}

static void end_highest(struct lapic *l)
{
	int v = vector_highest(l, LAPIC_ISR, l->isr_words);

	if (v < 0)
		return;
	vector_clear(l, LAPIC_ISR, (unsigned)v, &l->isr_words);
	if (vector_test(l, LAPIC_TMR, (unsigned)v))
		lapic_level_eoi(l, (unsigned)v);
}

void lapic_eoi(struct lapic *l)
{
	lapic_pv_hear(l);
	end_highest(l);
}

void lapic_pv_hear(struct lapic *l)
{
	if (!l->pv_offered)
		return;
	l->pv_offered = false;
	if (!(__atomic_fetch_and(l->pv_eoi, ~1u, __ATOMIC_RELAXED) & 1))
		end_highest(l);
}

void lapic_pv_offer(struct lapic *l)
{
	int v = vector_highest(l, LAPIC_ISR, l->isr_words);

	if (!l->pv_eoi || v < 0 || l->irr_words ||
	    vector_test(l, LAPIC_TMR, (unsigned)v))
		return;
	__atomic_fetch_or(l->pv_eoi, 1, __ATOMIC_RELAXED);
	l->pv_offered = true;
}

void lapic_pv_eoi(struct lapic *l, u32 *word)
{
	lapic_pv_hear(l);
	l->pv_eoi = word;
	if (l->attention)
		*l->attention = true;
}

void lapic_report_error(struct lapic *l, u8 error)
{
	bool is_new = !(l->errors & error);

	l->errors |= error;
	if (is_new) /* and so the error vector's own error ends here */
		lapic_lvt_deliver(l, LAPIC_LVT_ERROR);
}

static bool accept_vector(struct lapic *l, u8 vector, bool level)
{
	u8 ignored = 0;

	if (!lapic_is_enabled(l))
		return false;
	if (vector < 16) {
		lapic_report_error(l, ESR_RECEIVE_VECTOR);
		return true;
	}
	vector_set(l, LAPIC_IRR, vector, &l->irr_words);
	if (level)
		vector_set(l, LAPIC_TMR, vector, &ignored);
	else if (vector_test(l, LAPIC_TMR, vector))
		vector_clear(l, LAPIC_TMR, vector, &ignored);
	return true;
}

static bool accept_own(struct lapic *l, const struct apic_message *m)
{
	switch (m->delivery) {
	case APIC_FIXED:
	case APIC_LOWEST_PRIORITY:
		return accept_vector(l, m->vector, m->level);
	case APIC_NMI:
		l->nmi_pending = true;
		return true;
	case APIC_EXTINT:
		l->extint_pending = true;
		return true;
	default: /* there is no SMM in this machine */
		return false;
	}
}

bool lapic_accept_own(struct lapic *l, const struct apic_message *m)
{
	bool taken = accept_own(l, m);

	if (l->attention)
		*l->attention = true;
	return taken;
}

static void post_vector(struct lapic *l, const struct apic_message *m)
{
	unsigned word = m->vector / 32;
	u32 bit = 1u << m->vector % 32;

	/* The vector last: who sees it sees what it is. */
	if (m->level)
		__atomic_fetch_or(&l->posted_level[word], bit,
				  __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(&l->posted_level[word], ~bit,
				   __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&l->posted[word], bit, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&l->signals, 1u << word, __ATOMIC_SEQ_CST);
}

/* An INIT ends what came before; of several SIPIs behind it the first counts. */
static void post_start(struct lapic *l, u32 sipi)
{
	u32 old = __atomic_load_n(&l->signals, __ATOMIC_RELAXED), new;

	do {
		new = sipi ? old | sipi
			   : (old & (SIGNAL_SIPI - 1)) | SIGNAL_INIT;
		if (sipi && old & SIGNAL_SIPI)
			return;
	} while (!__atomic_compare_exchange_n(&l->signals, &old, new, false,
					      __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
}

static bool post(struct lapic *l, const struct apic_message *m)
{
	switch (m->delivery) {
	case APIC_FIXED:
	case APIC_LOWEST_PRIORITY:
		if (!lapic_is_enabled(l))
			return false;
		post_vector(l, m);
		return true;
	case APIC_NMI:
		__atomic_fetch_or(&l->signals, SIGNAL_NMI, __ATOMIC_SEQ_CST);
		return true;
	case APIC_INIT:
		post_start(l, 0);
		return true;
	case APIC_SIPI:
		post_start(l,
			   SIGNAL_SIPI | (u32)m->vector << SIGNAL_SIPI_SHIFT);
		return true;
	case APIC_EXTINT:
		__atomic_fetch_or(&l->signals, SIGNAL_EXTINT, __ATOMIC_SEQ_CST);
		return true;
	default:
		return false;
	}
}

bool lapic_accept(struct lapic *l, const struct apic_message *m)
{
	if (!post(l, m))
		return false;
	if (l->kick) {
		l->kick(l->vcpu);
		return true;
	}
	lapic_collect(l);
	if (l->attention)
		*l->attention = true;
	return true;
}

static void collect_word(struct lapic *l, unsigned word)
{
	u32 bits = __atomic_exchange_n(&l->posted[word], 0, __ATOMIC_SEQ_CST);
	u32 level = __atomic_load_n(&l->posted_level[word], __ATOMIC_SEQ_CST);

	if (!word && bits & 0xffff) {
		bits &= ~0xffffu;
		lapic_report_error(l, ESR_RECEIVE_VECTOR);
	}
	if (!bits)
		return;
	lapic_set(l, LAPIC_IRR + word, lapic_get(l, LAPIC_IRR + word) | bits);
	lapic_set(l, LAPIC_TMR + word,
		  (lapic_get(l, LAPIC_TMR + word) & ~bits) | (bits & level));
	l->irr_words = (u8)(l->irr_words | 1u << word);
}

void lapic_collect(struct lapic *l)
{
	u32 signals = __atomic_exchange_n(&l->signals, 0, __ATOMIC_SEQ_CST);

	for (u32 words = signals & 0xff; words; words &= words - 1)
		collect_word(l, (unsigned)__builtin_ctz(words));
	l->nmi_pending |= (signals & SIGNAL_NMI) != 0;
	l->extint_pending |= (signals & SIGNAL_EXTINT) != 0;
	if (signals & SIGNAL_INIT) {
		l->init_pending = true;
		l->sipi_pending = false;
	}
	if (signals & SIGNAL_SIPI && !l->sipi_pending) {
		l->sipi_pending = true;
		l->sipi_vector = (u8)(signals >> SIGNAL_SIPI_SHIFT);
	}
}

void lapic_lvt_deliver(struct lapic *l, unsigned reg)
{
	u32 lvt = lapic_get(l, reg);
	const struct apic_message m = {
		.vector = (u8)lvt,
		.delivery = APIC_DELIVERY(lvt),
	};

	if (!(lvt & LAPIC_LVT_MASKED))
		lapic_accept_own(l, &m);
}

bool lapic_accepts_pic(const struct lapic *l)
{
	u32 lvt = lapic_get(l, LAPIC_LVT_LINT0);

	return l->extint_pending || !(l->base & APIC_BASE_EN) ||
	       (!(lvt & LAPIC_LVT_MASKED) && APIC_DELIVERY(lvt) == APIC_EXTINT);
}
