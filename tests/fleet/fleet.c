/* SPDX-License-Identifier: MIT */
/*
 * Monocle's start on a machine on paper: boot/main.c itself, on what model.c
 * models, up to the first VM entry. tests/fleet/fleet.py runs it and judges.
 *
 *   fleet FILE "COMMAND LINE" MEMORY-FD
 *
 * FILE: one statement a line, numbers in hexadecimal, '#' starts a comment:
 *   name TEXT  note TEXT  option WORDS    for the report; fleet.py's
 *   requester BB:DD.F BB:DD.F    whose requests carry the other's ID; likewise
 *   ecam BASE                    of bus 0 (else: the MCFG table's)
 *   e820 BASE SIZE KIND          Multiboot2's kinds 1-5
 *   acpi ADDRESS SIGNATURE HEX   a table as dumped, at that address
 *   cpuid LEAF SUBLEAF A B C D
 *   msr NUMBER VALUE
 *   tsc HZ                       (else: as CPUID has it, or 2.4 GHz)
 *   pit on|off                   the 8254's clock runs
 *   pmtimer on|off               the FADT's timer runs
 *   cfg BB:DD.F OFFSET HEX       configuration space
 *   msk BB:DD.F OFFSET HEX       its writable bits
 *   mem ADDRESS HEX              bytes in memory
 *   unit ADDRESS CAP ECAP [GSTS] a remapping unit that answers
 *   stuck ADDRESS                that unit does not do as it is told
 *   fb BASE PITCH W H BPP        a frame buffer
 *   after BB:DD.F|mem AT MASK VALUE   a dword as a guest's start must leave it
 *
 * Standard output: the log, then lines "fact ..." of what was found. Status
 * 0: there is a result; 65: a statement that is not one; 70: the model.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/vmx/vmx_check.h"
#include "boot/main.c"
#include "tests/fleet/model.h"

#define BOOT_STACK (8 * MIB)
#define TABLES_AT 0xe0000 /* RSDP and XSDT: no machine has them where it can */
#define TAGS_ROOM (256 * KIB)
#define KERNEL_SIZE (8 * MIB)
#define INITRD_SIZE (40 * MIB)
#define BIOS_SIZE (128 * KIB)
#define FIRMWARE "firmware " /* before the command line: in a kernel's place */

static void tell_change(const char *what)
{
	printf("fact changed %s\n", what);
}

static void tell_own(u64 base, u64 size)
{
	printf("fact own %llx %llx\n", (unsigned long long)base,
	       (unsigned long long)size);
}

static NORETURN void leave(const char *how)
{
	printf("\nfact end %s\n", how);
	fflush(stdout);
	/* Not exit(): the stack is Monocle's. */
	_exit(0);
}

/* kernel/panic.c's last word: what the log's last line says is the end. */
void cpu_stop(void)
{
	model_changes(tell_change);
	/* The machine stays on for who reads port 0xE9, as is done here. */
	model.tell_ports = true;
	if (machine_power_off)
		machine_power_off();
	leave("stopped");
}

/* The boot CPU runs on a stack of this program's; its pages count. */
void *__real_stack_alloc(void);
void *__wrap_stack_alloc(void);

void *__wrap_stack_alloc(void)
{
	static u8 *top;
	void *stack = __real_stack_alloc();

	if (stack && !top)
		top = (u8 *)aligned_alloc(PAGE_SIZE, BOOT_STACK) + BOOT_STACK;
	return stack ? top : NULL;
}

/* -- the guest, as it would look for its devices */

static u32 guest_port(u16 port, unsigned size, bool write, u32 value)
{
	struct bus_access a = {port, size, write, value};

	bus_dispatch(&machine.vm.bus, BUS_PORT, &a);
	return (u32)a.value;
}

/* PCI 3.0, 3.2.2.3.2 */
static u16 guest_select(unsigned bdf, unsigned at)
{
	guest_port(0xcf8, 4, true, 0x80000000u | bdf << 8 | (at & 0xfc));
	return (u16)(0xcfc + (at & 3));
}

