/* SPDX-License-Identifier: MIT */
/*
 * For test_smp_threads.py: Monocle's own loop on CPUs that are threads, under
 * ThreadSanitizer. A CPU is what vmx_enter() and cpu_sleep() do here: a guest
 * that sends, touches memory by translations that it keeps, as a TLB does, and
 * leaves by exits; and NMIs, which arrive wherever a CPU looks.
 *
 * SEED SECONDS: all CPUs storm, the first one stops and starts the others, and
 * all storm again. Status 0: nothing was lost (or took as many seconds), none
 * came twice, no page was read that had been taken away.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "arch/x86/vmx/ept.h"
#include "arch/x86/vmx/vmx_check.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/park.h"
#include "kernel/percpu.h"
#include "kernel/phys.h"
#include "kernel/traps.h"
#include "vmm/devmodel/apic_bus.h"
#include "vmm/vcpu/exits.h"
#include "vmm/vcpu/vcpu.h"

#define CPUS 4
#define ROUNDS 150	    /* what each CPU sends in a storm */
#define COUNT 8		    /* starts of each further CPU */
#define TICKS 1000000000ull /* of rdtsc(), which counts nanoseconds */
#define PAGES 512
#define ARENA 0x100000ull  /* where the pages are, host-physical */
#define MAPPED 0x400000ull /* the guest's page that moves */
#define NOBODYS 0x800000ull
#define GOOD 0x600d600du
#define GONE 0xdeadbeefu
#define PORT_MAP 0x10 /* moves the page */
#define PORT_COUNT 0x11
#define PORT_END 0x12
#define V_SENT 0x40 /* vectors, 16 of each sender's own */
#define V_ECHO 9
#define V_ANSWER 10
#define IF 0x200u

#define load(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define store(p, value) __atomic_store_n(p, value, __ATOMIC_SEQ_CST)
#define add(p, value) __atomic_add_fetch(p, value, __ATOMIC_SEQ_CST)

enum stage { BEGIN, STORM, STARTS, AGAIN, OVER };

/* What a further CPU does while it waits for its INIT. */
enum idle { SPINS, TOUCHES, EXITS, HALTS, IDLES };

struct cpu {
	struct vcpu v;
	struct lapic lapic;
	struct bus bus;
	struct percpu *host;
	pthread_t thread;
	bool nmi; /* on its way to this CPU */
	bool irq; /* a device's, which waits for IF of Monocle's */
	u32 asleep, taken;
	u64 vmcs[0x8000];
	/* The guest's */
	u32 received[256], due[256]; /* due: by who sends it */
	u32 lives, idle, nmi_lock;
	unsigned boot, sent, starts, awaited, eois;
	bool ended, answers[CPUS];
	u64 random;
	struct {
		const u32 *at; /* NULL: it waits for nothing */
		u32 value;
		bool may_halt;
		u32 *unlocks;
		u64 since;
	} wait;
	u64 page, hole; /* what the TLB has of MAPPED and NOBODYS; 0: nothing */
};

static struct cpu cpus[CPUS];
static struct vm vm;
static struct ept ept;
static struct apic_bus apics;
static struct pic pic, no_pic;
static struct vmx_capabilities capabilities = {.cpu = 0x84006172,
					       .ept_2m = true,
					       .monitor_trap = true,
					       .preemption_max = ~0u};
static u32 stage, ended;
static unsigned long seed, patience;
static __thread struct cpu *me;

static void fail(const char *what, u64 a, u64 b)
{
	fprintf(stderr, "smp: CPU %u: %s: %lx, %lx\n",
		me ? (unsigned)(me - cpus) : 99, what, a, b);
	_Exit(1);
}

static u32 random_below(u32 below)
{
	me->random ^= me->random >> 12;
	me->random ^= me->random << 25;
	me->random ^= me->random >> 27;
	return (u32)((me->random * 0x2545F4914F6CDD1Dull >> 33) % below);
}

/* -- the machine */

