/* SPDX-License-Identifier: MIT */
/* Interrupts of every source, in xAPIC and then in x2APIC mode. */
#include "guests/guest.h"

#define V_IPI 0x61
#define V_HIGH 0x91
#define V_TIMER 0x71
#define V_ERROR 0x72
#define V_PIT 0x51
#define V_COM1 0x52
#define V_RTC 0x53
#define V_MASTER 0x20
#define V_SLAVE 0x28

#define LVT_MASKED BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE BIT(18)
#define RTE_NMI (4u << 8)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define MSR_TSC_DEADLINE 0x6E0
#define MSR_SELF_IPI 0x83F

#define PIN_PIT 2
#define PIN_COM1 4
#define PIN_RTC 8
#define LONG_TIME 400000000ull /* ticks; a slow rig's timers come by then */

static void test_ipi(void)
{
	send_self(V_IPI);
	for (unsigned i = 0; i < 100; i++)
		cpuid(0, 0);
	check(interrupts[V_IPI], 0); /* IF is 0 */
	check(lapic_read(LAPIC_IRR + V_IPI / 32) >> V_IPI % 32 & 1, 1);
	open_interrupts();
	check(interrupts[V_IPI], 1);
	check(lapic_read(LAPIC_IRR + V_IPI / 32), 0);
	check(lapic_read(LAPIC_ISR + V_IPI / 32), 0);
	lapic_write(LAPIC_ICR, V_IPI | 1u << 18); /* shorthand: self */
	open_interrupts();
	check(interrupts[V_IPI], 2);
}

/* STI takes effect behind the next instruction: SDM vol 2, STI. */
static void test_sti_shadow(void)
{
	u32 in_shadow, behind;

	send_self(V_IPI);
	__asm__ volatile("sti; mov %2, %0; nop; mov %2, %1; cli"
			 : "=&r"(in_shadow), "=&r"(behind)
			 : "m"(interrupts[V_IPI])
			 : "memory");
	check(in_shadow, 0);
	check(behind, 1);
	send_self(V_IPI);
	__asm__ volatile("sti; cli; nop; nop" : : : "memory");
	check(interrupts[V_IPI], 1);
	/* An instruction that exits is no other. */
	__asm__ volatile("sti; cpuid; mov %0, %%esi; cli"
			 :
			 : "m"(interrupts[V_IPI])
			 : "rax", "rbx", "rcx", "rdx", "rsi", "memory");
	check(interrupts[V_IPI], 2);
}

static u32 order[4];
static unsigned order_count;

static void note(struct frame *f)
{
	order[order_count++ & 3] = (u32)f->vector;
	lapic_write(LAPIC_EOI, 0);
}

static void test_priority(void)
{
	handlers[V_IPI] = handlers[V_HIGH] = note;
	order_count = 0;
	write_cr8(V_HIGH >> 4);
	send_self(V_IPI);
	send_self(V_HIGH);
	open_interrupts();
	check(order_count, 0);
	check(lapic_read(LAPIC_PPR), (V_HIGH >> 4) << 4);
	write_cr8((V_HIGH >> 4) - 1);
	open_interrupts();
	check(order_count, 1);
	check(order[0], V_HIGH);
	lapic_write(LAPIC_TPR, 0);
	open_interrupts();
	check(order_count, 2);
	check(order[1], V_IPI);
}

static u32 seen_inside;

static void nest(struct frame *f)
{
	(void)f;
	send_self(V_IPI);
	open_interrupts(); /* V_IPI's class is lower: it waits */
	seen_inside = interrupts[V_IPI];
	lapic_write(LAPIC_EOI, 0);
	open_interrupts();
}

static void test_nesting(void)
{
	handlers[V_HIGH] = nest;
	seen_inside = 99;
	send_self(V_HIGH);
	open_interrupts();
	check(seen_inside, 0);
	check(interrupts[V_IPI], 1);
	check(interrupts[V_HIGH], 1);
}

static u32 nmis_inside;

static void nmi_again(struct frame *f)
{
	(void)f;
	if (interrupts[VEC_NMI] > 1)
		return;
	send_self(ICR_NMI);
	cpuid(0, 0);
	nmis_inside = interrupts[VEC_NMI];
}

