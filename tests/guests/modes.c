/* SPDX-License-Identifier: MIT */
/* What exits, in the modes of 32 and 16 bits: modes.asm does it. */
#include "guests/guest.h"

#define RTE_MASKED BIT(16)
#define PIN_PIT 2

struct mode_results {
	u32 version32, version_flat, version_legacy, version_pae, vendor, ins,
		cr0, efer;
};

struct real_results {
	u32 vendor;
	u16 port, interrupts, ud, gp, stack, msw, hlt, pad;
} __attribute__((packed));

extern struct mode_results mode_results;
extern u64 gdt[], pae_pdpt[], page_directories[];
extern u32 legacy_directory[];
extern const u8 real_start[], real_end[], real_results[];
void modes_protected(void);
void modes_real(u32 page);

static void test_protected(void)
{
	u32 version = lapic_read(LAPIC_VERSION);
	const struct mode_results *r = &mode_results;

	for (unsigned i = 0; i < 4; i++)
		pae_pdpt[i] = ((u64)page_directories + 4096 * i) | 1;
	for (u32 i = 0; i < 1024; i++)
		legacy_directory[i] = i << 22 | 0x83;
	modes_protected();
	check(r->version32, version);
	check(r->version_flat, version);
	check(r->version_legacy, version);
	check(r->version_pae, version);
	check(r->vendor, 0x756e6547);
	check(r->ins, 0x424242);
	check(r->cr0 >> 31, 1);
	check(r->efer & 0x500, 0x100); /* LME without LMA */
	check(rdmsr(0xC0000080) & 0x500, 0x500);
}

static void set_base(unsigned selector, u64 base)
{
	gdt[selector / 8] = (gdt[selector / 8] & 0xff0000ffffff) |
			    (base & 0xffffff) << 16 | (base >> 24) << 56;
	gdt[selector / 8] = (gdt[selector / 8] & ~(0xffffffull << 16)) |
			    (base & 0xffffff) << 16;
}

static void test_real(void)
{
	const struct real_results *r;

	check_true(low_page != 0);
	if (!low_page)
		return;
	memset((void *)low_page, 0, 0x2000);
	memcpy((void *)low_page, real_start, (size_t)(real_end - real_start));
	set_base(0x20, low_page);
	set_base(0x28, low_page);
	r = (const void *)(low_page + (u64)(real_results - real_start));
	ioapic_route(PIN_PIT, 0x51);
	pit_periodic(2000);
	modes_real((u32)low_page);
	pit_periodic(0);
	ioapic_route(PIN_PIT, RTE_MASKED);
	lapic_write(LAPIC_EOI, 0);
	open_interrupts();
	check(r->vendor, 0x756e6547);
	check(r->port, 0x99);
	check(r->interrupts, 1);
	check(r->ud, 1);
	if (is_monocle) /* the rig lets the bare machine have any MSR */
		check(r->gp, 1);
	check(r->stack, 6); /* IP, CS, FLAGS: no error code */
	check(r->msw & 1, 0);
	check(r->hlt, 1);
}

const struct test mode_tests[] = {
	{"protected-modes", test_protected, false},
	{"real-mode", test_real, false},
};
const unsigned mode_test_count = COUNT(mode_tests);
