/* SPDX-License-Identifier: MIT */
#include "kernel/acpi.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"

#define RSDP_V1_SIZE 20
#define RSDP_LENGTH_MAX 64

_Static_assert(offsetof(struct acpi_rsdp, length) == RSDP_V1_SIZE,
	       "ACPI 5.2.5.3");
_Static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 5.2.5.3");

/* ACPI 5.2.9. A table of an older revision ends earlier: see field(). */
struct fadt {
	struct acpi_header header;
	u32 firmware_ctrl;
	u32 dsdt;
	u8 unused1[20];
	u32 pm1a_cnt;
	u32 pm1b_cnt;
	u32 pm2_cnt;
	u32 pm_tmr;
	u8 unused2[11];
	u8 pm_tmr_len;
	u8 unused3[20];
	u32 flags;
	u8 unused4[24];
	u64 x_dsdt;
	u8 unused5[24];
	struct acpi_gas x_pm1a_cnt;
	struct acpi_gas x_pm1b_cnt;
	struct acpi_gas x_pm2_cnt;
	struct acpi_gas x_pm_tmr;
} PACKED;

_Static_assert(offsetof(struct fadt, pm1a_cnt) == 64, "ACPI 5.2.9");
_Static_assert(offsetof(struct fadt, flags) == 112, "ACPI 5.2.9");
_Static_assert(offsetof(struct fadt, x_dsdt) == 140, "ACPI 5.2.9");
_Static_assert(offsetof(struct fadt, x_pm1a_cnt) == 172, "ACPI 5.2.9");

#define TMR_VAL_EXT BIT(8) /* of flags: the PM timer has 32 bits */

bool acpi_checksum_ok(const void *table, u32 length)
{
	const u8 *bytes = table;
	u8 sum = 0;

	for (u32 i = 0; i < length; i++)
		sum = (u8)(sum + bytes[i]);
	return sum == 0;
}

static bool reachable(hpa_t hpa, u64 size, hpa_t top)
{
	return hpa && hpa < top && size <= top - hpa;
}

/* Copies a field of n bytes for the log: firmware writes any byte there. */
static const char *printable(char *to, const char *from, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '.';
	to[n] = 0;
	return to;
}

/* The checked table at hpa, or NULL after a line that says why not. */
static const struct acpi_header *table_at(hpa_t hpa, hpa_t top)
{
	const struct acpi_header *h;
	const char *fault = NULL;
	char name[5];

	if (!reachable(hpa, sizeof(*h), top)) {
		log_warn("acpi: a table at 0x%lx is out of reach", hpa);
		return NULL;
	}
	h = phys_to_virt(hpa);
	if (h->length < sizeof(*h) || h->length > ACPI_TABLE_MAX ||
	    !reachable(hpa, h->length, top))
		fault = "length";
	else if (!acpi_checksum_ok(h, h->length))
		fault = "checksum";
	if (!fault)
		return h;
	log_warn("acpi: %s at 0x%lx has a wrong %s (%u bytes), left out",
		 printable(name, h->signature, 4), hpa, fault, h->length);
	return NULL;
}

static void list_table(const struct acpi_header *h, hpa_t hpa)
{
	char name[5], oem[7], oem_table[9];

	log_info("acpi: %s 0x%010lx %6u bytes, %s %s",
		 printable(name, h->signature, 4), hpa, h->length,
		 printable(oem, h->oem_id, 6),
		 printable(oem_table, h->oem_table_id, 8));
}

static bool is_signature(const struct acpi_header *h, const char *signature)
{
	return !memcmp(h->signature, signature, sizeof(h->signature));
}

static const struct acpi_header *add_table(struct acpi_tables *acpi, hpa_t hpa,
					   hpa_t top)
{
	const struct acpi_header *h = table_at(hpa, top);

	if (!h)
		return NULL;
	for (unsigned i = 0; i < acpi->count; i++)
		if (acpi->tables[i] == h)
			return NULL;
	if (acpi->count == ACPI_TABLES_MAX) {
		log_warn("acpi: more than %u tables, 0x%lx is left out",
			 ACPI_TABLES_MAX, hpa);
		return NULL;
	}
	list_table(h, hpa);
	acpi->tables[acpi->count++] = h;
	return h;
}

/* size bytes at offset of the table; zeros where it ends before them. */
static void field(const struct acpi_header *table, size_t offset, void *to,
		  size_t size)
{
	memset(to, 0, size);
	if (offset + size <= table->length)
		memcpy(to, (const u8 *)table + offset, size);
}

static u64 integer(const struct acpi_header *table, size_t offset, size_t size)
{
	u64 value = 0;

	field(table, offset, &value, size);
	return value;
}