static u8 arena[PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static u8 used[PAGES];
static pthread_mutex_t arena_lock = PTHREAD_MUTEX_INITIALIZER;

void *page_alloc(void)
{
	pthread_mutex_lock(&arena_lock);
	for (unsigned n = 0; n < PAGES; n++)
		if (!used[n]) {
			used[n] = 1;
			memset(arena[n], 0, PAGE_SIZE);
			pthread_mutex_unlock(&arena_lock);
			return arena[n];
		}
	fail("no memory", 0, 0);
	return NULL;
}

/* What still walks it sees a race, or another's words. */
void page_free(void *page)
{
	pthread_mutex_lock(&arena_lock);
	memset(page, 0xa5, PAGE_SIZE);
	used[((u8 *)page - arena[0]) / PAGE_SIZE] = 0;
	pthread_mutex_unlock(&arena_lock);
}

void *stack_alloc(void)
{
	return page_alloc();
}

void *phys_to_virt(hpa_t hpa)
{
	if (hpa - ARENA >= sizeof(arena))
		fail("no memory at", hpa, 0);
	return arena[0] + (hpa - ARENA);
}

hpa_t virt_to_phys(const void *p)
{
	return ARENA + (u64)((const u8 *)p - arena[0]);
}

u64 rdtsc(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * TICKS + (u64)now.tv_nsec;
}

/* An NMI outside of the guest: its handler. Others have a turn, too. */
static void look(void)
{
	if (me && !random_below(16))
		sched_yield();
	if (me && __atomic_exchange_n(&me->nmi, false, __ATOMIC_SEQ_CST))
		percpu_nmi(me->host);
}

void cpu_relax(void)
{
	look();
	sched_yield();
}

u64 vmread(u64 field)
{
	look();
	return me->vmcs[field];
}

void vmwrite(u64 field, u64 value)
{
	look();
	me->vmcs[field] = value;
}

void mmio_write64(volatile void *p, u64 value)
{
	store((volatile u64 *)p, value);
}

int local_apic_send(u32 apic_id, u32 low)
{
	if (low != APIC_ICR_NMI)
		fail("an IPI", apic_id, low);
	store(&cpus[apic_id].nmi, true);
	return 0;
}

void cpu_sleep(const void *line, u32 hint)
{
	(void)line, (void)hint;
	store(&me->asleep, 1);
	while (!me->host->attention) {
		if (load(&stage) == OVER)
			pthread_exit(NULL);
		cpu_relax();
	}
}

void vmx_invept(const struct vmx_capabilities *cap, u64 eptp)
{
	(void)cap, (void)eptp;
	me->page = me->hole = 0;
}

/* As hardware walks: SDM 29.3.2. */
static u64 walk(gpa_t gpa)
{
	u64 entry = ept.eptp;

	for (unsigned level = 4; level--;) {
		const u64 *table = phys_to_virt(entry & 0xffffffffff000);

		if (!random_below(2))
			sched_yield(); /* it may walk for long */
		entry = load(&table[gpa >> (12 + 9 * level) & 511]);
		if (!(entry & 7))
			return 0;
		if (level && entry & EPT_PS)
			fail("a large page", gpa, entry);
	}
	return entry & 0xffffffffff000;
}

/* -- devices, under the lock */

static u64 counted;

static int count_access(void *dev, struct bus_access *a)
{
	(void)dev, (void)a;
	counted++;
	return 0;
}

/* What serves a host interrupt is a device's, too. */
void cpu_take_interrupts(void)
{
	if (!__atomic_exchange_n(&me->irq, false, __ATOMIC_SEQ_CST))
		return;
	if (load(&vm.lock.next) == load(&vm.lock.owner))
		fail("an interrupt without the lock", 0, 0);
	add(&me->taken, 1);
}

static void fill(u32 *page, u32 value)
{
	for (unsigned n = 0; n < 16; n++)
		page[n] = value;
}

/* As a BAR moves: elsewhere from now on, and what was there is another's. */
static int map_access(void *dev, struct bus_access *a)
{
	static u32 *page;
	struct region r = {.gpa = MAPPED,
			   .size = PAGE_SIZE,
			   .cpu = EPT_R,
			   .memtype = MEMTYPE_WB,
			   .kind = REGION_DEVICE};
	u32 *old = page;

	(void)dev, (void)a;
	page = page_alloc();
	fill(page, GOOD);
	r.hpa = virt_to_phys(page);
	vm_change_begin(&vm);
	if (ept_unmap(&ept, MAPPED, PAGE_SIZE) || ept_map(&ept, &r))
		fail("the map", 0, 0);
	vm_change_end(&vm);
	if (old) {
		fill(old, GONE);
		page_free(old);
	}
	return 0;
}

static int end_access(void *dev, struct bus_access *a)
{
	(void)dev, (void)a;
	vm_request(&vm, VM_POWER_OFF);
	return 0;
}

/* -- exits: of the instruction's decoding nothing is looked at here */

enum exit_action exit_wrmsr(struct vcpu *v)
{
	struct bus_access a = {.addr = v->gpr[GPR_RCX],
			       .size = 8,
			       .write = true,
			       .value =
				       v->gpr[GPR_RDX] << 32 | v->gpr[GPR_RAX]};

	return bus_dispatch(v->bus, BUS_MSR, &a) ? EXIT_GP : EXIT_SKIP;
}

enum exit_action exit_io(struct vcpu *v)
{
	struct bus_access a = {
		.addr = v->gpr[GPR_RDX], .size = 1, .write = true};

	return vm_dispatch(v->vm, BUS_PORT, &a) ? EXIT_GP : EXIT_SKIP;
}

enum exit_action exit_ept_violation(struct vcpu *v)
{
	return exit_lend(v);
}

#define HANDLER(name)                         \
	enum exit_action name(struct vcpu *v) \
	{                                     \
		(void)v;                      \
		return EXIT_STOP;             \
	}
HANDLER(exit_control_register)
HANDLER(exit_task_switch)
HANDLER(exit_xsetbv)
HANDLER(exit_rdmsr)
HANDLER(exit_hypercall)

/* -- the guest */

static bool leave_by(u32 reason)
{
	me->vmcs[VMCS_EXIT_REASON] = reason;
	me->vmcs[VMCS_EXIT_LENGTH] = 2;
	return true;
}

static bool wrmsr_exit(u32 msr, u64 value)
{
	me->v.gpr[GPR_RCX] = msr;
	me->v.gpr[GPR_RAX] = (u32)value;
	me->v.gpr[GPR_RDX] = value >> 32;
	return leave_by(EXIT_WRMSR);
}

static bool send(u32 dest, u32 low)
{
	return wrmsr_exit(0x830, (u64)dest << 32 | low);
}

static bool out(u16 port)
{
	me->v.gpr[GPR_RDX] = port;
	return leave_by(EXIT_IO);
}

static u32 vector_of(const struct cpu *c, u32 n)
{
	return V_SENT + 16 * (u32)(c - cpus) + n;
}

static void await(const u32 *at, u32 value, bool may_halt, u32 *unlocks)
{
	me->wait.at = at;
	me->wait.value = value;
	me->wait.may_halt = may_halt;
	me->wait.unlocks = unlocks;
	me->wait.since = rdtsc();
}

/* Who waits too long has lost it. */
static void be_patient(void)
{
	if (me->wait.at && rdtsc() - me->wait.since > patience)
		fail("lost", load(me->wait.at), me->wait.value);
	sched_yield();
}

static bool wait(void)
{
	if (load(me->wait.at) != me->wait.value) {
		be_patient();
		return me->wait.may_halt && random_below(2) &&
		       leave_by(EXIT_HLT);
	}
	if (me->wait.unlocks)
		store(me->wait.unlocks, 0);
	me->wait.at = NULL;
	return false;
}

static bool touch(u64 gpa, u64 *tlb, u32 want)
{
	u32 found;

	if (!*tlb)
		*tlb = walk(gpa);
	if (!*tlb) {
		me->vmcs[VMCS_GUEST_PHYSICAL] = gpa;
		return leave_by(EXIT_EPT_VIOLATION);
	}
	found = *(const u32 *)phys_to_virt(*tlb);
	if (found != want)
		fail("what is read", gpa, found);
	return false;
}

static bool is_acknowledged(u32 vector, u32 mask)
{
	for (u32 n = 0; n < CPUS; n++)
		if (mask >> n & 1 &&
		    load(&cpus[n].received[vector]) != cpus[n].due[vector])
			return false;
	return true;
}

/* An IRR has one bit for a vector: none before the last has come. */
static bool send_vector(u32 mask, u32 dest, u32 how)
{
	u32 vector = vector_of(me, random_below(8));

	if (!mask || !is_acknowledged(vector, mask))
		return false;
	for (u32 n = 0; n < CPUS; n++)
		cpus[n].due[vector] += mask >> n & 1;
	me->sent++;
	return send(dest, how | vector);
}

static bool send_echo(struct cpu *target)
{
	u32 answer = vector_of(me, V_ANSWER);

	target->due[vector_of(me, V_ECHO)]++;
	me->due[answer]++;
	await(&me->received[answer], me->due[answer], true, NULL);
	me->sent++;
	return send((u32)(target - cpus), vector_of(me, V_ECHO));
}

/* One at a time for each CPU; an NMI has no vector. */
static bool send_nmi(struct cpu *target)
{
	if (__atomic_exchange_n(&target->nmi_lock, 1, __ATOMIC_SEQ_CST))
		return false;
	target->due[2]++;
	await(&target->received[2], target->due[2], false, &target->nmi_lock);
	me->sent++;
	return send((u32)(target - cpus), 4 << 8);
}

static bool storm(void)
{
	u32 own = 1u << (me - cpus), n = random_below(CPUS);
	u32 mask = random_below(1 << CPUS);

	switch (random_below(9)) {
	case 0:
	case 1:
		return send_vector(1u << n, n, 0);
	case 2:
		return send_vector(~own & (BIT(CPUS) - 1), 0, 3u << 18);
	case 3:
		return send_vector(mask, mask, 1u << 11);
	case 4:
		return &cpus[n] != me && send_echo(&cpus[n]);
	case 5:
		return &cpus[n] != me && send_nmi(&cpus[n]);
	case 6:
		return out(random_below(4) ? PORT_COUNT : PORT_MAP);
	case 7:
		return touch(MAPPED, &me->page, GOOD);
	default:
		return touch(NOBODYS, &me->hole, ~0u);
	}
}

static bool is_settled(void)
{
	for (u32 n = 0; n < 8; n++)
		if (!is_acknowledged(vector_of(me, n), BIT(CPUS) - 1))
			return false;
	return true;
}

/* The last one that has ended is who goes on; who sleeps is woken. */
static bool end_storm(void)
{
	if (!me->ended && is_settled()) {
		me->ended = true;
		if (add(&ended, 1) == CPUS)
			store(&stage, load(&stage) + 1);
	}
	sched_yield();
	return false;
}

static bool idle(void)
{
	switch (load(&me->idle)) {
	case TOUCHES:
		return random_below(2) ? touch(MAPPED, &me->page, GOOD)
				       : touch(NOBODYS, &me->hole, ~0u);
	case EXITS:
		return out(random_below(4) ? PORT_COUNT : PORT_MAP);
	case HALTS:
		me->vmcs[VMCS_GUEST_RFLAGS] &= ~(u64)IF;
		return leave_by(EXIT_HLT);
	default:
		sched_yield();
		return false;
	}
}

/* The first CPU's part: INIT and SIPI, and SIPIs that are none. */
static bool start_others(unsigned count)
{
	unsigned n = me->starts / 6;
	u32 id = 1 + n % (CPUS - 1);
	struct cpu *c = &cpus[id];

	if (n == count * (CPUS - 1)) {
		me->starts = 0;
		for (id = 0; id < CPUS; id++) {
			cpus[id].sent = 0;
			cpus[id].ended = false;
		}
		store(&ended, 0);
		store(&stage, load(&stage) + 1);
		return false;
	}
	switch (me->starts++ % 6) {
	case 0:
		store(&c->idle, random_below(IDLES));
		/* Where it runs: a first one starts it. */
		return load(&stage) != BEGIN && send(id, 6 << 8 | 0x11);
	case 1:
		return send(id, 5 << 8 | 1 << 14);
	case 2:
		await(&c->asleep, 1, false, NULL);
		return false;
	case 3: /* as who moves a device's interrupt to another CPU */
		me->awaited = load(&c->taken) + 1;
		store(&c->irq, true);
		percpu_kick(c->host);
		await(&c->taken, me->awaited, false, NULL);
		return false;
	case 4:
		store(&c->idle, SPINS);
		me->awaited = load(&c->lives) + 1;
		return send(id, 6 << 8 | 0x10);
	default: /* of two, the first counts */
		await(&c->lives, me->awaited, false, NULL);
		return send(id, 6 << 8 | 0x11); /* it runs */
	}
}

static bool interrupted(void)
{
	for (u32 n = 0; n < CPUS; n++)
		if (me->answers[n]) {
			me->answers[n] = false;
			return send(n, vector_of(&cpus[n], V_ANSWER));
		}
	me->eois--;
	me->vmcs[VMCS_GUEST_RFLAGS] |=
		IF; /* behind the exit: STI, as it were */
	return wrmsr_exit(0x80b, 0);
}

/* A step of the guest's; true: it leaves by an exit. */
static bool step(void)
{
	static const u64 boot[][2] = {{0x1b, 0xfee00c00}, {0x80f, 0x1ff}};

	if (me->vmcs[VMCS_CPU_CONTROLS] & CPU_MONITOR_TRAP)
		return touch(NOBODYS, &me->hole, ~0u);	/* again */
	me->vmcs[VMCS_GUEST_INTERRUPTIBILITY] &= ~8ull; /* an IRET */
	if (me->boot < 2) {
		u64 bsp = me == cpus && !me->boot ? 0x100 : 0;

		me->boot++;
		return wrmsr_exit((u32)boot[me->boot - 1][0],
				  boot[me->boot - 1][1] | bsp);
	}
	if (me->boot++ == 2) {
		me->vmcs[VMCS_GUEST_RFLAGS] |= IF;
		add(&me->lives, 1);
	}
	if (me->eois)
		return interrupted();
	if (me->wait.at)
		return wait();
	switch (load(&stage)) {
	case BEGIN:
	case STARTS:
		return me == cpus
			       ? start_others(load(&stage) == BEGIN ? 1 : COUNT)
			       : idle();
	case STORM:
	case AGAIN:
		return me->sent < ROUNDS ? storm() : end_storm();
	default:
		return me == cpus && out(PORT_END);
	}
}

static void inject(void)
{
	u64 info = me->vmcs[VMCS_ENTRY_INTERRUPTION];
	u32 vector = info & 0xff;

	if (!(info & BIT(31)))
		return;
	me->vmcs[VMCS_ENTRY_INTERRUPTION] = 0;
	me->vmcs[VMCS_GUEST_ACTIVITY] = 0;
	if ((info >> 8 & 7) == 2) {
		me->vmcs[VMCS_GUEST_INTERRUPTIBILITY] |= 8;
	} else {
		if (!(me->vmcs[VMCS_GUEST_RFLAGS] & IF))
			fail("an interrupt while IF is 0", info, 0);
		me->vmcs[VMCS_GUEST_RFLAGS] &= ~(u64)IF;
		me->eois++;
		if ((vector - V_SENT) % 16 == V_ECHO)
			me->answers[(vector - V_SENT) / 16] = true;
	}
	add(&me->received[vector], 1);
}

static bool is_due(void)
{
	u64 controls = me->vmcs[VMCS_CPU_CONTROLS];
	u64 blocking = me->vmcs[VMCS_GUEST_INTERRUPTIBILITY];

	if (__atomic_exchange_n(&me->nmi, false, __ATOMIC_SEQ_CST)) {
		me->vmcs[VMCS_EXIT_INTERRUPTION] = BIT(31) | 2 << 8 | 2;
		return leave_by(EXIT_EXCEPTION_NMI);
	}
	if (controls & CPU_NMI_WINDOW && !(blocking & 0xb))
		return leave_by(EXIT_NMI_WINDOW);
	return controls & CPU_INTERRUPT_WINDOW && !(blocking & 3) &&
	       me->vmcs[VMCS_GUEST_RFLAGS] & IF &&
	       leave_by(EXIT_INTERRUPT_WINDOW);
}

/* What a start leaves of the guest: nothing. */
static void begin(void)
{
	if (me->vmcs[VMCS_GUEST_CS] != 0x1000)
		fail("starts at", me->vmcs[VMCS_GUEST_CS], 0);
	me->vmcs[VMCS_GUEST_RIP] = 0x1000;
	store(&me->asleep, 0);
	me->boot = me->eois = 0;
	me->wait.at = NULL;
}

int vmx_enter(struct vmx_frame *frame)
{
	(void)frame;
	if (me->vmcs[VMCS_ENTRY_INTERRUPTION])
		sched_yield();
	look();
	if (me->host->attention)
		return VMX_TURNED;
	if (!me->vmcs[VMCS_GUEST_RIP])
		begin();
	inject();
	for (;;) {
		bool one = me->vmcs[VMCS_CPU_CONTROLS] & CPU_MONITOR_TRAP;

		if (is_due())
			return 0;
		for (unsigned n = 0; one && n < 16; n++)
			sched_yield(); /* others see what it was lent */
		if (me->vmcs[VMCS_GUEST_ACTIVITY])
			be_patient();
		else if (step())
			return 0;
		else if (one)
			return leave_by(EXIT_MONITOR_TRAP), 0;
	}
}

/* -- what a CPU has that is of no account here */

struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	(void)leaf, (void)subleaf;
	return (struct cpuid){0, 0, 0, 0};
}

