/* SPDX-License-Identifier: MIT */
#include "vmm/load/guest_acpi.h"
#include "arch/x86/errno.h"
#include "kernel/acpi.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/virq.h"
#include "vmm/devmodel/acpi_pm.h"
#include "vmm/devmodel/ioapic.h"
#include "vmm/devmodel/lapic.h"
#include "vmm/devmodel/pci_bus.h"
#include "vmm/devmodel/reset.h"
#include "vmm/devmodel/rtc.h"
#include "vmm/load/aml.h"

/* ACPI 6.4, 5.2.3.2: generic address structure. */
struct gas {
	u8 space; /* 1: system I/O */
	u8 bits, bit_offset;
	u8 access; /* log2 of bytes, plus 1 */
	u64 address;
} PACKED;

_Static_assert(sizeof(struct gas) == 12, "ACPI 5.2.3.2");

struct facs {
	char signature[4];
	u32 length;
	u32 hardware_signature, waking_vector, global_lock, flags;
	u64 x_waking_vector;
	u8 version;
	u8 reserved[31];
} PACKED;

_Static_assert(sizeof(struct facs) == 64, "ACPI 5.2.10");

#define TABLES 3 /* FADT, MADT, MCFG: the last one may be missing */

struct rsdt {
	struct acpi_header header;
	u32 tables[TABLES];
} PACKED;

struct xsdt {
	struct acpi_header header;
	u64 tables[TABLES];
} PACKED;

/* ACPI 5.2.9, of revision 6. */
struct fadt {
	struct acpi_header header;
	u32 facs, dsdt;
	u8 reserved1;
	u8 preferred_profile;
	u16 sci;
	u32 smi_command; /* 0: ACPI mode always, see acpi_pm.h */
	u8 acpi_enable, acpi_disable, s4bios, pstate_control;
	u32 pm1a_event, pm1b_event, pm1a_control, pm1b_control;
	u32 pm2_control, pm_timer, gpe0, gpe1;
	u8 pm1_event_length, pm1_control_length;
	u8 pm2_control_length, pm_timer_length;
	u8 gpe0_length, gpe1_length, gpe1_base, cst_control;
	u16 c2_latency, c3_latency;
	u16 flush_size, flush_stride;
	u8 duty_offset, duty_width;
	u8 day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved2;
	u32 flags;
	struct gas reset;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor_version;
	u64 x_facs, x_dsdt;
	struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control;
	struct gas x_pm2_control, x_pm_timer, x_gpe0, x_gpe1;
	struct gas sleep_control, sleep_status;
	char hypervisor[8];
} PACKED;

_Static_assert(offsetof(struct fadt, pm1a_event) == 56, "ACPI 5.2.9");
_Static_assert(offsetof(struct fadt, boot_arch) == 109, "ACPI 5.2.9");
_Static_assert(offsetof(struct fadt, reset) == 116, "ACPI 5.2.9");
_Static_assert(offsetof(struct fadt, x_pm1a_event) == 148, "ACPI 5.2.9");
_Static_assert(sizeof(struct fadt) == 276, "ACPI 5.2.9");

enum fadt_flags {
	FADT_WBINVD = BIT(0),
	FADT_PROC_C1 = BIT(2),
	/* Bit 4 clear: the power button is in the fixed registers. */
	FADT_NO_SLEEP_BUTTON = BIT(5),
	FADT_NO_FIXED_RTC = BIT(6),
	FADT_TMR_VAL_EXT = BIT(8), /* 32 bits */
	FADT_RESET_REG_SUP = BIT(10),
	/* IAPC_BOOT_ARCH */
	BOOT_ARCH_LEGACY_DEVICES = BIT(0),
	BOOT_ARCH_8042 = BIT(1),
	BOOT_ARCH_NO_VGA = BIT(2),
};

/* ACPI 5.2.12; entries follow. */
struct madt {
	struct acpi_header header;
	u32 lapic;
	u32 flags; /* 1: PCAT_COMPAT, an 8259 pair is there */
} PACKED;

struct madt_lapic {
	u8 type, length; /* 0, 8 */
	u8 uid, apic_id;
	u32 flags; /* 1: enabled */
} PACKED;

