/* SPDX-License-Identifier: MIT */
/*
 * USB controllers that firmware drives as the user's keyboard and disk are
 * asked for, waited for, and taken: xHCI 1.2, 4.22.1 and 7.1; EHCI 1.0,
 * 2.1.7, 2.1.8 and 5.1; OHCI 1.0a, 5.1.1.3.3 and 7.1; UHCI 1.1, 5.2.1.
 */
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "drivers/pci/pci.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/time.h"

enum {
	PROGRAMMING_INTERFACE = 9,
	UHCI = 0x00,
	OHCI = 0x10,
	EHCI = 0x20,
	XHCI = 0x30,
	/* Of USBLEGSUP; the next dword is USBLEGCTLSTS. */
	LEGACY_SUPPORT = 1, /* the capability's ID */
	BIOS_OWNED = 1 << 16,
	OS_OWNED = 1 << 24,
	SMI_ENABLES = 0xe011, /* xHCI; EHCI's control has no other fields */
	/* UHCI's LEGSUP: traps' status cleared, all SMIs off, PIRQ on */
	UHCI_LEGSUP = 0xc0,
	UHCI_LEGSUP_OFF = 0xaf00,
	OHCI_CONTROL = 0x04,
	OHCI_COMMAND_STATUS = 0x08,
	OHCI_INTERRUPT_DISABLE = 0x14,
	OHCI_ROUTED_TO_SMI = 1 << 8, /* of HcControl: SMM drives it */
	OHCI_WAKE_CONNECTED = 1 << 9,
	OHCI_CHANGE_OWNER = 1 << 3, /* of HcCommandStatus */
	/* Of the xHCI of Intel's 7- to 9-series; behind each its mask */
	USB2_ROUTING = 0xd0,
	USB3_ENABLE = 0xd8,
	CHAIN_MAX = 64,
	WAIT_MS = 1000,
	HALT_MS = 20, /* xHCI: 16 ms; EHCI: 16 micro-frames */
};

#define XHCI_EVENTS (7u << 29) /* written as ones: cleared */

/* Where USBLEGSUP is: registers, or EHCI's configuration space. */
struct semaphore {
	const struct pci_host *pci;
	bdf_t bdf;
	volatile u8 *mmio;
	unsigned at;
};

static u32 get(const struct semaphore *s, unsigned offset)
{
	return s->mmio ? mmio_read32(s->mmio + s->at + offset)
		       : pci_config_read(s->pci, s->bdf, s->at + offset, 4);
}

static void put(const struct semaphore *s, unsigned offset, u32 value)
{
	if (s->mmio)
		mmio_write32(s->mmio + s->at + offset, value);
	else
		pci_config_write(s->pci, s->bdf, s->at + offset, 4, value);
}

static void tell(bdf_t bdf, bool by_force, unsigned waited)
{
	if (by_force)
		log_warn("%02x:%02x.%x: firmware keeps the USB controller; it "
			 "is taken by force",
			 BDF_ARGS(bdf));
	else if (waited)
		log_info("%02x:%02x.%x: firmware hands the USB controller over",
			 BDF_ARGS(bdf));
}

static void take(const struct semaphore *s, u64 tsc_hz)
{
	u32 value = get(s, 0);
	unsigned ms = 0;

	/* Not set without need: some firmware takes it amiss. */
	if (value & BIOS_OWNED)
		put(s, 0, value | OS_OWNED);
	for (; value & BIOS_OWNED && ms < WAIT_MS; ms++) {
		delay_us(tsc_hz, 1000);
		value = get(s, 0);
	}
	tell(s->bdf, value & BIOS_OWNED, ms);
	if (value & BIOS_OWNED)
		put(s, 0, (value & ~(u32)BIOS_OWNED) | OS_OWNED);
	put(s, 4, s->mmio ? (get(s, 4) & ~(u32)SMI_ENABLES) | XHCI_EVENTS : 0);
}

/* The chain in what size bytes hold; false: it has no USBLEGSUP. */
static bool find(struct semaphore *s, unsigned unit, u64 size)
{
	for (unsigned i = 0; s->at && i < CHAIN_MAX; i++) {
		u32 head, next;

		if (s->at % 4 || s->at + 8ull > size ||
		    (unit == 1 && s->at < 0x40))
			return false;
		head = get(s, 0);
		next = head >> 8 & 0xff;
		if ((head & 0xff) == LEGACY_SUPPORT)
			return true;
		/* xHCI's is relative and in dwords, EHCI's an offset. */
		if (unit == 1)
			s->at = next;
		else
			s->at = next ? s->at + next * unit : 0;
	}
	return false;
}

/* Run and interrupts off; bounded, and a halt is not insisted on. */
static void halt(volatile u8 *command, u32 off, u32 halted, u64 tsc_hz)
{
	mmio_write32(command, mmio_read32(command) & ~off);
	for (int i = 0; i < HALT_MS; i++) {
		if (mmio_read32(command + 4) & halted)
			return;
		delay_us(tsc_hz, 1000);
	}
}