#define FADT(table, name)                           \
	integer(table, offsetof(struct fadt, name), \
		sizeof(((const struct fadt *)0)->name))

/* XSDT or RSDT (ACPI 5.2.7, 5.2.8): entries of 8 or 4 bytes, unaligned. */
static void walk_root(struct acpi_tables *acpi, const struct acpi_header *root,
		      hpa_t top)
{
	u32 width = is_signature(root, "XSDT") ? 8 : 4;

	for (u32 at = sizeof(*root); at + width <= root->length; at += width) {
		const struct acpi_header *h;
		u64 hpa = 0;

		memcpy(&hpa, (const u8 *)root + at, width);
		h = hpa ? add_table(acpi, hpa, top) : NULL;
		if (!h || !is_signature(h, "FACP"))
			continue;
		/* ACPI 5.2.9: X_DSDT, where it is not 0, replaces DSDT. */
		hpa = FADT(h, x_dsdt);
		add_table(acpi, hpa ? hpa : FADT(h, dsdt), top);
	}
}

static const struct acpi_header *root_at(hpa_t hpa, hpa_t top,
					 const char *signature)
{
	const struct acpi_header *h = hpa ? table_at(hpa, top) : NULL;

	if (!h)
		return NULL;
	if (!is_signature(h, signature)) {
		log_warn("acpi: no %s at 0x%lx", signature, hpa);
		return NULL;
	}
	list_table(h, hpa);
	return h;
}

static bool rsdp_ok(hpa_t hpa, hpa_t top)
{
	return reachable(hpa, RSDP_V1_SIZE, top) &&
	       !memcmp(phys_to_virt(hpa), "RSD PTR ", 8) &&
	       acpi_checksum_ok(phys_to_virt(hpa), RSDP_V1_SIZE);
}

/* A loader may have copied 20 bytes of a longer one: then it is as old. */
static bool rsdp_has_xsdt(hpa_t hpa, hpa_t top)
{
	const struct acpi_rsdp *r = phys_to_virt(hpa);

	return r->revision >= 2 && reachable(hpa, sizeof(*r), top) &&
	       r->length >= sizeof(*r) && r->length <= RSDP_LENGTH_MAX &&
	       reachable(hpa, r->length, top) && acpi_checksum_ok(r, r->length);
}

static hpa_t rsdp_search(hpa_t from, u64 size, hpa_t top, unsigned *n)
{
	for (hpa_t hpa = from; hpa < from + size; hpa += 16)
		if (rsdp_ok(hpa, top) && !(*n)--)
			return hpa;
	return 0;
}

hpa_t acpi_find_rsdp(hpa_t top, unsigned n)
{
	u16 segment = 0;
	hpa_t ebda, found = 0;

	if (reachable(0x40e, sizeof(segment), top))
		memcpy(&segment, phys_to_virt(0x40e), sizeof(segment));
	ebda = (hpa_t)segment << 4;
	if (ebda >= 0x500 && ebda < 0xa0000)
		found = rsdp_search(ebda, KIB, top, &n);
	return found ? found : rsdp_search(0xe0000, 0x20000, top, &n);
}

int acpi_init_below(struct acpi_tables *acpi, hpa_t rsdp, hpa_t top)
{
	const struct acpi_header *root = NULL;
	const struct acpi_rsdp *r;

	acpi->count = 0;
	if (!rsdp)
		rsdp = acpi_find_rsdp(top, 0);
	if (!rsdp_ok(rsdp, top)) {
		log_error("acpi: no valid RSDP found");
		return -ENOENT;
	}
	r = phys_to_virt(rsdp);
	if (rsdp_has_xsdt(rsdp, top))
		root = root_at(r->xsdt, top, "XSDT");
	if (!root)
		root = root_at(r->rsdt, top, "RSDT");
	if (!root) {
		log_error("acpi: the RSDP names no valid XSDT or RSDT");
		return -ENOENT;
	}
	walk_root(acpi, root, top);
	return 0;
}

int acpi_init(struct acpi_tables *acpi, hpa_t rsdp)
{
	return acpi_init_below(acpi, rsdp, 4 * GIB);
}

const struct acpi_header *acpi_find(const struct acpi_tables *acpi,
				    const char *signature, unsigned n)
{
	for (unsigned i = 0; i < acpi->count; i++)
		if (is_signature(acpi->tables[i], signature) && n-- == 0)
			return acpi->tables[i];
	return NULL;
}

/* Bytes of AML not yet read. */
struct aml {
	const u8 *at, *end;
};