static u32 config_of(unsigned bdf, unsigned at, unsigned size)
{
	return guest_port(guest_select(bdf, at), size, false, 0);
}

static void set_config(unsigned bdf, unsigned at, unsigned size, u32 value)
{
	guest_port(guest_select(bdf, at), size, true, value);
}

static void guest_store(gpa_t gpa, u32 value)
{
	struct bus_access a = {gpa, 4, true, value};

	bus_dispatch(&machine.vm.bus, BUS_MMIO, &a);
}

static u32 guest_probe(unsigned bdf, unsigned at)
{
	u32 old = config_of(bdf, at, 4), mask;

	set_config(bdf, at, 4, ~0u);
	mask = config_of(bdf, at, 4);
	set_config(bdf, at, 4, old);
	return mask;
}

static u64 guest_bar(unsigned bdf, unsigned n)
{
	u32 low = config_of(bdf, 0x10 + 4 * n, 4);
	u64 high = (low & 7) == 4 ? config_of(bdf, 0x14 + 4 * n, 4) : 0;

	return high << 32 | (low & (low & 1 ? ~3u : ~15u));
}

/* As a guest's driver model sizes it, decode off meanwhile (6.2.5.1). */
static void guest_bars(unsigned bdf)
{
	u32 command = config_of(bdf, PCI_COMMAND, 2);

	set_config(bdf, PCI_COMMAND, 2, command & ~3u);
	for (unsigned n = 0; n < 6; n++) {
		u32 low = config_of(bdf, 0x10 + 4 * n, 4);
		bool io = low & 1, wide = !io && (low & 6) == 4 && n < 5;
		u64 mask = guest_probe(bdf, 0x10 + 4 * n) &
			   (io ? 0xfffffffcu : 0xfffffff0u);

		if (wide)
			mask |= (u64)guest_probe(bdf, 0x14 + 4 * n) << 32;
		if (mask)
			printf("fact bar %02x:%02x.%x %u %s %llx %llx\n",
			       BDF_ARGS(bdf), n, io ? "ports" : "memory",
			       (unsigned long long)guest_bar(bdf, n),
			       (unsigned long long)(mask & (~mask + 1)));
		n += wide;
	}
	set_config(bdf, PCI_COMMAND, 2, command);
}

/* Which buses a guest would look at is for judge.py to say. */
static void guest_bus(unsigned bus)
{
	for (unsigned at = 0; at < 256; at++) {
		unsigned bdf = bus << 8 | at, type;
		u32 id = config_of(bdf, PCI_VENDOR, 4);

		if ((u16)id == 0xffff || !(u16)id) {
			at |= at & 7 ? 0 : 7; /* no others without function 0 */
			continue;
		}
		type = config_of(bdf, PCI_HEADER_TYPE, 1);
		printf("fact seen %02x:%02x.%x %04x:%04x %04x\n", BDF_ARGS(bdf),
		       (u16)id, id >> 16, config_of(bdf, PCI_CLASS, 2));
		if ((type & 0x7f) == 0)
			guest_bars(bdf);
		else if ((type & 0x7f) == 1)
			printf("fact leads %02x:%02x.%x %x\n", BDF_ARGS(bdf),
			       config_of(bdf, PCI_SECONDARY_BUS, 1));
		if (!(at & 7) && !(type & 0x80))
			at |= 7;
	}
}

static unsigned guest_capability(unsigned bdf, u8 id)
{
	unsigned at = config_of(bdf, PCI_CAPABILITIES, 1);

	if (!(config_of(bdf, PCI_STATUS, 2) & 0x10))
		return 0;
	for (unsigned i = 0; at >= 0x40 && i < 48; i++) {
		if (config_of(bdf, at & ~3u, 1) == id)
			return at & ~3u;
		at = config_of(bdf, (at & ~3u) + 1, 1);
	}
	return 0;
}

/* The host's register, as a driver of the function's would find it. */
static u32 host_config(unsigned bdf, unsigned at, unsigned size)
{
	return pci_config_read(&host.pci, (bdf_t)bdf, at, size);
}