/* For an APIC ID from 255 on, which the other one has no room for. */
struct madt_x2apic {
	u8 type, length; /* 9, 16 */
	u16 reserved;
	u32 apic_id, flags, uid;
} PACKED;

struct madt_ioapic {
	u8 type, length; /* 1, 12 */
	u8 id, reserved;
	u32 address, gsi_base;
} PACKED;

struct madt_override {
	u8 type, length; /* 2, 10 */
	u8 bus, line;
	u32 gsi;
	u16 flags;
} PACKED;

struct madt_nmi {
	u8 type, length; /* 4, 6 */
	u8 uid;		 /* 0xff: all processors */
	u16 flags;
	u8 lint;
} PACKED;

struct madt_x2apic_nmi {
	u8 type, length; /* 10, 12 */
	u16 flags;
	u32 uid; /* ~0: all processors */
	u8 lint, reserved[3];
} PACKED;

/* PCI Firmware 3.0, 4.1.2, with one segment group. */
struct mcfg {
	struct acpi_header header;
	u8 reserved1[8];
	u64 base;
	u16 segment;
	u8 first_bus, last_bus;
	u8 reserved2[4];
} PACKED;

_Static_assert(sizeof(struct mcfg) == 60, "PCI Firmware 3.0, 4.1.2");
_Static_assert(sizeof(struct madt_lapic) == 8, "ACPI 5.2.12.2");
_Static_assert(sizeof(struct madt_ioapic) == 12, "ACPI 5.2.12.3");
_Static_assert(sizeof(struct madt_override) == 10, "ACPI 5.2.12.5");
_Static_assert(sizeof(struct madt_nmi) == 6, "ACPI 5.2.12.7");
_Static_assert(sizeof(struct madt_x2apic) == 16, "ACPI 5.2.12.12");
_Static_assert(sizeof(struct madt_x2apic_nmi) == 12, "ACPI 5.2.12.13");

_Static_assert(GUEST_IOAPIC == IOAPIC_BASE, "what the device model says");
_Static_assert(GUEST_LAPIC == LAPIC_DEFAULT_BASE, "likewise");

#define MPS_LEVEL_HIGH 0x0d /* table 5.26: level-triggered, active high */

/* The tables' memory, filled from its start. */
struct builder {
	u8 *base; /* NULL once there is no room */
	gpa_t gpa;
	u64 size, used;
};

static gpa_t gpa_of(const struct builder *b, const void *p)
{
	return b->gpa + (u64)((const u8 *)p - b->base);
}

/* 64-byte aligned, as the FACS must be; NULL: no room. */
static void *allocate(struct builder *b, u64 size)
{
	u64 at = ALIGN_UP(b->used, 64);

	if (at > b->size || size > b->size - at)
		return NULL;
	b->used = at + size;
	memset(b->base + at, 0, size);
	return b->base + at;
}

u8 sum_to_zero(const void *data, u64 size)
{
	const u8 *p = data;
	u8 sum = 0;

	while (size--)
		sum = (u8)(sum + *p++);
	return (u8)-sum;
}

static void finish(struct acpi_header *h, const char *signature, u8 revision,
		   u64 length)
{
	memcpy(h->signature, signature, sizeof(h->signature));
	h->length = (u32)length;
	h->revision = revision;
	memcpy(h->oem_id, "MONOCL", sizeof(h->oem_id));
	memcpy(h->oem_table_id, "MONOCLE ", sizeof(h->oem_table_id));
	h->oem_revision = 1;
	h->creator_id = 0x4c434e4d; /* "MNCL" */
	h->creator_revision = 1;
	h->checksum = 0;
	h->checksum = sum_to_zero(h, length);
}

static u8 last_bus(const struct guest_acpi_config *cfg)
{
	return cfg->roots[cfg->root_count - 1].last_bus;
}

static u64 ecam_size(const struct guest_acpi_config *cfg)
{
	return (last_bus(cfg) + 1) * MIB;
}

