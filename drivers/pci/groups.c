/* SPDX-License-Identifier: MIT */
/*
 * Isolation groups: which functions can reach each other past the IOMMU. As
 * PCIe 6.12 and Linux's pci_device_group() have it, but for switches: there
 * one port without ACS can send to all of its neighbours. And by which IDs the
 * IOMMU knows a function.
 */
#include "drivers/pci/pci.h"

enum {
	EXTENDED_FIRST = 0x100,
	EXTENDED_END = 0x1000,
	EXTENDED_MAX = (EXTENDED_END - EXTENDED_FIRST) / 8,
};

unsigned pci_find_extended(const struct pci_host *pci, bdf_t bdf, u16 id)
{
	unsigned at = EXTENDED_FIRST;

	for (unsigned i = 0; i < EXTENDED_MAX; i++) {
		u32 head = pci_config_read(pci, bdf, at, 4);

		if (head == 0 || head == ~0u)
			return 0;
		if ((u16)head == id)
			return at;
		at = head >> 20 & ~3u;
		if (at < EXTENDED_FIRST)
			return 0;
	}
	return 0;
}

int pci_express_type(const struct pci_host *pci, bdf_t bdf)
{
	unsigned at = pci_find_capability(pci, bdf, PCI_CAP_EXPRESS);

	return at ? (int)PCI_EXPRESS_TYPE(pci_config_read(pci, bdf, at + 2, 2))
		  : -1;
}

/* All functions of the device, or (mask 0xff00) of the bus, redirect. */
static bool all_isolate(const struct pci_host *pci, bdf_t bdf, bdf_t mask,
			unsigned *count)
{
	bool all = true;

	*count = 0;
	for (unsigned i = 0; i < pci->count; i++) {
		if ((pci->functions[i].bdf ^ bdf) & mask)
			continue;
		++*count;
		all = all && pci->functions[i].isolates;
	}
	return all;
}

/* 6.12.1.2: functions of one device can reach each other inside of it. */
static bool functions_are_apart(const struct pci_host *pci, bdf_t bdf)
{
	unsigned count;

	return all_isolate(pci, bdf, (bdf_t)~7u, &count) || count <= 1;
}

/*
 * Where requests that come up through the bridge may turn round: bdf itself
 * (below: what the group was so far) if nowhere but at the IOMMU.
 */
static bdf_t turns_at(const struct pci_host *pci, bdf_t bridge, bdf_t below)
{
	const struct pci_function *above = pci_bridge_above(pci, bridge);
	unsigned count;

	switch (pci_express_type(pci, bridge)) {
	case PCI_EXPRESS_ROOT_PORT:
		return all_isolate(pci, bridge, (bdf_t)~7u, &count) ? below
								    : bridge;
	case PCI_EXPRESS_DOWNSTREAM:
		if (all_isolate(pci, bridge, 0xff00, &count))
			return below;
		return above ? above->bdf : bridge;
	case PCI_EXPRESS_UPSTREAM:
		return functions_are_apart(pci, bridge) ? below : bridge;
	default:
		/* Conventional PCI: a bus, and one requester for all on it. */
		return bridge;
	}
}

bdf_t pci_group(const struct pci_host *pci, bdf_t bdf)
{
	const struct pci_function *bridge = pci_bridge_above(pci, bdf);
	bdf_t top = bdf;

	for (; bridge; bridge = pci_bridge_above(pci, bridge->bdf))
		top = turns_at(pci, bridge->bdf, top);
	if (!functions_are_apart(pci, top))
		for (unsigned i = 0; i < pci->count; i++)
			if (pci->functions[i].bdf >> 3 == top >> 3)
				return pci->functions[i].bdf;
	return top;
}

/*
 * PCI Express bridges that do not say so, and functions whose requests carry
 * the ID of function 0 or 1 (Linux: quirk_use_pcie_bridge_dma_alias,
 * quirk_dma_func0_alias, quirk_dma_func1_alias): device << 16 | vendor.
 */
enum odd { PLAIN, AS_0, AS_1, HIDDEN };

static const struct {
	u32 id;
	enum odd odd;
} odd_ids[] = {
	{0x10801b21, HIDDEN}, {0x811310e3, HIDDEN}, /* ASMedia, Tundra */
	{0x88921283, HIDDEN}, {0x88931283, HIDDEN}, /* ITE */
	{0x244e8086, HIDDEN},			    /* Intel 82801 */
	{0xe8321180, AS_0},   {0xe4761180, AS_0},   /* Ricoh */
	{0x2392197b, AS_1},   {0x01221c28, AS_1},   /* JMicron, Lite-On */
	{0x06421103, AS_1},   {0x06451103, AS_1},   /* HighPoint */
	{0x91201b4b, AS_1},   {0x91231b4b, AS_1},   /* Marvell */
	{0x91251b4b, AS_1},   {0x91281b4b, AS_1},   {0x91301b4b, AS_1},
	{0x91701b4b, AS_1},   {0x91721b4b, AS_1},   {0x917a1b4b, AS_1},
	{0x91821b4b, AS_1},   {0x91831b4b, AS_1},   {0x91a01b4b, AS_1},
	{0x92151b4b, AS_1},   {0x92201b4b, AS_1},   {0x92301b4b, AS_1},
	{0x92351b4b, AS_1},
};

static enum odd oddity(const struct pci_host *pci, bdf_t bdf)
{
	u32 id = pci_config_read(pci, bdf, PCI_VENDOR, 4);

	for (unsigned i = 0; i < ARRAY_SIZE(odd_ids); i++)
		if (odd_ids[i].id == id)
			return odd_ids[i].odd;
	return PLAIN;
}

/* A bridge to conventional PCI puts its own ID in place. */
unsigned pci_requesters(const struct pci_host *pci, bdf_t bdf,
			bdf_t out[PCI_REQUESTERS_MAX])
{
	const struct pci_function *bridge = pci_bridge_above(pci, bdf);
	enum odd odd = oddity(pci, bdf);
	unsigned count = odd == AS_0 || odd == AS_1 ? 2 : 1;
	bool hidden;

	out[0] = bdf;
	out[1] = (bdf_t)((bdf & ~7u) | (odd == AS_1));
	/* The one next to the root has the last word. */
	for (; bridge; bridge = pci_bridge_above(pci, bridge->bdf)) {
		unsigned bus = bridge->secondary_bus;
		int type = pci_express_type(pci, bridge->bdf);

		if (type >= 0 && type != PCI_EXPRESS_TO_PCI)
			continue;
		/* 82801 on a root bus is a conventional one. */
		hidden = oddity(pci, bridge->bdf) == HIDDEN &&
			 pci_bridge_above(pci, bridge->bdf);
		out[1] = type < 0 && !hidden ? bridge->bdf : BDF(bus, 0u, 0u);
		count = 2;
	}
	return count;
}