/* The guest's message on: the host's has to be, and to an entry of its own. */
static const char *try_msi(unsigned bdf, unsigned at)
{
	unsigned cap = pci_find_capability(&host.pci, (bdf_t)bdf, PCI_CAP_MSI);
	u32 control = config_of(bdf, at + 2, 2);

	set_config(bdf, at + 4, 4, 0xfee00000);
	if (control & 0x80)
		set_config(bdf, at + 8, 4, 0);
	set_config(bdf, at + (control & 0x80 ? 12 : 8), 2, 0x41);
	set_config(bdf, at + 2, 2, control | 1);
	if (!cap || !(host_config(bdf, cap + 2, 2) & 1))
		return "stays off";
	return model_message(host_config(bdf, cap + 4, 4));
}

static const char *try_msix(unsigned bdf, unsigned at)
{
	unsigned cap = pci_find_capability(&host.pci, (bdf_t)bdf, PCI_CAP_MSIX);
	u32 control = config_of(bdf, at + 2, 2), table, place;
	const struct pci_function *f = pci_find(&host.pci, (bdf_t)bdf);
	gpa_t gpa;

	table = config_of(bdf, at + 4, 4);
	gpa = guest_bar(bdf, table & 7) + (table & ~7u);
	set_config(bdf, at + 2, 2, (control & ~0x4000u) | 0x8000);
	guest_store(gpa, 0xfee00000);
	guest_store(gpa + 4, 0);
	guest_store(gpa + 8, 0x41);
	guest_store(gpa + 12, 0);
	if (!cap || !(host_config(bdf, cap + 2, 2) & 0x8000))
		return "stays off";
	place = host_config(bdf, cap + 4, 4);
	if (!f || !f->bars[place & 7].base)
		return "has no table";
	return model_message(mmio_read32(
		(u8 *)phys_to_virt(f->bars[place & 7].base + (place & ~7u))));
}

static void guest_interrupts(unsigned bdf)
{
	unsigned msix = guest_capability(bdf, PCI_CAP_MSIX);
	unsigned msi = guest_capability(bdf, PCI_CAP_MSI);
	const char *why = msix	? try_msix(bdf, msix)
			  : msi ? try_msi(bdf, msi)
				: NULL;

	printf("fact interrupt %02x:%02x.%x %s pin %u %s\n", BDF_ARGS(bdf),
	       msix  ? "MSI-X"
	       : msi ? "MSI"
		     : "line",
	       config_of(bdf, PCI_INTERRUPT_PIN, 1), why ? why : "ok");
}

static void tell_ranges(enum bus_space space, const char *name)
{
	const struct bus *bus = &machine.vm.bus;

	for (unsigned i = 0; i < bus->count[space]; i++)
		printf("fact trapped %s %llx %llx\n", name,
		       (unsigned long long)bus->ranges[space][i].first,
		       (unsigned long long)bus->ranges[space][i].last);
}

/* SDM 25.6.4: what the guest reaches without an exit. */
static void tell_open_ports(void)
{
	const u8 *bitmap = machine.vm.io_bitmap;
	unsigned first = 0, port = 0;
	bool was = false;

	for (; port <= 0x10000; port++) {
		bool open =
			port < 0x10000 && !(bitmap[port / 8] >> port % 8 & 1);

		if (open && !was)
			first = port;
		if (!open && was)
			printf("fact open %x %x\n", first, port - 1);
		was = open;
	}
}

static void tell_given(void)
{
	for (unsigned i = 0; i < machine.assign.count; i++) {
		const struct assigned *a = &machine.assign.functions[i];

		printf("fact given %02x:%02x.%x\n", BDF_ARGS(a->function->bdf));
	}
}

static struct after {
	char where[16];
	u64 at;
	u32 mask, value;
} afters[32];
static unsigned after_count;