static void put_routing(struct aml *a, const struct guest_acpi_root *r)
{
	unsigned rows = 0;
	aml_mark all;

	/* 6.2.13: address (any function), pin, source 0: a GSI. */
	aml_name(a, "_PRT");
	for (unsigned dev = 0; dev < 32; dev++)
		rows += 4 * (r->devices >> dev & 1);
	all = aml_package(a, (u8)rows);
	for (unsigned i = 0; i < 32 * 4; i++) {
		unsigned dev = i / 4, pin = i % 4;
		aml_mark row;

		if (!(r->devices & BIT(dev)))
			continue;
		row = aml_package(a, 4);
		aml_integer(a, dev << 16 | 0xffff);
		aml_integer(a, pin);
		aml_integer(a, 0);
		aml_integer(a, vpci_line(BDF(0, dev, 0), pin + 1));
		aml_end(a, row);
	}
	aml_end(a, all);
}

static void put_window(struct aml *a, const struct guest_acpi_window *w)
{
	bool high = w->base + w->size > 4 * GIB;

	if (w->ports)
		aml_window(a, 2, AML_IO, w->base, w->size);
	else
		aml_window(a, high ? 8 : 4, AML_MEMORY, w->base, w->size);
}

static void put_root_resources(struct aml *a,
			       const struct guest_acpi_config *cfg, unsigned n)
{
	const struct guest_acpi_root *r = &cfg->roots[n];
	aml_mark crs = aml_resources(a);

	aml_window(a, 2, AML_BUS, r->bus, r->last_bus - r->bus + 1u);
	if (!n)
		aml_io(a, VPCI_ADDRESS_PORT, 8);
	for (unsigned i = 0; i < cfg->window_count; i++)
		if (cfg->windows[i].root == n)
			put_window(a, &cfg->windows[i]);
	aml_resources_end(a, crs);
}

/* The devices behind the ISA bridge, at their ports of old. */
static const struct isa_device {
	const char *name, *id;
	u16 port;
	u8 ports;
	u16 port2; /* as many more, or 0 */
	u8 line;
} isa_devices[] = {
	{"PIC", "PNP0000", 0x20, 2, 0xa0, 2},
	{"TIMR", "PNP0100", 0x40, 4, 0, VIRQ_PIT},
	{"COM1", "PNP0501", 0x3f8, 8, 0, VIRQ_COM1},
	{"RTC", "PNP0B00", 0x70, 2, 0, VIRQ_RTC},
	/* Last: where there is an 8042. */
	{"PS2K", "PNP0303", 0x60, 1, 0x64, VIRQ_KEYBOARD},
	{"PS2M", "PNP0F13", 0, 0, 0, VIRQ_MOUSE}, /* ports: the keyboard's */
};

static void put_isa_device(struct aml *a, const struct isa_device *d)
{
	aml_mark device = aml_device(a, d->name), crs;

	aml_name(a, "_HID");
	aml_eisa_id(a, d->id);
	crs = aml_resources(a);
	if (d->ports)
		aml_io(a, d->port, d->ports);
	if (d->port2)
		aml_io(a, d->port2, d->ports);
	aml_irq(a, d->line);
	aml_resources_end(a, crs);
	aml_end(a, device);
}

/* PCI Firmware 3.0, 4.1.2: ECAM is a motherboard resource. */
static void put_ecam(struct aml *a, const struct guest_acpi_config *cfg)
{
	aml_mark device, crs;

	if (!cfg->ecam)
		return;
	device = aml_device(a, "ECAM");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0C02");
	crs = aml_resources(a);
	aml_memory32(a, (u32)cfg->ecam, (u32)ecam_size(cfg));
	aml_resources_end(a, crs);
	aml_end(a, device);
}

static const char digits[] = "0123456789ABCDEF";

/* ACPI 8.4, by the IDs of the MADT. */
static void put_processors(struct aml *a, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const char name[] = {'C', 'P', digits[i / 16], digits[i % 16],
				     0};
		aml_mark device = aml_device(a, name);

		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name(a, "_UID");
		aml_integer(a, i);
		aml_end(a, device);
	}
}