const char vmx_window[1], vmx_window_last[1], vmx_window_out[1], vmx_exit[1];

#define ANSWERS(type, name, value, ...) \
	type name(__VA_ARGS__)          \
	{                               \
		return value;           \
	}
#define DOES_NOTHING(name, ...) \
	void name(__VA_ARGS__)  \
	{                       \
	}

#pragma GCC diagnostic ignored "-Wunused-parameter"
ANSWERS(u64, rdmsr, 0, u32 msr)
ANSWERS(int, rdmsr_safe, -EFAULT, u32 msr, u64 *value)
ANSWERS(u64, read_cr2, 0, void)
ANSWERS(u64, read_cr4, 0, void)
ANSWERS(u64, read_dr6, 0, void)
ANSWERS(u64, idt_base, 0, void)
ANSWERS(hpa_t, host_cr3, 0, void)
ANSWERS(unsigned, vmx_check, 0, const struct vmx_capabilities *cap)
ANSWERS(int, vmx_enable, 0, const struct vmx_capabilities *cap, hpa_t region)
ANSWERS(int, vmcs_load, 0, const struct vmx_capabilities *cap, hpa_t vmcs)
ANSWERS(int, local_apic_timer_init, 0, u8 vector, u64 window, bool deadline)
ANSWERS(bool, microcode_mends_deadline, true, void)
ANSWERS(int, format, 0, char *buf, size_t size, const char *fmt, ...)
DOES_NOTHING(clflush, const volatile void *p)
DOES_NOTHING(mfence, void)
DOES_NOTHING(wbinvd, void)
DOES_NOTHING(wrmsr, u32 msr, u64 value)
DOES_NOTHING(write_cr2, u64 value)
DOES_NOTHING(write_cr4, u64 value)
DOES_NOTHING(write_dr, unsigned n, u64 value)
DOES_NOTHING(xsetbv, u32 index, u64 value)
DOES_NOTHING(fxrstor, const struct xsave_area *area)
DOES_NOTHING(xrstor, const struct xsave_area *area, u64 components)
DOES_NOTHING(msr_reset, void)
DOES_NOTHING(cpu_unblock_nmi, void)
DOES_NOTHING(cpu_tables_load, struct cpu_tables *tables, void *gs_base)
DOES_NOTHING(panic_check, void)
DOES_NOTHING(host_irq_dispatch, unsigned info)
DOES_NOTHING(local_apic_join, u8 spurious)
DOES_NOTHING(local_apic_timer_set, u64 deadline)
DOES_NOTHING(vmx_write_host_state, u64 gs_base, u64 tr_base, u64 gdtr, u64 idtr,
	     hpa_t cr3)

