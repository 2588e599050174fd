/* SPDX-License-Identifier: MIT */
/* Resets of one function, each with the wait that its manual states. */
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "drivers/pci/pci.h"
#include "kernel/log.h"

enum {
	DEVCAP = 4, /* PCIe 7.8.3: bit 28, Function Level Reset */
	DEVCTL = 8, /* bit 15: initiate it */
	AF_CAP = 3, /* AF ECN: bits 1:0, transactions pending and FLR */
	AF_CTRL = 4,
	PMCSR = 4, /* PCI PM 1.2, 3.2.4: bit 3, No_Soft_Reset */
	CONFIG_DWORDS = 64,
};

static void wait_ms(u64 tsc_hz, u64 ms)
{
	u64 end = rdtsc() + tsc_hz / 1000 * ms;

	while (rdtsc() < end)
		cpu_relax();
}

enum pci_reset pci_reset_method(const struct pci_host *pci, bdf_t bdf)
{
	unsigned cap = pci_find_capability(pci, bdf, PCI_CAP_EXPRESS);

	if (cap && pci_config_read(pci, bdf, cap + DEVCAP, 4) & BIT(28))
		return PCI_RESET_FLR;
	cap = pci_find_capability(pci, bdf, PCI_CAP_AF);
	if (cap && (pci_config_read(pci, bdf, cap + AF_CAP, 1) & 3) == 3)
		return PCI_RESET_AF;
	cap = pci_find_capability(pci, bdf, PCI_CAP_POWER);
	if (cap && !(pci_config_read(pci, bdf, cap + PMCSR, 2) & BIT(3)))
		return PCI_RESET_POWER;
	return PCI_RESET_NONE;
}

static void start_reset(const struct pci_host *pci, bdf_t bdf,
			enum pci_reset method, u64 tsc_hz)
{
	unsigned cap;
	u32 value;

	switch (method) {
	case PCI_RESET_FLR:
		cap = pci_find_capability(pci, bdf, PCI_CAP_EXPRESS) + DEVCTL;
		value = pci_config_read(pci, bdf, cap, 2);
		pci_config_write(pci, bdf, cap, 2, value | BIT(15));
		break;
	case PCI_RESET_AF:
		cap = pci_find_capability(pci, bdf, PCI_CAP_AF) + AF_CTRL;
		pci_config_write(pci, bdf, cap, 1, 1);
		break;
	case PCI_RESET_POWER:
		cap = pci_find_capability(pci, bdf, PCI_CAP_POWER) + PMCSR;
		value = pci_config_read(pci, bdf, cap, 2) & ~3u;
		pci_config_write(pci, bdf, cap, 2, value | 3);
		wait_ms(tsc_hz, 10);
		pci_config_write(pci, bdf, cap, 2, value);
		break;
	case PCI_RESET_NONE:
		break;
	}
}

/* PCIe 6.6.2: 100 ms, then up to a second until it answers. */
static int await(const struct pci_host *pci, bdf_t bdf, u64 tsc_hz)
{
	wait_ms(tsc_hz, 100);
	for (int i = 0; i < 100; i++) {
		u32 id = pci_config_read(pci, bdf, PCI_VENDOR, 4);

		if (id != 0xffffffff && (id & 0xffff) != 1)
			return 0;
		wait_ms(tsc_hz, 10);
	}
	return -ETIMEDOUT;
}

int pci_reset_function(const struct pci_host *pci, bdf_t bdf, u64 tsc_hz)
{
	enum pci_reset method = pci_reset_method(pci, bdf);
	u32 saved[CONFIG_DWORDS];
	int err;

	if (method == PCI_RESET_NONE)
		return -ENOTSUP;
	for (unsigned i = 0; i < CONFIG_DWORDS; i++)
		saved[i] = pci_config_read(pci, bdf, 4 * i, 4);
	start_reset(pci, bdf, method, tsc_hz);
	err = await(pci, bdf, tsc_hz);
	if (err) {
		log_error("%02x:%02x.%x does not come back from its reset",
			  BDF_ARGS(bdf));
		return err;
	}
	/* COMMAND last, when the BARs are back. */
	for (unsigned i = CONFIG_DWORDS; i-- > 0;)
		if (pci_config_read(pci, bdf, 4 * i, 4) != saved[i])
			pci_config_write(pci, bdf, 4 * i, 4, saved[i]);
	return 0;
}