static void put_isa(struct aml *a, const struct guest_acpi_config *cfg)
{
	unsigned count = ARRAY_SIZE(isa_devices) - (cfg->no_8042 ? 2 : 0);
	aml_mark isa = aml_device(a, "ISA");

	aml_name(a, "_ADR");
	aml_integer(a, 0x1f << 16); /* 00:1f.0 */
	for (unsigned i = 0; i < count; i++)
		put_isa_device(a, &isa_devices[i]);
	aml_end(a, isa);
}

/* 6.5.5, 6.5.6: what bus 0's is without being said. */
static void put_place(struct aml *a, const struct guest_acpi_root *r)
{
	aml_name(a, "_CID");
	aml_eisa_id(a, "PNP0A03");
	aml_name(a, "_SEG");
	aml_integer(a, 0);
	aml_name(a, "_BBN");
	aml_integer(a, r->bus);
}

static void put_root(struct aml *a, const struct guest_acpi_config *cfg,
		     unsigned n)
{
	const char name[] = {'P', 'C', 'I', digits[n], 0};
	aml_mark root = aml_device(a, name);

	aml_name(a, "_HID");
	aml_eisa_id(a, n ? "PNP0A08" : "PNP0A03");
	aml_name(a, "_UID");
	aml_integer(a, cfg->roots[n].bus);
	if (n)
		put_place(a, &cfg->roots[n]);
	put_root_resources(a, cfg, n);
	put_routing(a, &cfg->roots[n]);
	if (!n)
		put_isa(a, cfg);
	aml_end(a, root);
}

static void put_s5(struct aml *a)
{
	aml_mark package;

	/* 7.4.2.6: SLP_TYP for PM1a and PM1b control. */
	aml_name(a, "\\_S5_");
	package = aml_package(a, 4);
	aml_integer(a, ACPI_SLP_TYP_S5);
	for (unsigned i = 0; i < 3; i++)
		aml_integer(a, 0);
	aml_end(a, package);
}

static struct acpi_header *build_dsdt(struct builder *b,
				      const struct guest_acpi_config *cfg)
{
	struct acpi_header *h = allocate(b, sizeof(*h));
	struct aml a = {0};
	aml_mark scope;

	if (!h)
		return NULL;
	a.buf = (u8 *)(h + 1);
	a.size = (u32)(b->size - b->used);
	scope = aml_scope(&a, "\\_SB_");
	for (unsigned n = 0; n < cfg->root_count; n++)
		put_root(&a, cfg, n);
	put_ecam(&a, cfg);
	put_processors(&a, cfg->vcpus);
	aml_end(&a, scope);
	put_s5(&a);
	if (a.overflow)
		return NULL;
	b->used += a.length;
	/* Revision 2: integers have 64 bits. */
	finish(h, "DSDT", 2, sizeof(*h) + a.length);
	return h;
}

static struct facs *build_facs(struct builder *b)
{
	struct facs *facs = allocate(b, sizeof(*facs));

	if (!facs)
		return NULL;
	memcpy(facs->signature, "FACS", 4);
	facs->length = sizeof(*facs);
	facs->version = 2;
	return facs;
}

static struct gas port_register(u16 port, u8 bits, u8 access)
{
	return (struct gas){1, bits, 0, access, port};
}

static void fill_pm(struct fadt *f, const struct guest_acpi_config *cfg)
{
	f->pm1a_event = ACPI_PM1A_EVT_BLK;
	f->pm1a_control = ACPI_PM1A_CNT_BLK;
	f->pm_timer = cfg->pm_timer;
	f->pm1_event_length = ACPI_PM1_EVT_LEN;
	f->pm1_control_length = ACPI_PM1_CNT_LEN;
	f->pm_timer_length = ACPI_PM_TMR_LEN;
	f->x_pm1a_event = port_register(ACPI_PM1A_EVT_BLK, 32, 2);
	f->x_pm1a_control = port_register(ACPI_PM1A_CNT_BLK, 16, 2);
	f->x_pm_timer = port_register(cfg->pm_timer, 32, 3);
	f->reset = port_register(RESET_PORT, 8, 1);
	f->reset_value = RESET_VALUE;
}

