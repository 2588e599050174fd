/* SPDX-License-Identifier: MIT */
#include "boot/smp.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/microcode.h"
#include "kernel/panic.h"
#include "kernel/park.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "kernel/time.h"

struct ap_parameters {
	u64 cr3, stack, percpu, entry;
};

extern const u8 ap_trampoline[], ap_trampoline_end[], ap_parameters[];

void ap_main(struct percpu *cpu);

static u32 lpit_hint;

void ap_main(struct percpu *cpu)
{
	host_paging_load();
	percpu_load(cpu);
	microcode_load(false);
	cpu->hint = park_hint(lpit_hint);
	__atomic_store_n(&cpu->parked, true, __ATOMIC_RELEASE);
	park(cpu);
}

/*
 * SDM 9.4.4.1: INIT, 10 ms, SIPI, 200 µs, SIPI. One wait for all; and none of
 * them runs beside a sibling that loads its microcode (SDM 9.11.6.3).
 */
static void init_others(const struct acpi_madt *madt, u64 hz)
{
	unsigned others = 0;

	for (unsigned i = 0; i < madt->cpu_count; i++)
		if (madt->cpus[i] != local_apic_id() && ++others < CPUS_MAX)
			(void)local_apic_send(madt->cpus[i], APIC_ICR_INIT);
	if (others)
		delay_us(hz, 10000);
}

static bool start(u32 apic_id, hpa_t page, const struct percpu *cpu, u64 hz)
{
	volatile const bool *parked = &cpu->parked;

	for (int tries = 0; tries < 2 && !*parked; tries++) {
		if (local_apic_send(apic_id,
				    APIC_ICR_SIPI | (u32)(page >> PAGE_SHIFT)))
			return false;
		for (int i = 0; i < 500 && !*parked; i++)
			delay_us(hz, 200);
	}
	/* A late one may not find what is the guest's page by then. */
	if (!*parked)
		local_apic_send(apic_id, APIC_ICR_INIT);
	return *parked;
}

/* The CPU that is parked now, or NULL. */
static struct percpu *start_one(u32 index, u32 apic_id, hpa_t page, u64 hz)
{
	struct percpu *cpu = percpu_create(index, apic_id);
	struct ap_parameters *p;

	if (!cpu)
		return NULL;
	p = phys_to_virt(page + ((u64)ap_parameters - (u64)ap_trampoline));
	*p = (struct ap_parameters){host_cr3(), (u64)cpu->stack, (u64)cpu,
				    (u64)ap_main};
	return start(apic_id, page, cpu, hz) ? cpu : NULL;
}

static void log_parked(unsigned cpus, unsigned parked, u32 hint)
{
	char how[16] = "HLT";

	if (hint != PARK_HLT)
		format(how, sizeof(how), "MWAIT 0x%x", hint);
	log_info("cpus: %u, of which %u are parked%s%s", cpus, parked,
		 parked ? ", in " : "", parked ? how : "");
}

/*
 * On a page below 1 MiB that is borrowed: with ram=identity all of it is the
 * guest's already. Page 8 is RAM on every PC.
 */
#define TRAMPOLINE_PAGE 0x8000

unsigned smp_park_others(const struct acpi_madt *madt, u32 lpit, u64 tsc_hz,
			 struct percpu *cpus[CPUS_MAX])
{
	hpa_t page = TRAMPOLINE_PAGE;
	void *borrowed = page_alloc();
	unsigned parked = 0, others = 0;

	lpit_hint = lpit;
	if (!borrowed || trampoline_map(page, true)) {
		log_warn("too little memory to start further CPUs");
		return 0;
	}
	memcpy(borrowed, phys_to_virt(page), PAGE_SIZE);
	memcpy(phys_to_virt(page), ap_trampoline,
	       (u64)ap_trampoline_end - (u64)ap_trampoline);
	init_others(madt, tsc_hz);
	for (unsigned i = 0; i < madt->cpu_count; i++) {
		struct percpu *cpu = NULL;
		u32 id = madt->cpus[i];

		if (id == local_apic_id())
			continue;
		if (++others < CPUS_MAX)
			cpu = start_one(others, id, page, tsc_hz);
		if (!cpu) {
			log_warn("CPU with APIC ID 0x%x does not start", id);
			continue;
		}
		cpus[parked++] = cpu;
		panic_others = parked;
	}
	trampoline_map(page, false);
	memcpy(phys_to_virt(page), borrowed, PAGE_SIZE);
	page_free(borrowed);
	log_parked(1 + others, parked, parked ? cpus[0]->hint : 0);
	return parked;
}
