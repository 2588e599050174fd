/* SPDX-License-Identifier: MIT */
/* Resets of one function, each with the wait that its manual states. */
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "drivers/pci/pci.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/time.h"

enum {
	DEVCAP = 4, /* PCIe 7.8.3: bit 28, Function Level Reset */
	DEVCTL = 8, /* bit 15: initiate it */
	DEVSTA = 10,
	DEVSTA_PENDING = 0x20,
	AF_CAP = 3, /* AF ECN: bits 1:0, transactions pending and FLR */
	AF_CTRL = 4,
	AF_STATUS = 5,
	AF_PENDING = 1,
	PMCSR = 4, /* PCI PM 1.2, 3.2.4: bit 3, No_Soft_Reset */
	D3 = 3,	   /* its bits 1:0 */
	/* PCI-to-PCI Bridge 1.2, 3.2.5.17 */
	BRIDGE_CONTROL = 0x3e,
	SECONDARY_RESET = 0x40,
	/* Offsets in BAR 0 */
	IVB_MSG_CTL = 0x45010,
	IVB_SOUTH_CHICKEN2 = 0xc2004,
	IVB_POWER_STATUS = 0xc7200,
	IVB_POWER_CONTROL = 0xc7204,
	IVB_POWER_STATE = 0xd0100,
	/* PCIe 7.8.6: one every 8 bytes; the first has their number, 7:5 */
	REBAR_CONTROL = 8,
	WAKE_MS = 50,	   /* Linux: FORCEWAKE_ACK_TIMEOUT_MS */
	BUS_FUNCTIONS = 8, /* reset with their bus, at most */
};

/*
 * Registers of BAR 0 that firmware set up and a reset clears, in the order of
 * their way back. They keep graphics out of deep sleep states that hang, and
 * memory where it is.
 */
static const struct reset_register {
	u32 offset;
	const char *name;
} registers[PCI_GRAPHICS_REGISTERS] = {
	{0x45008, "DBUF_CTL"},
	{0xd48, "RC6 context base"},
	{0xdc8, "RC6 context base, high"},
	{0xa090, "RC6 control"},
	{0xa094, "RC6 state"},
	{0x1082c0, "stolen memory, reserved part"},
};

static void wait_ms(u64 tsc_hz, u64 ms)
{
	delay_us(tsc_hz, 1000 * ms);
}

const char *pci_reset_name(enum pci_reset method)
{
	static const char *const names[] = {
		[PCI_RESET_NONE] = "none", [PCI_RESET_FLR] = "FLR",
		[PCI_RESET_AF] = "AF-FLR", [PCI_RESET_POWER] = "D3hot",
		[PCI_RESET_BUS] = "bus",   [PCI_RESET_IVB] = "IVB",
	};

	return names[method];
}

/*
 * Functions that hang by a reset that they announce (Linux: quirk_no_flr,
 * quirk_no_bus_reset): device << 16 | vendor.
 */
static const struct {
	u32 id;
	bool flr; /* else by the bus's */
} hanging[] = {
	{0x15028086, true},  {0x15038086, true},  /* Intel 82579 */
	{0x061614c3, true},			  /* MediaTek MT7922 */
	{0x0030168c, false}, {0x0032168c, false}, /* Atheros */
	{0x003c168c, false}, {0x0033168c, false},
	{0x0034168c, false}, {0x003e168c, false},
};

static bool hangs(u32 id, bool flr)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hanging); i++)
		if (hanging[i].id == id && hanging[i].flr == flr)
			return true;
	return false;
}

/* AMD's displays announce a reset by D3hot and do none (Linux:
 * quirk_no_pm_reset); with a bus of their own there is a better one. */
static bool ignores_power(const struct pci_host *pci, bdf_t bdf, u16 vendor)
{
	return vendor == 0x1002 && pci_bridge_above(pci, bdf) &&
	       pci_config_read(pci, bdf, PCI_CLASS, 2) == 0x0300;
}

/*
 * Graphics whose FLR locks the whole machine up, as users of vfio report:
 * HD 630 and, with 500-series chipsets at least, Comet Lake. They have no
 * other reset that is known to do.
 */
static bool locks_up(u32 id)
{
	return id == 0x59128086 || (id & 0xff00ffff) == 0x9b008086;
}

enum pci_reset pci_reset_method(const struct pci_host *pci, bdf_t bdf)
{
	unsigned cap = pci_find_capability(pci, bdf, PCI_CAP_EXPRESS);
	u32 id = pci_config_read(pci, bdf, PCI_VENDOR, 4);
	const struct pci_function *bridge;