/* An NMI is taken with IF = 0, and the next one behind the IRET. */
static void test_nmi(void)
{
	handlers[VEC_NMI] = nmi_again;
	send_self(ICR_NMI);
	for (unsigned i = 0; i < 10; i++)
		cpuid(0, 0);
	check(nmis_inside, 1);
	check(interrupts[VEC_NMI], 2);
}

static void test_illegal_vector(void)
{
	lapic_write(LAPIC_ESR, 0);
	lapic_write(LAPIC_LVT_ERROR, V_ERROR);
	send_self(5);
	open_interrupts();
	check(interrupts[V_ERROR], 1);
	lapic_write(LAPIC_ESR, 0);
	check(lapic_read(LAPIC_ESR), BIT(5));
	lapic_write(LAPIC_ESR, 0);
	check(lapic_read(LAPIC_ESR), 0);
	lapic_write(LAPIC_LVT_ERROR, LVT_MASKED | V_ERROR);
}

/* -- the LAPIC's timer */

static void test_timer_once(void)
{
	u64 start;

	lapic_write(LAPIC_LVT_TIMER, V_TIMER);
	start = rdtsc();
	lapic_write(LAPIC_TIMER_INITIAL, 200000);
	check_true(lapic_read(LAPIC_TIMER_CURRENT) > 0);
	check_true(wait_for(V_TIMER, 1, LONG_TIME));
	if (is_monocle) /* its timer runs with the TSC */
		check_true(rdtsc() - start >= 200000);
	check(lapic_read(LAPIC_TIMER_CURRENT), 0);
	check(wait_for(V_TIMER, 2, 2000000), 0);
}

static void test_timer_hlt(void)
{
	u64 start = rdtsc();

	lapic_write(LAPIC_LVT_TIMER, V_TIMER);
	lapic_write(LAPIC_TIMER_INITIAL, 300000);
	while (!interrupts[V_TIMER])
		halt_open();
	check(interrupts[V_TIMER], 1);
	if (is_monocle)
		check_true(rdtsc() - start >= 300000);
}

static volatile u32 watched[16];

/* Ticks in C1. write: to what is watched, before; open: with IF = 1; breaks: an
 * interrupt ends it with IF = 0, too. */
static u64 sleep(bool write, bool open, bool breaks)
{
	u64 start = rdtsc();

	__asm__ volatile("monitor" : : "a"(watched), "c"(0), "d"(0) : "memory");
	if (write)
		watched[0]++;
	if (open)
		__asm__ volatile("sti; mwait; cli"
				 :
				 : "a"(0), "c"(breaks)
				 : "memory");
	else
		__asm__ volatile("mwait" : : "a"(0), "c"(breaks) : "memory");
	return rdtsc() - start;
}

static void test_mwait(void)
{
	bool breaks = cpuid(5, 0).ecx >> 1 & 1;

	if (!(cpuid(1, 0).ecx >> 3 & 1))
		return;
	check_true(sleep(true, false, breaks) < 100000);
	lapic_write(LAPIC_LVT_TIMER, V_TIMER);
	lapic_write(LAPIC_TIMER_INITIAL, 300000);
	while (!interrupts[V_TIMER])
		sleep(false, true, false);
	check(interrupts[V_TIMER], 1);
	if (!breaks)
		return;
	lapic_write(LAPIC_TIMER_INITIAL, 300000);
	while (!(lapic_read(LAPIC_IRR + V_TIMER / 32) >> V_TIMER % 32 & 1))
		sleep(false, false, true);
	/* It waits for IF: with it there is no sleep. */
	check_true(sleep(false, false, true) < 100000);
	check(interrupts[V_TIMER], 1);
	open_interrupts();
	check(interrupts[V_TIMER], 2);
}

static void test_timer_periodic(void)
{
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | V_TIMER);
	lapic_write(LAPIC_TIMER_INITIAL, 100000);
	while (interrupts[V_TIMER] < 5)
		halt_open();
	lapic_write(LAPIC_TIMER_INITIAL, 0);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	interrupts[V_TIMER] = 0;
	check(wait_for(V_TIMER, 1, 1000000), 0);
}