static bool read_after(const char *s)
{
	struct after *a = &afters[after_count];

	if (after_count == ARRAY_SIZE(afters) ||
	    sscanf(s, " %15s %llx %x %x", a->where,
		   (unsigned long long *)&a->at, &a->mask, &a->value) != 4)
		return false;
	after_count++;
	return a->at < (strcmp(a->where, "mem") ? 4096 : SPACE - 4);
}

static void tell_after(void)
{
	for (unsigned i = 0; i < after_count; i++) {
		const struct after *a = &afters[i];
		unsigned bus, dev, fn;
		u32 is = 0;

		if (sscanf(a->where, "%x:%x.%x", &bus, &dev, &fn) == 3)
			is = host_config(BDF(bus, dev, fn), (unsigned)a->at, 4);
		else
			memcpy(&is, model.space + a->at, 4);
		if ((is & a->mask) != a->value)
			printf("fact differs %s at 0x%llx: 0x%x\n", a->where,
			       (unsigned long long)a->at, is);
	}
}

/* On the machine: Monocle's own list may lack some. */
static void tell_masters(void)
{
	for (unsigned bdf = 0; bdf < 0x10000; bdf++)
		if (model.functions[bdf] &&
		    model.functions[bdf]->config[PCI_COMMAND] &
			    PCI_COMMAND_MASTER)
			printf("fact master %02x:%02x.%x\n", BDF_ARGS(bdf));
}

/* What firmware in the guest reads: its files are filled when selected. */
static void tell_tables(void)
{
	struct bus_access a = {.addr = 0x510, .size = 2, .write = true};

	for (a.value = 32; a.value < 48; a.value++)
		bus_dispatch(&machine.vm.bus, BUS_PORT, &a);
	printf("fact tables %llx %llx\n",
	       (unsigned long long)virt_to_phys(machine.firmware.tables),
	       (unsigned long long)machine.firmware.rsdp.xsdt);
}

/* The guest is entered: arch/x86/vmx/entry.asm. */
int vmx_enter(struct vmx_frame *frame)
{
	(void)frame;
	/* Says what a CPU would not enter, by the SDM. */
	printf("\nfact entry %d\n", vmx_check(&host.vmx));
	printf("fact left %llx\n",
	       (unsigned long long)phys_total(&host_memory));
	printf("fact tsc %llu %llu\n", (unsigned long long)host.tsc_hz,
	       (unsigned long long)model.tsc_hz);
	tell_given();
	tell_after();
	tell_masters();
	model_own_pages(tell_own);
	tell_own(virt_to_phys(machine.vm.io_bitmap), 2 * PAGE_SIZE);
	tell_own(virt_to_phys(machine.vm.msr_bitmap), 2 * PAGE_SIZE);
	for (unsigned i = 0; i < host.boot.module_count; i++)
		tell_own(host.boot.modules[i].start, host.boot.modules[i].size);
	for (unsigned bus = 0; bus < 256; bus++)
		guest_bus(bus);
	tell_ranges(BUS_MMIO, "memory");
	tell_ranges(BUS_PORT, "ports");
	tell_open_ports();
	if (machine.firmware.image)
		tell_tables();
	for (unsigned i = 0; i < machine.assign.count; i++)
		guest_interrupts(machine.assign.functions[i].function->bdf);
	leave("starts");
}

/* -- reading the file */

static const char *hex_bytes(const char *s, u8 *to, u64 room, u64 *count)
{
	for (*count = 0;; s += 2) {
		unsigned v;

		while (isspace((u8)*s))
			s++;
		if (!*s || *s == '#')
			return NULL;
		if (!isxdigit((u8)s[0]) || !isxdigit((u8)s[1]) ||
		    *count == room)
			return s;
		sscanf(s, "%2x", &v);
		to[(*count)++] = (u8)v;
	}
}

/* Up to max numbers; how many there are, -1 where something else stands. */
static int numbers(const char *s, u64 *to, int max)
{
	int n = 0;

	for (;; n++) {
		char *after;

		while (isspace((u8)*s))
			s++;
		if (!*s || *s == '#')
			return n;
		if (n == max || !isxdigit((u8)*s))
			return -1;
		to[n] = strtoull(s, &after, 16);
		if (*after && !isspace((u8)*after))
			return -1;
		s = after;
	}
}