/* The next byte, or -1 at the end. */
static int aml_byte(struct aml *aml)
{
	return aml->at < aml->end ? *aml->at++ : -1;
}

/*
 * A PkgLength (ACPI 20.2.4), which counts itself: cuts aml down to what it
 * spans.
 */
static bool aml_package(struct aml *aml)
{
	const u8 *start = aml->at;
	int lead = aml_byte(aml);
	u32 length;

	if (lead < 0)
		return false;
	length = lead >> 6 ? lead & 15 : lead & 63;
	for (int i = 0; i < lead >> 6; i++) {
		int byte = aml_byte(aml);

		if (byte < 0)
			return false;
		length |= (u32)byte << (4 + 8 * i);
	}
	if (length > (u64)(aml->end - start))
		return false;
	aml->end = start + length;
	return true;
}

/* A constant integer (ACPI 20.2.3) below 256; -1: anything else. */
static int aml_small_int(struct aml *aml)
{
	int op = aml_byte(aml), value, rest;

	if (op == 0x00 || op == 0x01) /* ZeroOp, OneOp */
		return op;
	if (op < 0x0a || op > 0x0c) /* BytePrefix, WordPrefix, DWordPrefix */
		return -1;
	value = aml_byte(aml);
	for (rest = (1 << (op - 0x0a)) - 1; rest > 0; rest--)
		if (aml_byte(aml) != 0)
			return -1;
	return value;
}

/* At the byte behind the name _S5_: PackageOp PkgLength NumElements ... */
static bool aml_s5(struct aml aml, u8 *typ_a, u8 *typ_b)
{
	int a, b;

	if (aml_byte(&aml) != 0x12 || !aml_package(&aml) || aml_byte(&aml) < 2)
		return false;
	a = aml_small_int(&aml);
	b = aml_small_int(&aml);
	/* SLP_TYPx has 3 bits (ACPI 4.8.3.2.1). */
	if (a < 0 || a > 7 || b < 0 || b > 7)
		return false;
	*typ_a = (u8)a;
	*typ_b = (u8)b;
	return true;
}

/* NameOp, maybe a root prefix, and the name: data that looks like it fails. */
static bool is_s5_name(const u8 *start, const u8 *name)
{
	if (memcmp(name, "_S5_", 4))
		return false;
	if (name - start >= 1 && name[-1] == 0x08)
		return true;
	return name - start >= 2 && name[-1] == '\\' && name[-2] == 0x08;
}

static bool table_s5(const struct acpi_header *table, u8 *typ_a, u8 *typ_b)
{
	const u8 *start = (const u8 *)(table + 1);
	const u8 *end = (const u8 *)table + table->length;

	for (const u8 *p = start; end - p > 4; p++)
		if (is_s5_name(start, p) &&
		    aml_s5((struct aml){p + 4, end}, typ_a, typ_b))
			return true;
	return false;
}

int acpi_find_s5(const struct acpi_tables *acpi, u8 *typ_a, u8 *typ_b)
{
	for (unsigned i = 0; i < acpi->count; i++) {
		const struct acpi_header *h = acpi->tables[i];

		if ((is_signature(h, "DSDT") || is_signature(h, "SSDT")) &&
		    table_s5(h, typ_a, typ_b))
			return 0;
	}
	return -ENOENT;
}

/* A port, or 0 where the number cannot be one. */
static u16 port(u64 number)
{
	return number <= 0xffff ? (u16)number : 0;
}

/* ACPI 5.2.9: the X_ field replaces the old one where it is not 0. */
static u16 fadt_port(const struct acpi_header *fadt, u64 old, size_t x_offset)
{
	struct acpi_gas gas;

	field(fadt, x_offset, &gas, sizeof(gas));
	if (gas.space == ACPI_SPACE_IO && port(gas.address))
		return port(gas.address);
	return port(old);
}

/* Below 0x100 is what every mainboard has, and no PM timer. */
static bool is_whole(u16 pm_timer, u64 length)
{
	return length == 4 && pm_timer >= 0x100 && !(pm_timer & 3);
}

int acpi_power_init(struct acpi_power *power, const struct acpi_tables *acpi)
{
	const struct acpi_header *fadt = acpi_find(acpi, "FACP", 0);

	*power = (struct acpi_power){0};
	if (!fadt)
		return -ENOENT;
	power->pm1a_cnt = fadt_port(fadt, FADT(fadt, pm1a_cnt),
				    offsetof(struct fadt, x_pm1a_cnt));
	power->pm1b_cnt = fadt_port(fadt, FADT(fadt, pm1b_cnt),
				    offsetof(struct fadt, x_pm1b_cnt));
	power->pm_timer = fadt_port(fadt, FADT(fadt, pm_tmr),
				    offsetof(struct fadt, x_pm_tmr));
	if (is_whole(power->pm_timer, FADT(fadt, pm_tmr_len)))
		power->pm_timer_bits =
			FADT(fadt, flags) & TMR_VAL_EXT ? 32 : 24;
	power->has_s5 =
		!acpi_find_s5(acpi, &power->slp_typ_a, &power->slp_typ_b);
	return 0;
}