	if (locks_up(id))
		return PCI_RESET_NONE;
	if (id == 0x01568086 || id == 0x01668086)
		return PCI_RESET_IVB;
	if (cap && !hangs(id, true) &&
	    pci_config_read(pci, bdf, cap + DEVCAP, 4) & BIT(28))
		return PCI_RESET_FLR;
	cap = pci_find_capability(pci, bdf, PCI_CAP_AF);
	if (cap && !hangs(id, true) &&
	    (pci_config_read(pci, bdf, cap + AF_CAP, 1) & 3) == 3)
		return PCI_RESET_AF;
	cap = pci_find_capability(pci, bdf, PCI_CAP_POWER);
	if (cap && !ignores_power(pci, bdf, (u16)id) &&
	    !(pci_config_read(pci, bdf, cap + PMCSR, 2) & BIT(3)))
		return PCI_RESET_POWER;
	bridge = pci_bridge_above(pci, bdf);
	return bridge && bridge->header_type == PCI_HEADER_BRIDGE &&
			       !hangs(id, false)
		       ? PCI_RESET_BUS
		       : PCI_RESET_NONE;
}

/* Bounded: PCIe 6.6.2 lets a function finish within 100 ms what it began. */
static void await_idle(const struct pci_host *pci, bdf_t bdf,
		       enum pci_reset method, u64 tsc_hz)
{
	bool flr = method == PCI_RESET_FLR;
	unsigned cap = pci_find_capability(pci, bdf,
					   flr ? PCI_CAP_EXPRESS : PCI_CAP_AF);
	unsigned status = cap + (flr ? DEVSTA : AF_STATUS);

	if (!flr && method != PCI_RESET_AF)
		return;
	for (int i = 0; i < 100; i++) {
		if (!(pci_config_read(pci, bdf, status, 1) &
		      (flr ? DEVSTA_PENDING : AF_PENDING)))
			return;
		wait_ms(tsc_hz, 1);
	}
	log_warn("%02x:%02x.%x: transactions are pending at its reset",
		 BDF_ARGS(bdf));
}

static void reset_flr(const struct pci_host *pci, const struct pci_function *f,
		      u64 tsc_hz)
{
	unsigned at =
		pci_find_capability(pci, f->bdf, PCI_CAP_EXPRESS) + DEVCTL;
	u32 control = pci_config_read(pci, f->bdf, at, 2);

	(void)tsc_hz;
	pci_config_write(pci, f->bdf, at, 2, control | BIT(15));
}

static void reset_af(const struct pci_host *pci, const struct pci_function *f,
		     u64 tsc_hz)
{
	unsigned cap = pci_find_capability(pci, f->bdf, PCI_CAP_AF);

	(void)tsc_hz;
	pci_config_write(pci, f->bdf, cap + AF_CTRL, 1, 1);
}

/* PCI PM 1.2, table 5-6: 10 ms on the way there, and back. */
static void reset_power(const struct pci_host *pci,
			const struct pci_function *f, u64 tsc_hz)
{
	bdf_t bdf = f->bdf;
	unsigned at = pci_find_capability(pci, bdf, PCI_CAP_POWER) + PMCSR;
	u32 value = pci_config_read(pci, bdf, at, 2) & ~(u32)D3;

	pci_config_write(pci, bdf, at, 2, value | D3);
	wait_ms(tsc_hz, 10);
	pci_config_write(pci, bdf, at, 2, value);
}

/* Held for PCI's Trst, 1 ms (PCI 3.0, 4.2.3.2). */
static void reset_bus(const struct pci_host *pci, const struct pci_function *f,
		      u64 tsc_hz)
{
	bdf_t bridge = pci_bridge_above(pci, f->bdf)->bdf;
	u32 control = pci_config_read(pci, bridge, BRIDGE_CONTROL, 2);

	pci_config_write(pci, bridge, BRIDGE_CONTROL, 2,
			 control | SECONDARY_RESET);
	wait_ms(tsc_hz, 1);
	pci_config_write(pci, bridge, BRIDGE_CONTROL, 2,
			 control & ~(u32)SECONDARY_RESET);
}

/*
 * Mobile Ivy Bridge's graphics hang in an FLR: panel power is taken off, and
 * the display engine's power state cleared when that is done. The public
 * driver of Linux (drivers/pci/quirks.c) has the same steps and limit.
 */