void log_vwrite(enum log_level level, const char *fmt, va_list ap)
{
	(void)level;
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(level, fmt, ap);
	va_end(ap);
}

void panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(LOG_ERROR, fmt, ap);
	va_end(ap);
	_Exit(1);
}

/* -- the whole */

static void fake_gs_base(void *base)
{
	int arch_prctl(int code, unsigned long address); /* libc's */

	if (arch_prctl(0x1001 /* ARCH_SET_GS */, (unsigned long)base))
		abort();
}

static void *run(void *cpu)
{
	struct guest_entry entry = {.mode = ENTRY_LONG64, .rip = 0x1000};

	me = cpu;
	fake_gs_base(me->host);
	if (me != cpus) {
		vcpu_serve(&me->v);
		return NULL;
	}
	if (vcpu_init(&me->v))
		fail("vcpu_init", 0, 0);
	vcpu_reset(&me->v, &entry);
	vcpu_run(&me->v);
	vm_wait_for_others(&vm);
	return NULL;
}

/* As vmm/machine.c does. */
static void make(unsigned n)
{
	struct cpu *c = &cpus[n];
	struct vcpu *v = &c->v;

	c->host = percpu_create(n, n);
	c->random = (seed * CPUS + n + 1) * 0x9E3779B97F4A7C15ull;
	v->vm = &vm;
	v->cpu = c->host;
	v->lapic = &c->lapic;
	v->bus = &c->bus;
	v->pic = n ? &no_pic : &pic;
	vclock_init(&v->clock, TICKS);
	if (lapic_init(&c->lapic, &apics, &c->bus, &v->clock, n, 39))
		fail("lapic_init", n, 0);
	c->lapic.kick = vcpu_kick;
	c->lapic.vcpu = v;
	vm.vcpus[vm.vcpu_count++] = v;
}