static void test_timer_divide(void)
{
	u64 start;

	lapic_write(LAPIC_LVT_TIMER, V_TIMER);
	lapic_write(LAPIC_TIMER_DIVIDE, 3); /* by 16 */
	start = rdtsc();
	lapic_write(LAPIC_TIMER_INITIAL, 20000);
	check_true(wait_for(V_TIMER, 1, LONG_TIME));
	check_true(rdtsc() - start >= 320000 && rdtsc() - start < 3200000);
	lapic_write(LAPIC_TIMER_DIVIDE, 0xB);
}

static void test_timer_deadline(void)
{
	u64 deadline;

	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | V_TIMER);
	deadline = rdtsc() + 300000;
	wrmsr(MSR_TSC_DEADLINE, deadline);
	check(rdmsr(MSR_TSC_DEADLINE), deadline);
	while (!interrupts[V_TIMER])
		halt_open();
	check_true(rdtsc() >= deadline);
	if (is_monocle) /* Bochs 2.7 shows the old one */
		check(rdmsr(MSR_TSC_DEADLINE), 0);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 300000);
	wrmsr(MSR_TSC_DEADLINE, 0); /* disarmed */
	check(wait_for(V_TIMER, 2, 2000000), 0);
	wrmsr(MSR_TSC_DEADLINE, 1); /* past: at once */
	open_interrupts();
	check(interrupts[V_TIMER], 2);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
}

/* -- lines: PIT, UART, RTC through the IOAPIC and the 8259 */

static void test_pit_ioapic(void)
{
	ioapic_route(PIN_PIT, V_PIT);
	pit_periodic(2000);
	check_true(wait_for(V_PIT, 4, LONG_TIME));
	ioapic_route(PIN_PIT, V_PIT | RTE_MASKED);
	open_interrupts();
	interrupts[V_PIT] = 0;
	check(wait_for(V_PIT, 1, 2000000), 0);
	pit_periodic(0);
}

static void test_nmi_wakes(void)
{
	ioapic_route(PIN_PIT, RTE_NMI);
	pit_periodic(2000);
	while (interrupts[VEC_NMI] < 3)
		__asm__ volatile("cli; hlt" : : : "memory");
	pit_periodic(0);
	ioapic_route(PIN_PIT, RTE_MASKED);
	check_true(interrupts[VEC_NMI] >= 3);
}

static u32 remote_irr;

/* The first time its cause stays, so that it comes again after the EOI. */
static void com1_handler(struct frame *f)
{
	(void)f;
	remote_irr = ioapic_read(0x10 + 2 * PIN_COM1) & RTE_REMOTE_IRR;
	if (interrupts[V_COM1] == 2)
		check(inb(0x3FA) & 0xf, 2); /* transmitter empty; cleared */
	lapic_write(LAPIC_EOI, 0);
}

static void test_level(void)
{
	handlers[V_COM1] = com1_handler;
	ioapic_route(PIN_COM1, V_COM1 | RTE_LEVEL);
	outb(0x3FC, 0x0b); /* OUT2: the line reaches the controllers */
	outb(0x3F9, 2);	   /* transmitter empty */
	check_true(wait_for(V_COM1, 2, LONG_TIME));
	check(remote_irr, RTE_REMOTE_IRR);
	check(wait_for(V_COM1, 3, 1000000), 0);
	check(ioapic_read(0x10 + 2 * PIN_COM1) & RTE_REMOTE_IRR, 0);
	outb(0x3F9, 0);
	ioapic_route(PIN_COM1, RTE_MASKED);
}