static void reset_ivb(const struct pci_host *pci, const struct pci_function *f,
		      u64 tsc_hz)
{
	volatile u8 *mmio = mmio_map(f->bars[0].base, f->bars[0].size);
	u32 control;

	(void)pci;
	if (!mmio || !f->bars[0].base || f->bars[0].size <= IVB_POWER_STATE)
		return;
	mmio_write32(mmio + IVB_MSG_CTL, 2);
	mmio_write32(mmio + IVB_SOUTH_CHICKEN2, 5);
	control = mmio_read32(mmio + IVB_POWER_CONTROL);
	mmio_write32(mmio + IVB_POWER_CONTROL, control & ~1u);
	for (int i = 0; i < 1000; i++) {
		if (!(mmio_read32(mmio + IVB_POWER_STATUS) & 0xb0000000)) {
			mmio_write32(mmio + IVB_POWER_STATE, 2);
			return;
		}
		wait_ms(tsc_hz, 10);
	}
	log_warn("%02x:%02x.%x: its panel stays on at its reset",
		 BDF_ARGS(f->bdf));
}

static void save_sizes(const struct pci_host *pci, bdf_t bdf,
		       struct pci_saved *s)
{
	unsigned at = pci_find_extended(pci, bdf, PCI_EXT_REBAR);

	s->rebar = at + REBAR_CONTROL;
	s->rebar_count =
		at ? pci_config_read(pci, bdf, s->rebar, 4) >> 5 & 7 : 0;
	for (unsigned i = 0; i < s->rebar_count; i++)
		s->sizes[i] = pci_config_read(pci, bdf, s->rebar + 8 * i, 4);
}

void pci_save(const struct pci_host *pci, const struct pci_function *f,
	      struct pci_saved *s)
{
	if (f->saved) {
		*s = *f->saved;
		return;
	}
	s->function = f;
	save_sizes(pci, f->bdf, s);
	for (unsigned i = 0; i < ARRAY_SIZE(s->config); i++)
		s->config[i] = pci_config_read(pci, f->bdf, 4 * i, 4);
}

/* BAR 0 of graphics, all registers in it, or NULL. */
static volatile u8 *graphics(const struct pci_host *pci,
			     const struct pci_function *f)
{
	const struct pci_bar *bar = &f->bars[0];

	return bar->base && bar->size >= 2 * MIB &&
			       pci_config_read(pci, f->bdf, PCI_COMMAND, 2) &
				       PCI_COMMAND_MEMORY
		       ? mmio_map(bar->base, bar->size)
		       : NULL;
}

/* What sleeps reads 0 and forgets. Bit 0; above it, but on SNB, its mask. */
static bool force_wake(const struct pci_graphics *g, volatile u8 *mmio, bool on)
{
	u32 mask = g->wake == PCI_WAKE_SNB ? 0 : BIT(16);

	mmio_write32(mmio + g->wake, mask | on);
	for (int i = 0; i < WAKE_MS; i++) {
		if ((mmio_read32(mmio + g->ack) & 1) == on)
			return true;
		wait_ms(g->tsc_hz, 1);
	}
	return false;
}

void pci_save_graphics(struct pci_host *pci, const struct pci_function *f,
		       u32 wake, u32 ack, u64 tsc_hz)
{
	struct pci_graphics *g = &pci->graphics;
	volatile u8 *mmio = graphics(pci, f);

	*g = (struct pci_graphics){
		.function = f, .wake = wake, .ack = ack, .tsc_hz = tsc_hz};
	if (!mmio)
		return;
	g->saved = force_wake(g, mmio, true);
	for (unsigned i = 0; i < PCI_GRAPHICS_REGISTERS; i++)
		g->values[i] = mmio_read32(mmio + registers[i].offset);
	force_wake(g, mmio, false);
	if (!g->saved)
		log_warn("%02x:%02x.%x: its registers do not wake; a reset "
			 "loses what firmware has set there",
			 BDF_ARGS(f->bdf));
}

static void restore_graphics(const struct pci_host *pci)
{
	const struct pci_graphics *g = &pci->graphics;
	volatile u8 *mmio = graphics(pci, g->function);

	if (!mmio)
		return;
	force_wake(g, mmio, true);
	for (unsigned i = 0; i < PCI_GRAPHICS_REGISTERS; i++) {
		volatile u8 *p = mmio + registers[i].offset;
		u32 value = g->values[i], now = mmio_read32(p);

		if (now == value)
			continue;
		mmio_write32(p, value);
		now = mmio_read32(p);
		if (now != value)
			log_warn("%02x:%02x.%x: after its reset %s (0x%x) is "
				 "0x%x, was 0x%x",
				 BDF_ARGS(g->function->bdf), registers[i].name,
				 registers[i].offset, now, value);
	}
	force_wake(g, mmio, false);
}

static void put_back(const struct pci_host *pci, bdf_t bdf, unsigned at,
		     u32 value)
{
	if (pci_config_read(pci, bdf, at, 4) != value)
		pci_config_write(pci, bdf, at, 4, value);
}