static struct fadt *build_fadt(struct builder *b,
			       const struct guest_acpi_config *cfg,
			       const struct facs *facs,
			       const struct acpi_header *dsdt)
{
	struct fadt *f = allocate(b, sizeof(*f));

	if (!f)
		return NULL;
	f->facs = (u32)gpa_of(b, facs);
	f->x_facs = f->facs;
	f->dsdt = (u32)gpa_of(b, dsdt);
	f->x_dsdt = f->dsdt;
	f->preferred_profile = 1; /* desktop */
	f->sci = VIRQ_SCI;
	f->c2_latency = 0xffff; /* no C2, no C3 */
	f->c3_latency = 0xffff;
	f->century = RTC_CENTURY;
	f->boot_arch = BOOT_ARCH_LEGACY_DEVICES |
		       (cfg->no_8042 ? 0 : BOOT_ARCH_8042) |
		       (cfg->no_vga ? BOOT_ARCH_NO_VGA : 0);
	f->flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON |
		   FADT_NO_FIXED_RTC | FADT_RESET_REG_SUP |
		   (cfg->pm_timer_bits == 32 ? FADT_TMR_VAL_EXT : 0);
	fill_pm(f, cfg);
	memcpy(f->hypervisor, "Monocle", sizeof(f->hypervisor));
	finish(&f->header, "FACP", 6, sizeof(*f));
	return f;
}

u8 guest_acpi_ioapic_id(const u32 *apic_ids, unsigned count)
{
	u8 id = 0;

	for (unsigned i = 0; i < count; i++)
		if (apic_ids[i] == id) {
			id++;
			i = ~0u; /* they come in any order */
		}
	return id;
}

/* Appends an entry to the table that was allocated last, and grows it. */
static void put_entry(struct builder *b, const void *entry)
{
	u8 length = ((const u8 *)entry)[1];

	if (length <= b->size - b->used)
		memcpy(b->base + b->used, entry, length);
	b->used += length;
}

/* ACPI 5.2.12.1: NMIs by LINT1 of each. */
static void put_lapics(struct builder *b, const struct guest_acpi_config *cfg)
{
	const struct madt_nmi nmi = {4, sizeof(nmi), 0xff, 0, 1};
	const struct madt_x2apic_nmi nmi2 = {10, sizeof(nmi2), 0, ~0u, 1, {0}};
	bool x2apic = false;

	for (unsigned i = 0; i < cfg->vcpus; i++) {
		u32 id = cfg->apic_ids[i];
		struct madt_lapic one = {0, sizeof(one), (u8)i, (u8)id, 1};
		struct madt_x2apic two = {9, sizeof(two), 0, id, 1, i};

		x2apic |= id >= 255;
		put_entry(b, id < 255 ? (void *)&one : (void *)&two);
	}
	put_entry(b, &nmi);
	if (x2apic)
		put_entry(b, &nmi2);
}

static struct madt *build_madt(struct builder *b,
			       const struct guest_acpi_config *cfg)
{
	const struct madt_ioapic ioapic = {1, sizeof(ioapic),	 cfg->ioapic_id,
					   0, (u32)GUEST_IOAPIC, 0};
	/* The fixed wiring of vmm/core/virq.h. */
	const struct madt_override overrides[] = {
		{2, sizeof(overrides[0]), 0, VIRQ_PIT, 2, 0},
		{2, sizeof(overrides[0]), 0, VIRQ_SCI, VIRQ_SCI,
		 MPS_LEVEL_HIGH},
	};
	struct madt *madt = allocate(b, sizeof(*madt));
	u64 start = b->used - sizeof(*madt);

	if (!madt)
		return NULL;
	madt->lapic = (u32)GUEST_LAPIC;
	madt->flags = 1;
	put_lapics(b, cfg);
	put_entry(b, &ioapic);
	for (unsigned i = 0; i < ARRAY_SIZE(overrides); i++)
		put_entry(b, &overrides[i]);
	if (b->used > b->size)
		return NULL;
	finish(&madt->header, "APIC", 4, b->used - start);
	return madt;
}