static bool read_memory(const char *s, u64 *at, u64 *size)
{
	char *data;

	*at = strtoull(s, &data, 16);
	return data != s && *at < SPACE &&
	       !hex_bytes(data, model.space + *at, SPACE - *at, size);
}

static bool read_row(const char *s)
{
	u64 n[3];

	if (numbers(s, n, 3) != 3 || model.row_count == MODEL_ROWS)
		return false;
	model.rows[model.row_count++] =
		(struct model_row){n[0], n[1], (u32)n[2], 0};
	return true;
}

static bool read_table(const char *s)
{
	struct model_table *t = &model.tables[model.table_count];
	char *after;
	u64 size;

	if (model.table_count == MODEL_ROWS)
		return false;
	t->at = strtoull(s, &after, 16);
	if (sscanf(after, " %4s", t->signature) != 1 || t->at >= SPACE)
		return false;
	after = strstr(after, t->signature) + strlen(t->signature);
	if (hex_bytes(after, model.space + t->at, SPACE - t->at, &size))
		return false;
	t->length = (u32)size;
	model.table_count++;
	return true;
}

static bool read_config(const char *s, bool mask)
{
	unsigned bus, dev, fn, at;
	struct model_function *f;
	u64 size;
	int used;

	if (sscanf(s, " %x:%x.%x %x%n", &bus, &dev, &fn, &at, &used) != 4 ||
	    bus > 255 || dev > 31 || fn > 7 || at >= 4096)
		return false;
	f = model_function(BDF(bus, dev, fn));
	return !hex_bytes(s + used, (mask ? f->mask : f->config) + at,
			  4096 - at, &size);
}

static bool read_switch(const char *s, bool *off)
{
	char word[8] = "";

	sscanf(s, " %7s", word);
	*off = !strcmp(word, "off");
	return *off || !strcmp(word, "on");
}

static bool read_numbers(const char *name, const char *s)
{
	u64 n[6] = {0};
	int count = numbers(s, n, 6);

	if (!strcmp(name, "ecam") && count == 1) {
		model.ecam = n[0];
		model.ecam_size = 256 * MIB;
	} else if (!strcmp(name, "cpuid") && count == 6) {
		model_cpuid((u32)n[0], (u32)n[1], n + 2);
	} else if (!strcmp(name, "msr") && count == 2) {
		model_msr((u32)n[0], n[1]);
	} else if (!strcmp(name, "tsc") && count == 1 && n[0]) {
		model.tsc_hz = n[0];
	} else if (!strcmp(name, "unit") && (count == 3 || count == 4) &&
		   n[0] < SPACE - 64 * KIB) {
		model_unit(n[0], n[1], n[2], (u32)n[3]);
	} else if (!strcmp(name, "stuck") && count == 1) {
		model_stuck(n[0]);
	} else if (!strcmp(name, "fb") && count == 5) {
		memcpy(model.fb, n, sizeof(model.fb));
	} else {
		return false;
	}
	return true;
}

static bool statement(const char *line)
{
	char name[16] = "";
	const char *s = line;
	u64 at, size;
	int used = 0;

	sscanf(line, " %15[^ \t\r\n]%n", name, &used);
	s += used;
	if (!*name || *name == '#' || !strcmp(name, "name") ||
	    !strcmp(name, "note") || !strcmp(name, "option") ||
	    !strcmp(name, "requester"))
		return true;
	if (!strcmp(name, "e820"))
		return read_row(s);
	if (!strcmp(name, "after"))
		return read_after(s);
	if (!strcmp(name, "acpi"))
		return read_table(s);
	if (!strcmp(name, "cfg") || !strcmp(name, "msk"))
		return read_config(s, *name == 'm');
	if (!strcmp(name, "mem"))
		return read_memory(s, &at, &size);
	if (!strcmp(name, "pit"))
		return read_switch(s, &model.pit_stopped);
	if (!strcmp(name, "pmtimer"))
		return read_switch(s, &model.pm_timer_stopped);
	return read_numbers(name, s);
}