static u8 rtc_read(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void rtc_write(u8 reg, u8 value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static void rtc_handler(struct frame *f)
{
	rtc_read(0x0c);
	if (f->vector != V_RTC) {
		outb(0xA0, 0x20);
		outb(0x20, 0x20);
	} else {
		lapic_write(LAPIC_EOI, 0);
	}
}

static void rtc_periodic(bool on)
{
	rtc_write(0x0a, 0x26); /* 1024 Hz */
	rtc_write(0x0b, on ? 0x42 : 0x02);
	rtc_read(0x0c);
}

static void test_rtc_ioapic(void)
{
	handlers[V_RTC] = rtc_handler;
	ioapic_route(PIN_RTC, V_RTC);
	rtc_periodic(true);
	check_true(wait_for(V_RTC, 3, LONG_TIME));
	rtc_periodic(false);
	ioapic_route(PIN_RTC, RTE_MASKED);
}

static void pit_handler(struct frame *f)
{
	(void)f;
	outb(0x20, 0x20);
}

/* The 8259s' interrupts enter as ExtINT at LINT0. */
static void test_pics(void)
{
	handlers[V_MASTER] = pit_handler;
	handlers[V_SLAVE] = rtc_handler;
	lapic_write(LAPIC_LVT_LINT0, 7u << 8);
	outb(0x21, 0xfa); /* the PIT and the cascade */
	outb(0xA1, 0xfe); /* the RTC */
	pit_periodic(3000);
	rtc_periodic(true);
	check_true(wait_for(V_MASTER, 3, LONG_TIME));
	check_true(wait_for(V_SLAVE, 3, LONG_TIME));
	rtc_periodic(false);
	pit_periodic(0);
	outb(0x21, 0xff);
	outb(0xA1, 0xff);
	open_interrupts();
	lapic_write(LAPIC_LVT_LINT0, LVT_MASKED);
}

/* -- x2APIC: SDM 10.12 */

static void apic_base(void *value)
{
	wrmsr(MSR_APIC_BASE, (u64)value);
}

static void test_x2apic_enter(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	check(attempt(apic_base, (void *)((base & ~BIT(11)) | BIT(10))),
	      VEC_GP);
	wrmsr(MSR_APIC_BASE, base | BIT(10));
	wrmsr(MSR_APIC_BASE, base | BIT(10)); /* Bochs 2.7: LDR only now */
	x2apic = true;
	check(rdmsr(MSR_APIC_BASE), base | BIT(10));
	check(attempt(apic_base, (void *)base), VEC_GP); /* no way back */
	check(lapic_read(LAPIC_LDR), 1u << (lapic_read(LAPIC_ID) & 15));
	lapic_on();
}

static void read_x2apic(void *arg)
{
	rdmsr(0x800 + (u32)(u64)arg);
}

static void write_x2apic(void *arg)
{
	wrmsr(0x800 + (u32)((u64)arg >> 32), (u32)(u64)arg);
}

static void test_x2apic_faults(void)
{
	static const u8 closed[] = {0x00,	    0x01,      LAPIC_DFR,
				    LAPIC_ICR_HIGH, LAPIC_EOI, LAPIC_SELF_IPI};

	for (unsigned i = 0; i < COUNT(closed); i++)
		if (attempt(read_x2apic, (void *)(u64)closed[i]) != VEC_GP)
			check(closed[i], VEC_GP);
	check(attempt(write_x2apic, (void *)((u64)LAPIC_VERSION << 32)),
	      VEC_GP);
	check(attempt(write_x2apic, (void *)((u64)LAPIC_TPR << 32 | 0x100)),
	      VEC_GP);
	check(attempt(write_x2apic, (void *)((u64)LAPIC_EOI << 32 | 1)),
	      VEC_GP);
}

static void test_self_ipi(void)
{
	wrmsr(MSR_SELF_IPI, V_IPI);
	open_interrupts();
	check(interrupts[V_IPI], 1);
}

static void registers(u32 count)
{
	for (u32 n = 0; n < count; n++) {
		lapic_write(LAPIC_TPR, n & 0xff);
		check(lapic_read(LAPIC_TPR), n & 0xff);
		check(lapic_read(LAPIC_PPR), n & 0xff);
		lapic_read(LAPIC_SVR);
		lapic_read(LAPIC_TMR);
	}
	lapic_write(LAPIC_TPR, 0);
}

static void self_ipis(u32 count)
{
	u32 before = interrupts[V_IPI];

	for (u32 n = 0; n < count; n++) {
		wrmsr(MSR_SELF_IPI, V_IPI);
		open_interrupts();
	}
	check(interrupts[V_IPI] - before, count);
}

#define MSR_PV_EOI 0x4b564d04 /* KVM's */

static volatile u32 pv_eoi;

static void paravirtual(struct frame *f)
{
	bool ended;

	(void)f;
	__asm__ volatile("btrl $0, %0; setc %1" : "+m"(pv_eoi), "=q"(ended));
	if (!ended)
		lapic_write(LAPIC_EOI, 0);
}

static void test_pv_eoi(void)
{
	if (!(cpuid(0x40000101, 0).eax >> 6 & 1))
		return;
	handlers[V_IPI] = handlers[V_HIGH] = paravirtual;
	wrmsr(MSR_PV_EOI, (u64)&pv_eoi | 1);
	count_exits("paravirtual eoi", self_ipis, 1000);
	send_self(V_IPI);
	send_self(V_HIGH);
	open_interrupts();
	open_interrupts();
	check(interrupts[V_IPI], 1001);
	check(interrupts[V_HIGH], 1);
	check(lapic_read(LAPIC_ISR + V_IPI / 32), 0);
	wrmsr(MSR_PV_EOI, 0);
	check(pv_eoi, 0);
}

static void test_x2apic_exits(void)
{
	count_exits("x2apic registers", registers, 1000);
	count_exits("x2apic self-ipi", self_ipis, 1000);
}

/* One waits for IF, and a timer of the host's is due meanwhile. */
static void test_if_off(void)
{
	u64 start;

	if (!x2apic)
		test_x2apic_enter();
	lapic_write(LAPIC_LVT_TIMER, V_TIMER);
	lapic_write(LAPIC_TIMER_INITIAL, 200000);
	open_interrupts();
	wrmsr(MSR_SELF_IPI, V_IPI);
	start = rdtsc();
	while (rdtsc() - start < 1000000)
		relax();
	check(interrupts[V_IPI], 0);
	open_interrupts();
	check(interrupts[V_IPI], 1);
	check_true(wait_for(V_TIMER, 1, LONG_TIME));
}

/* Off and on again: SDM figure 10-28. */
static void test_apic_off(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	wrmsr(MSR_APIC_BASE, base & ~(BIT(11) | BIT(10)));
	check(read32(LAPIC_PAGE + 16 * LAPIC_VERSION), 0xffffffff);
	wrmsr(MSR_APIC_BASE, (base & ~BIT(10)) | BIT(11));
	x2apic = false;
	check(read32(LAPIC_PAGE + 16 * LAPIC_VERSION) & 0xff, 0x14);
	lapic_on();
	send_self(V_IPI);
	open_interrupts();
	check(interrupts[V_IPI], 1);
}

const struct test apic_tests[] = {
	{"ipi", test_ipi, false},
	{"sti-shadow", test_sti_shadow, false},
	{"priority", test_priority, false},
	{"nesting", test_nesting, false},
	{"nmi", test_nmi, false},
	{"illegal-vector", test_illegal_vector, true},
	{"timer-once", test_timer_once, false},
	{"timer-hlt", test_timer_hlt, false},
	{"mwait", test_mwait, false},
	{"timer-periodic", test_timer_periodic, false},
	{"timer-divide", test_timer_divide, true},
	{"timer-deadline", test_timer_deadline, false},
	{"pit-ioapic", test_pit_ioapic, false},
	{"nmi-wakes", test_nmi_wakes, false},
	{"level", test_level, true},
	{"rtc-ioapic", test_rtc_ioapic, false},
	{"pics", test_pics, false},
	{"x2apic-enter", test_x2apic_enter, false},
	{"x2apic-faults", test_x2apic_faults, false},
	{"x2apic-ipi", test_ipi, false},
	{"x2apic-self-ipi", test_self_ipi, false},
	{"x2apic-exits", test_x2apic_exits, true},
	{"x2apic-pv-eoi", test_pv_eoi, true},
	{"x2apic-if-off", test_if_off, false},
	{"x2apic-priority", test_priority, false},
	{"x2apic-nmi", test_nmi, false},
	{"x2apic-illegal-vector", test_illegal_vector, true},
	{"x2apic-timer-once", test_timer_once, false},
	{"x2apic-timer-periodic", test_timer_periodic, false},
	{"x2apic-timer-deadline", test_timer_deadline, false},
	{"x2apic-pit", test_pit_ioapic, false},
	{"x2apic-level", test_level, true},
	{"apic-off", test_apic_off, true},
};
const unsigned apic_test_count = COUNT(apic_tests);