/* Interrupt controller structures, ACPI 5.2.12.2 and following. */
enum madt_type {
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_LAPIC_ADDRESS = 5,
	MADT_X2APIC = 9,
};

#define MADT_ENABLED 1
#define MADT_PCAT_COMPAT 1

struct madt {
	struct acpi_header header;
	u32 lapic;
	u32 flags;
} PACKED;

union madt_entry {
	struct {
		u8 type, length;
	} PACKED head;
	struct {
		u8 type, length, uid, apic_id;
		u32 flags;
	} PACKED lapic;
	struct {
		u8 type, length, id, reserved;
		u32 address, gsi_base;
	} PACKED ioapic;
	struct {
		u8 type, length, bus, irq;
		u32 gsi;
		u16 flags;
	} PACKED override;
	struct {
		u8 type, length;
		u16 reserved;
		u64 address;
	} PACKED lapic_address;
	struct {
		u8 type, length;
		u16 reserved;
		u32 apic_id, flags, uid;
	} PACKED x2apic;
};

_Static_assert(sizeof(struct madt) == 44, "ACPI 5.2.12");
_Static_assert(sizeof(union madt_entry) == 16, "ACPI 5.2.12.12");

/* Has a list room for one more? What has none is counted. */
static bool has_room(struct acpi_madt *madt, unsigned count, unsigned max)
{
	madt->lost += count == max;
	return count < max;
}

/* Firmware lists some CPUs both as LAPIC and as x2APIC. */
static void madt_cpu(struct acpi_madt *madt, u32 apic_id, u32 flags)
{
	if (!(flags & MADT_ENABLED))
		return;
	for (unsigned i = 0; i < madt->cpu_count; i++)
		if (madt->cpus[i] == apic_id)
			return;
	if (has_room(madt, madt->cpu_count, ACPI_CPUS_MAX))
		madt->cpus[madt->cpu_count++] = apic_id;
}

static void madt_add(struct acpi_madt *madt, const union madt_entry *e)
{
	switch (e->head.type) {
	case MADT_LAPIC:
		/* 255 is the broadcast: firmware marks absent CPUs so. */
		if (e->lapic.apic_id != 255)
			madt_cpu(madt, e->lapic.apic_id, e->lapic.flags);
		break;
	case MADT_X2APIC:
		madt_cpu(madt, e->x2apic.apic_id, e->x2apic.flags);
		break;
	case MADT_IOAPIC:
		if (has_room(madt, madt->ioapic_count, ACPI_IOAPICS_MAX))
			madt->ioapics[madt->ioapic_count++] =
				(struct acpi_ioapic){
					.id = e->ioapic.id,
					.address = e->ioapic.address,
					.gsi_base = e->ioapic.gsi_base,
				};
		break;
	case MADT_OVERRIDE:
		if (has_room(madt, madt->override_count, ACPI_OVERRIDES_MAX))
			madt->overrides[madt->override_count++] =
				(struct acpi_override){
					.irq = e->override.irq,
					.flags = e->override.flags,
					.gsi = e->override.gsi,
				};
		break;
	case MADT_LAPIC_ADDRESS:
		madt->lapic = e->lapic_address.address;
		break;
	}
}

/* The least length of an entry of this type; 2 for those not read. */
static u8 madt_length(u8 type)
{
	static const u8 length[] = {
		[MADT_LAPIC] = 8,     [MADT_IOAPIC] = 12,
		[MADT_OVERRIDE] = 10, [MADT_LAPIC_ADDRESS] = 12,
		[MADT_X2APIC] = 16,
	};

	return type < ARRAY_SIZE(length) && length[type] ? length[type] : 2;
}