static void read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	unsigned number = 0, bad = 0;
	char *line = NULL;
	size_t room = 0;

	if (!file) {
		printf("fact bad cannot be opened\n");
		exit(65);
	}
	while (getline(&line, &room, file) > 0) {
		number++;
		if (statement(line))
			continue;
		printf("fact bad line %u: %.40s\n", number, line);
		bad++;
	}
	fclose(file);
	free(line);
	if (bad)
		exit(65);
}

/* -- what the loader leaves */

static u32 tags_length = 8;
static u8 tags[TAGS_ROOM];

static void tag(u32 type, const void *data, u64 size)
{
	u32 head[2] = {type, (u32)size + 8};

	if (tags_length + size + 16 > sizeof(tags)) {
		printf("fact bad too much for the loader\n");
		exit(65);
	}
	memcpy(tags + tags_length, head, 8);
	memcpy(tags + tags_length + 8, data, size);
	tags_length += (u32)ALIGN_UP(size + 8, 8);
}

static u8 checksum(const u8 *p, u32 size)
{
	u8 sum = 0;

	while (size--)
		sum = (u8)(sum + *p++);
	return (u8)-sum;
}

static bool is_named(const char *signature)
{
	static const char *const none[] = {"DSDT", "FACS", "XSDT", "RSDT"};

	for (unsigned i = 0; i < ARRAY_SIZE(none); i++)
		if (!strcmp(signature, none[i]))
			return false;
	return true;
}

/* ACPI 5.2.5.3, 5.2.8 */
static void make_rsdp(void)
{
	u8 *r = model.space + TABLES_AT, *x = r + 0x1000;
	u32 length = 36;
	u64 at = TABLES_AT + 0x1000;

	if (!model.table_count)
		return;
	memcpy(x, "XSDT", 4);
	x[8] = 1;
	for (unsigned i = 0; i < model.table_count; i++)
		if (is_named(model.tables[i].signature)) {
			memcpy(x + length, &model.tables[i].at, 8);
			length += 8;
		}
	memcpy(x + 4, &length, 4);
	x[9] = checksum(x, length);
	memcpy(r, "RSD PTR ", 8);
	r[15] = 2;
	r[20] = 36;
	memcpy(r + 24, &at, 8);
	r[8] = checksum(r, 20);
	r[32] = checksum(r, 36);
	tag(15, r, 36);
}

static bool is_free_ram(u64 base, u64 size)
{
	u64 end = base + size;

	for (unsigned i = 0; i < model.row_count; i++) {
		const struct model_row *r = &model.rows[i];

		if (r->kind != 1 && r->base < end && base < r->base + r->size)
			return false;
	}
	return model_is_ram(base) && model_is_ram(end - 1);
}

static u64 take_low(u64 size, u64 from)
{
	u64 at = ALIGN_UP(from, PAGE_SIZE);

	while (at < 4 * GIB && !is_free_ram(at, size))
		at += at < MIB ? PAGE_SIZE : MIB;
	return at < 4 * GIB ? at : MIB;
}

/* On 2 MiB, as high as it goes: boot/start.asm asks for it. */
static u64 take_high(u64 size)
{
	u64 at = ALIGN_DOWN(4 * GIB - size, 2 * MIB);

	while (at > 2 * MIB && !is_free_ram(at, size))
		at -= 2 * MIB;
	return at;
}

static void put_module(u64 at, u64 size, const char *words)
{
	struct {
		u32 start, end;
		char words[64];
	} m = {(u32)at, (u32)(at + size), ""};

	snprintf(m.words, sizeof(m.words), "%s", words);
	tag(3, &m, 8 + strlen(m.words) + 1);
}