static void restore(const struct pci_host *pci, const struct pci_saved *s)
{
	bdf_t bdf = s->function->bdf;

	/* A BAR's size, then its address; COMMAND last. */
	for (unsigned i = 0; i < s->rebar_count; i++)
		put_back(pci, bdf, s->rebar + 8 * i, s->sizes[i]);
	for (unsigned i = ARRAY_SIZE(s->config); i-- > 0;)
		put_back(pci, bdf, 4 * i, s->config[i]);
	if (pci->graphics.saved && s->function == pci->graphics.function)
		restore_graphics(pci);
}

/*
 * D3hot to D0 may be a reset of the function, too (PCI PM 1.2, 5.4.1); what
 * state it had must not come back with the rest.
 */
void pci_wake(const struct pci_host *pci, const struct pci_function *f,
	      u64 tsc_hz)
{
	unsigned at = pci_find_capability(pci, f->bdf, PCI_CAP_POWER) + PMCSR;
	struct pci_saved saved;

	if (at == PMCSR || !(pci_config_read(pci, f->bdf, at, 2) & D3))
		return;
	pci_save(pci, f, &saved);
	saved.config[at / 4] &= ~(u32)D3;
	pci_config_write(pci, f->bdf, at, 2, (u16)saved.config[at / 4]);
	wait_ms(tsc_hz, 10);
	restore(pci, &saved);
	log_info("%02x:%02x.%x: firmware left it asleep; it is in D0 now",
		 BDF_ARGS(f->bdf));
}

void pci_sleep(const struct pci_host *pci, bdf_t bdf)
{
	unsigned at = pci_find_capability(pci, bdf, PCI_CAP_POWER) + PMCSR;

	if (at != PMCSR)
		pci_config_write(pci, bdf, at, 2,
				 pci_config_read(pci, bdf, at, 2) | D3);
}

/* Saves what the reset takes in; 0: too many functions. */
static unsigned save_all(const struct pci_host *pci,
			 const struct pci_function *f, enum pci_reset method,
			 struct pci_saved saved[BUS_FUNCTIONS])
{
	unsigned n = 0;

	if (method != PCI_RESET_BUS) {
		pci_save(pci, f, saved);
		return 1;
	}
	for (unsigned i = 0; i < pci->count; i++) {
		if (BDF_BUS(pci->functions[i].bdf) != BDF_BUS(f->bdf))
			continue;
		if (n == BUS_FUNCTIONS)
			return 0;
		pci_save(pci, &pci->functions[i], &saved[n++]);
	}
	return n;
}

static void (*const start[])(const struct pci_host *pci,
			     const struct pci_function *f, u64 tsc_hz) = {
	[PCI_RESET_IVB] = reset_ivb, [PCI_RESET_FLR] = reset_flr,
	[PCI_RESET_AF] = reset_af,   [PCI_RESET_POWER] = reset_power,
	[PCI_RESET_BUS] = reset_bus,
};

void pci_reset_begin(const struct pci_host *pci, const struct pci_function *f,
		     enum pci_reset method)
{
	start[method](pci, f, 0);
}

int pci_reset_finish(const struct pci_host *pci, const struct pci_saved *saved)
{
	u32 id = pci_config_read(pci, saved->function->bdf, PCI_VENDOR, 4);

	/* 0001: Configuration Request Retry Status (PCIe 2.3.1) */
	if (id == 0xffffffff || (id & 0xffff) == 1)
		return -EBUSY;
	restore(pci, saved);
	return 0;
}

int pci_reset_function(const struct pci_host *pci, const struct pci_function *f,
		       bool bus, u64 tsc_hz)
{
	enum pci_reset method = pci_reset_method(pci, f->bdf);
	struct pci_saved saved[BUS_FUNCTIONS];
	unsigned count = 0;
	int err = 0;

	if (method != PCI_RESET_NONE && (method != PCI_RESET_BUS || bus))
		count = save_all(pci, f, method, saved);
	if (!count && f->saved)
		restore(pci, f->saved);
	if (!count)
		return -ENOTSUP;
	await_idle(pci, f->bdf, method, tsc_hz);
	start[method](pci, f, tsc_hz);
	wait_ms(tsc_hz, 100);
	for (unsigned i = 0; i < count; i++) {
		unsigned n = 0;

		/* PCIe 6.6.2: 100 ms, then up to a second. */
		while (pci_reset_finish(pci, &saved[i]) && ++n < 100)
			wait_ms(tsc_hz, 10);
		if (n < 100)
			continue;
		log_error("%02x:%02x.%x does not come back from its reset",
			  BDF_ARGS(saved[i].function->bdf));
		err = -ETIMEDOUT;
	}
	return err;
}