int acpi_madt_init(struct acpi_madt *madt, const struct acpi_tables *acpi)
{
	const struct acpi_header *h = acpi_find(acpi, "APIC", 0);

	*madt = (struct acpi_madt){0};
	if (!h)
		return -ENOENT;
	madt->lapic = integer(h, offsetof(struct madt, lapic), 4);
	madt->has_8259 =
		integer(h, offsetof(struct madt, flags), 4) & MADT_PCAT_COMPAT;
	for (u32 at = sizeof(struct madt); at + 2 <= h->length;) {
		u8 type = ((const u8 *)h)[at], length = ((const u8 *)h)[at + 1];
		union madt_entry entry = {0};

		if (length < madt_length(type) || length > h->length - at) {
			log_warn("acpi: APIC entry at %u has a wrong length",
				 at);
			break;
		}
		memcpy(&entry, (const u8 *)h + at, MIN(length, sizeof(entry)));
		madt_add(madt, &entry);
		at += length;
	}
	if (madt->lost)
		log_warn("acpi: %u APIC entries are too many", madt->lost);
	return 0;
}

/* PCI Firmware 3.0, table 4-3; the table has 8 reserved bytes before. */
struct mcfg_entry {
	u64 base;
	u16 segment;
	u8 first_bus, last_bus;
	u32 reserved;
} PACKED;

_Static_assert(sizeof(struct mcfg_entry) == 16, "PCI Firmware 3.0, 4.1.2");

int acpi_mcfg_init(struct acpi_mcfg *mcfg, const struct acpi_tables *acpi)
{
	const struct acpi_header *h = acpi_find(acpi, "MCFG", 0);
	struct mcfg_entry e;

	*mcfg = (struct acpi_mcfg){0};
	if (!h)
		return -ENOENT;
	for (u32 at = sizeof(*h) + 8; at + sizeof(e) <= h->length;
	     at += (u32)sizeof(e)) {
		memcpy(&e, (const u8 *)h + at, sizeof(e));
		if (e.segment || e.first_bus || !e.base || e.base % MIB)
			continue;
		*mcfg = (struct acpi_mcfg){e.base, e.last_bus};
		return 0;
	}
	return -ENOENT;
}

/* Where that type's is, by the Generic Address Structure at that offset. */
static u64 uart_at(const struct acpi_header *h, u64 type, u64 offset)
{
	struct acpi_gas g;

	field(h, offset, &g, sizeof(g));
	/* Debug Port Table 2, table 3: 16550 (0, 1, 0x12), Intel's LPSS. */
	if (type > 1 && type != 0x12 && type != 0x14)
		return 0;
	if (g.space == ACPI_SPACE_IO)
		return g.address <= 0xfff8 ? g.address : 0;
	/* Access size 3: doublewords (ACPI 5.2.3.2), four bytes apart. */
	if (g.space != ACPI_SPACE_MEMORY || g.address <= 0xffff ||
	    g.address % 4 ||
	    (g.access_size != 3 && g.bit_width != 32 && type != 0x14))
		return 0;
	return g.address;
}

/* Debug Port Table 2, tables 1 and 2. */
static u64 debug_uart(const struct acpi_header *h)
{
	u64 at = integer(h, 36, 4), count = integer(h, 40, 4), found = 0;

	for (; !found && count && at < h->length; count--) {
		u64 length = integer(h, at + 1, 2);

		if (length < 22)
			break;
		if (integer(h, at + 12, 2) == 0x8000) /* serial */
			found = uart_at(h, integer(h, at + 14, 2),
					at + integer(h, at + 18, 2));
		at += length;
	}
	return found;
}

u64 acpi_uart(const struct acpi_tables *acpi)
{
	const struct acpi_header *spcr = acpi_find(acpi, "SPCR", 0);
	const struct acpi_header *dbg2 = acpi_find(acpi, "DBG2", 0);
	/* SPCR, table 1: the type, the registers. */
	u64 at = spcr ? uart_at(spcr, integer(spcr, 36, 1), 40) : 0;

	return at || !dbg2 ? at : debug_uart(dbg2);
}

/* LPIT revision 1, table 2: state of type 0, entered by an instruction. */
struct lpit_entry {
	u32 type, length;
	u32 id;
	u32 flags; /* bit 0: not to be used */
	struct acpi_gas trigger;
} PACKED;

_Static_assert(sizeof(struct lpit_entry) == 28, "LPIT, table 2");

u32 acpi_lpit(const struct acpi_tables *acpi)
{
	const struct acpi_header *h = acpi_find(acpi, "LPIT", 0);
	struct lpit_entry e = {0};
	u64 hint = 0;

	for (u32 at = sizeof(*h); h && at + sizeof(e) <= h->length;
	     at += e.length) {
		memcpy(&e, (const u8 *)h + at, sizeof(e));
		if (e.length < sizeof(e) || e.length > h->length - at)
			break;
		if (!e.type && !(e.flags & 1) &&
		    e.trigger.space == ACPI_SPACE_FIXED &&
		    e.trigger.address <= 0xff)
			hint = MAX(hint, e.trigger.address);
	}
	return (u32)hint;
}