/* The smallest bzImage that the loader takes: Linux, boot.rst. */
static void make_kernel(u8 *k)
{
	static const struct {
		u16 at;
		u8 size;
		u32 value;
	} fields[] = {
		{0x1f1, 1, 1},		{0x1f4, 4, (KERNEL_SIZE - 1024) / 16},
		{0x1fe, 2, 0xaa55},	{0x201, 1, 0x66},
		{0x206, 2, 0x20f},	{0x211, 1, 1},
		{0x22c, 4, 0x7fffffff}, {0x230, 4, 0x200000},
		{0x234, 1, 1},		{0x236, 2, 0x3f},
		{0x238, 4, 2047},	{0x258, 4, 0x1000000},
		{0x260, 4, 56 * MIB},
	};

	memcpy(k + 0x202, "HdrS", 4);
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		memcpy(k + fields[i].at, &fields[i].value, fields[i].size);
}

static void make_modules(bool firmware)
{
	u64 kernel = take_low(KERNEL_SIZE, 32 * MIB);

	/* The smallest that is taken for a PC's, and is never run. */
	if (firmware) {
		model.space[kernel + BIOS_SIZE - 16] = 0xea;
		put_module(kernel, BIOS_SIZE, "firmware");
		return;
	}
	make_kernel(model.space + kernel);
	put_module(kernel, KERNEL_SIZE, "kernel console=tty0");
	put_module(take_low(INITRD_SIZE, kernel + KERNEL_SIZE), INITRD_SIZE,
		   "initrd");
}

static void make_framebuffer(void)
{
	struct PACKED {
		u64 base;
		u32 pitch, width, height;
		u8 bpp, type;
		u16 reserved;
		u8 fields[6];
	} fb = {.base = model.fb[0],
		.pitch = (u32)model.fb[1],
		.width = (u32)model.fb[2],
		.height = (u32)model.fb[3],
		.bpp = (u8)model.fb[4],
		.type = 1,
		.fields = {16, 8, 8, 8, 0, 8}};

	if (fb.base)
		tag(8, &fb, sizeof(fb));
}

static void make_memory_map(void)
{
	static u8 map[8 + sizeof(model.rows)];
	u32 head[2] = {sizeof(struct model_row), 0};

	memcpy(map, head, sizeof(head));
	memcpy(map + 8, model.rows, sizeof(model.rows));
	tag(6, map, 8 + model.row_count * sizeof(struct model_row));
}

/* Multiboot2 3.6; the address of it. */
static u32 make_boot_information(const char *words, bool firmware)
{
	char line[1024];
	u64 at;

	model.image = take_high((u64)(image_end - image_start));
	make_memory_map();
	snprintf(line, sizeof(line), "%s log=e9", words);
	tag(1, line, strlen(line) + 1);
	tag(2, "the fleet", 10);
	make_rsdp();
	make_modules(firmware);
	make_framebuffer();
	tag(0, "", 0);
	at = take_low(tags_length, 64 * KIB);
	memcpy(tags, &tags_length, 4);
	memcpy(model.space + at, tags, tags_length);
	return (u32)at;
}

/* PCI Firmware 3.0, 4.1.2: segment 0, if the file does not say it. */
static void find_ecam(void)
{
	const struct model_table *t = model_table("MCFG");
	u64 base;

	if (!t || t->length < 60)
		return;
	memcpy(&base, model.space + t->at + 44, 8);
	if (model.ecam_size && base != model.ecam)
		return;
	model.ecam = base;
	model.ecam_size = (model.space[t->at + 55] + 1ull) * MIB;
}

int main(int argc, char **argv)
{
	u32 information;
	bool firmware;

	if (argc != 4) {
		fprintf(stderr, "usage: fleet FILE \"COMMAND LINE\" FD\n");
		return 64;
	}
	setvbuf(stdout, NULL, _IOFBF, 1 << 20);
	alarm(120);
	model_open(atoi(argv[3]));
	read_file(argv[1]);
	find_ecam();
	model_finish();
	firmware = !strncmp(argv[2], FIRMWARE, strlen(FIRMWARE));
	information = make_boot_information(
		argv[2] + (firmware ? strlen(FIRMWARE) : 0), firmware);
	boot_main(MULTIBOOT2_MAGIC, information, (u32)model.image);
}