static void prepare(void)
{
	static const struct {
		u16 port;
		bus_handler *handler;
	} devices[] = {{PORT_MAP, map_access},
		       {PORT_COUNT, count_access},
		       {PORT_END, end_access}};

	for (unsigned n = 0; n < ARRAY_SIZE(devices); n++)
		bus_register(&vm.bus, BUS_PORT, devices[n].port,
			     devices[n].port, devices[n].handler, NULL, "");
	vclock_init(&vm.clock, patience / 10); /* vm.c waits for ten times it */
	if (ept_init(&ept, &capabilities))
		fail("ept_init", 0, 0);
	vm.ept = &ept;
	vm.vmx = &capabilities;
	vm.io_bitmap = page_alloc();
	vm.msr_bitmap = page_alloc();
	vm.kick_others = vcpu_kick_others;
	for (unsigned n = 0; n < CPUS; n++)
		make(n);
	map_access(NULL, NULL);
	vm.smp = true;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	seed = strtoul(argv[1], NULL, 0);
	patience = strtoul(argv[2], NULL, 0) * TICKS;
	prepare();
	for (unsigned n = 0; n < CPUS; n++)
		pthread_create(&cpus[n].thread, NULL, run, &cpus[n]);
	for (unsigned n = 0; n < CPUS; n++)
		pthread_join(cpus[n].thread, NULL);
	for (unsigned n = 0; n < CPUS; n++) {
		for (unsigned v = 0; v < 256; v++)
			if (cpus[n].received[v] != cpus[n].due[v])
				fail("came twice", n << 8 | v,
				     cpus[n].received[v]);
		if (cpus[n].lives != (n ? 1 + COUNT : 1))
			fail("lives", n, cpus[n].lives);
	}
	return 0;
}
