/* SPDX-License-Identifier: MIT */
// sources: drivers/vtd/dmar.c (included below)
/*
 * The DMAR walk over any bytes: what dmar_check() lets pass can be walked,
 * logged and asked about without a step outside the table or a loop. The
 * signature, length and checksum are made right, as kernel/acpi.c leaves
 * only such tables.
 */
#include <stdlib.h>
#include <string.h>

#include "drivers/vtd/dmar.c"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

void log_write(enum log_level level, const char *fmt, ...)
{
	(void)level;
	(void)fmt;
}

bool acpi_checksum_ok(const void *table, u32 length)
{
	return table && length;
}

struct pci_function *pci_find(struct pci_host *pci, bdf_t bdf)
{
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].bdf == bdf)
			return &pci->functions[i];
	return NULL;
}

/* A bridge at 00:1c.0 to bus 1, one there to bus 2, one back to bus 1 */
static struct pci_host pci = {
	.count = 3,
	.functions = {{.bdf = 0x00e0, .secondary_bus = 1},
		      {.bdf = 0x0100, .secondary_bus = 2},
		      {.bdf = 0x0200, .secondary_bus = 1}},
};

static void ask(const struct dmar_table *t)
{
	static const bdf_t functions[] = {0x0010, 0x00e0, 0x0108,
					  0x0200, 0x0208, 0xffff};
	bdf_t source;
	u64 unit;

	for (unsigned i = 0; i < ARRAY_SIZE(functions); i++) {
		const struct dmar_entry *e = NULL;
		unsigned found = 0;

		dmar_unit_of(t, &pci, functions[i]);
		while ((e = dmar_rmrr_of(t, &pci, functions[i], e)))
			if (++found > t->acpi.length / 24)
				abort();
	}
	for (unsigned id = 0; id < 256; id++)
		dmar_ioapic_source(t, &pci, (u8)id, &source, &unit);
	dmar_log(t, &pci);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	/* Its own allocation, so that a byte too far is seen. */
	u8 *table = malloc(size + sizeof(struct acpi_header));
	struct acpi_header *acpi = (void *)table;

	if (!table)
		return 0;
	memset(acpi, 0, sizeof(*acpi));
	if (size)
		memcpy(acpi + 1, data, size);
	memcpy(acpi->signature, "DMAR", 4);
	acpi->length = (u32)(size + sizeof(*acpi));
	if (!dmar_check(acpi))
		ask((const struct dmar_table *)acpi);
	free(table);
	return 0;
}
