/* SPDX-License-Identifier: MIT */
/*
 * build/selftest.elf: Monocle's own start up to the IOMMU, then its test in
 * place of a guest. Any module asks for the sweep as well.
 */
#include "tests/selftest/selftest.h"

/* Its boot_main() would start a guest; all before that serves here, too. */
#define boot_main start_guest
#include "boot/main.c"
#undef boot_main

void boot_main(u32 magic, u32 info, u32 image);

/* Every range that firmware calls memory, Monocle's own included. */
static int sweep(void)
{
	int failures = 0;

	for (unsigned i = 0; i < host.boot.memory_count; i++) {
		const struct boot_memory *m = &host.boot.memory[i];

		if (m->kind == MEMORY_AVAILABLE)
			failures += vtd_selftest_sweep(
				&host.vtd, &host.pci,
				ALIGN_UP(m->base, PAGE_SIZE),
				ALIGN_DOWN(m->base + m->size, PAGE_SIZE));
	}
	return failures;
}

static NORETURN void selftest(void)
{
	int failures;

	read_tables();
	find_iommu();
	if (!host.has_vtd) {
		log_error("selftest: there is no IOMMU to test");
		refuse();
	}
	take_interrupts();
	take_iommu();
	failures = vtd_selftest(&host.vtd, &host.pci);
	if (!failures && host.boot.module_count)
		failures = sweep();
	if (failures)
		end(END_GUEST_EXIT, "selftest: %d failed", failures);
	end(END_POWER_OFF, "selftest passed");
}

void boot_main(u32 magic, u32 info, u32 image)
{
	read_boot_information(magic, info, image);
	take_memory();
	continue_on(percpu()->stack, selftest);
}