/* NULL: no registers that could be read. */
static volatile u8 *registers(const struct pci_host *pci,
			      const struct pci_function *f)
{
	const struct pci_bar *bar = &f->bars[0];

	if (bar->io || !bar->base || bar->size < 0x40 ||
	    !(pci_config_read(pci, f->bdf, PCI_COMMAND, 2) &
	      PCI_COMMAND_MEMORY))
		return NULL;
	return mmio_map(bar->base, bar->size);
}

static void take_mmio(const struct pci_host *pci, const struct pci_function *f,
		      bool xhci, u64 tsc_hz)
{
	volatile u8 *base = registers(pci, f);
	struct semaphore s = {.pci = pci, .bdf = f->bdf};
	u64 size = f->bars[0].size;
	u32 length;

	if (!base)
		return;
	length = mmio_read32(base) & 0xff; /* CAPLENGTH */
	if (xhci) {
		s.mmio = base;
		s.at = (mmio_read32(base + 0x10) >> 16) * 4; /* HCCPARAMS1 */
	} else {
		s.at = mmio_read32(base + 8) >> 8 & 0xff; /* HCCPARAMS */
	}
	if (find(&s, xhci ? 4 : 1, xhci ? size : 256))
		take(&s, tsc_hz);
	if (length % 4 || length + 12 > size)
		return;
	/* USBCMD: run; xHCI: INTE, HSEE, EWE; EHCI: USBINTR, too */
	halt(base + length, xhci ? 0x40d : 1, xhci ? 1 : 1u << 12, tsc_hz);
	if (!xhci)
		mmio_write32(base + length + 8, 0);
}

/* All ones: nobody answers there. */
static bool smm_owns(volatile u8 *base)
{
	u32 control = mmio_read32(base + OHCI_CONTROL);

	return control != ~0u && control & OHCI_ROUTED_TO_SMI;
}

static void take_ohci(const struct pci_host *pci, const struct pci_function *f,
		      u64 tsc_hz)
{
	volatile u8 *base = registers(pci, f);
	unsigned ms = 0;

	if (!base)
		return;
	if (smm_owns(base))
		mmio_write32(base + OHCI_COMMAND_STATUS, OHCI_CHANGE_OWNER);
	for (; smm_owns(base) && ms < WAIT_MS; ms++)
		delay_us(tsc_hz, 1000);
	tell(f->bdf, smm_owns(base), ms);
	mmio_write32(base + OHCI_INTERRUPT_DISABLE, ~0u);
	/* The functional state 00: UsbReset, in which it does no DMA */
	mmio_write32(base + OHCI_CONTROL,
		     mmio_read32(base + OHCI_CONTROL) & OHCI_WAKE_CONNECTED);
}

static void take_uhci(const struct pci_host *pci, const struct pci_function *f)
{
	const struct pci_bar *bar = &f->bars[4];

	pci_config_write(pci, f->bdf, UHCI_LEGSUP, 2, UHCI_LEGSUP_OFF);
	if (!bar->io || !bar->base || bar->size < 8 ||
	    !(pci_config_read(pci, f->bdf, PCI_COMMAND, 2) & PCI_COMMAND_IO))
		return;
	outw((u16)(bar->base + 4), 0); /* USBINTR */
	outw((u16)bar->base, 0);       /* USBCMD: stop */
}

static u32 interface_of(const struct pci_host *pci,
			const struct pci_function *f)
{
	return pci_config_read(pci, f->bdf, PROGRAMMING_INTERFACE, 1);
}

bool pci_can_take_over(const struct pci_host *pci, const struct pci_function *f)
{
	u32 interface = interface_of(pci, f);

	return f->class == PCI_CLASS_USB && interface <= XHCI &&
	       interface % 16 == 0;
}

void pci_take_over(const struct pci_host *pci, struct pci_function *f,
		   u64 tsc_hz)
{
	u32 interface = interface_of(pci, f);

	if (!pci_can_take_over(pci, f))
		return;
	if (interface == UHCI)
		take_uhci(pci, f);
	else if (interface == OHCI)
		take_ohci(pci, f, tsc_hz);
	else
		take_mmio(pci, f, interface == XHCI, tsc_hz);
	f->taken_over = true;
}

static void route(const struct pci_host *pci, bdf_t bdf, unsigned at)
{
	u32 ports = pci_config_read(pci, bdf, at + 4, 4);

	if (ports)
		pci_config_write(pci, bdf, at, 4, ports);
}

void pci_route_usb_ports(const struct pci_host *pci,
			 const struct pci_function *f)
{
	/* 7-series; 8-series, desktop, server, mobile; 9-series */
	static const u16 ids[] = {0x1e31, 0x8c31, 0x8d31,
				  0x9c31, 0x8cb1, 0x9cb1};

	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		if (f->vendor != PCI_INTEL || f->device != ids[i])
			continue;
		/* SuperSpeed first: else a device would come up as USB 2. */
		route(pci, f->bdf, USB3_ENABLE);
		route(pci, f->bdf, USB2_ROUTING);
	}
}