static struct mcfg *build_mcfg(struct builder *b,
			       const struct guest_acpi_config *cfg)
{
	struct mcfg *mcfg = allocate(b, sizeof(*mcfg));

	if (!mcfg)
		return NULL;
	mcfg->base = cfg->ecam;
	mcfg->last_bus = last_bus(cfg);
	finish(&mcfg->header, "MCFG", 1, sizeof(*mcfg));
	return mcfg;
}

static void fill_rsdp(struct acpi_rsdp *rsdp, gpa_t rsdt, gpa_t xsdt)
{
	*rsdp = (struct acpi_rsdp){
		.revision = 2,
		.rsdt = (u32)rsdt,
		.length = sizeof(*rsdp),
		.xsdt = xsdt,
	};
	memcpy(rsdp->signature, "RSD PTR ", sizeof(rsdp->signature));
	memcpy(rsdp->oem_id, "MONOCL", sizeof(rsdp->oem_id));
	rsdp->checksum = sum_to_zero(rsdp, 20);
	rsdp->extended_checksum = sum_to_zero(rsdp, sizeof(*rsdp));
}

static int build_all(struct builder *b, const struct guest_acpi_config *cfg)
{
	struct facs *facs = build_facs(b);
	struct acpi_header *dsdt = build_dsdt(b, cfg);
	struct fadt *fadt =
		facs && dsdt ? build_fadt(b, cfg, facs, dsdt) : NULL;
	struct madt *madt = build_madt(b, cfg);
	struct mcfg *mcfg = cfg->ecam ? build_mcfg(b, cfg) : NULL;
	struct rsdt *rsdt = allocate(b, sizeof(*rsdt));
	struct xsdt *xsdt = allocate(b, sizeof(*xsdt));

	if (!fadt || !madt || !rsdt || !xsdt || (cfg->ecam && !mcfg))
		return -ENOSPC;
	xsdt->tables[0] = gpa_of(b, fadt);
	xsdt->tables[1] = gpa_of(b, madt);
	xsdt->tables[2] = mcfg ? gpa_of(b, mcfg) : 0;
	for (unsigned i = 0; i < TABLES; i++)
		rsdt->tables[i] = (u32)xsdt->tables[i];
	finish(&rsdt->header, "RSDT", 1,
	       offsetof(struct rsdt, tables[mcfg ? TABLES : TABLES - 1]));
	finish(&xsdt->header, "XSDT", 1,
	       offsetof(struct xsdt, tables[mcfg ? TABLES : TABLES - 1]));
	fill_rsdp(cfg->rsdp_host, gpa_of(b, rsdt), gpa_of(b, xsdt));
	return 0;
}

static bool config_ok(const struct guest_acpi_config *cfg)
{
	return cfg->vcpus >= 1 && cfg->vcpus <= GUEST_ACPI_VCPUS &&
	       cfg->root_count >= 1 && cfg->root_count <= GUEST_ACPI_ROOTS &&
	       cfg->rsdp_host && !(cfg->rsdp & 15) && cfg->rsdp >= 0xe0000 &&
	       cfg->rsdp + sizeof(struct acpi_rsdp) <= 0x100000 &&
	       !(cfg->tables & PAGE_MASK) && cfg->tables < 4 * GIB &&
	       cfg->tables_size <= 4 * GIB - cfg->tables &&
	       cfg->ecam + ecam_size(cfg) <= 4 * GIB;
}

int guest_acpi_build(const struct guest_acpi_config *cfg,
		     const struct region_list *map, gpa_t *rsdp)
{
	struct builder b = {.gpa = cfg->tables, .size = cfg->tables_size};

	if (config_ok(cfg))
		b.base = cfg->tables_host ? cfg->tables_host
					  : guest_ptr(map, cfg->tables,
						      cfg->tables_size);
	if (!b.base) {
		log_error("the guest's ACPI tables have no place at 0x%llx",
			  (unsigned long long)cfg->tables);
		return -EINVAL;
	}
	if (build_all(&b, cfg)) {
		log_error("the guest's ACPI tables need more than %llu bytes",
			  (unsigned long long)cfg->tables_size);
		return -ENOSPC;
	}
	*rsdp = cfg->rsdp;
	return 0;
}
