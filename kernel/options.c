/* SPDX-License-Identifier: MIT */
#include "kernel/options.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/log_sink.h"
#include "kernel/string.h"

enum kind { FLAG, CHOICE, SWITCH, SET, SIZE, WORD };

struct option {
	const char *name;
	enum kind kind;
	size_t offset;		/* in struct options */
	const char *choices[6]; /* CHOICE: value n; SET: bit n; SWITCH: value n,
				 * and 1 for the bare word */
	const char *help;
};

#define AT(field) offsetof(struct options, field)

static const struct option table[] = {
	{"ram",
	 CHOICE,
	 AT(ram),
	 {"relocated", "identity"},
	 "guest-physical memory: laid out anew, or 1:1 with the host's"},
	{"guest",
	 CHOICE,
	 AT(guest),
	 {"kernel", "bios"},
	 "the module 'kernel' is a kernel, or a boot sector for the host's "
	 "BIOS (with ram=identity)"},
	{"memory",
	 SIZE,
	 AT(memory),
	 {0},
	 "guest RAM at most, as 512M or 2G (default: all there is)"},
	{"cpus",
	 SIZE,
	 AT(cpus),
	 {0},
	 "CPUs of the guest at most; the others sleep (default: all there "
	 "are)"},
	{"log",
	 SET,
	 AT(sinks),
	 {"com1", "com2", "e9", "screen", "pci", "uart"},
	 "where the log goes, comma-separated (default: com1,screen); pci: a "
	 "PCI serial port, as AMT's; uart: the one that SPCR or DBG2 names"},
	{"quiet", FLAG, AT(quiet), {0}, "only errors and the last line"},
	{"debug", FLAG, AT(debug), {0}, "more lines"},
	{"no-vga", FLAG, AT(no_vga), {0}, "keep the VGA card from the guest"},
	{"assign",
	 WORD,
	 0,
	 {0},
	 "for the guest (repeatable, at most 32): all: graphics, USB, sound, "
	 "disks, network and SD (,-BB:DD.F: but that one); or BB:DD.F, "
	 "VENDOR:DEVICE, class=CCSS (,gsi=N: its INTx by that I/O APIC pin)"},
	{"strict-groups",
	 FLAG,
	 AT(strict_groups),
	 {0},
	 "a function is assigned only with all that it can reach past the "
	 "IOMMU"},
	{"usb-firmware",
	 FLAG,
	 AT(usb_firmware),
	 {0},
	 "USB controllers with RMRRs stay with their firmware, which makes a "
	 "PS/2 keyboard of a USB one"},
	{"igd",
	 SWITCH,
	 AT(igd),
	 {"off", "open", "closed"},
	 "assign Intel's graphics at 00:02.0; closed: its memory, or another "
	 "display's, waits for the guest's hypercall"},
	{"igd-gen",
	 SIZE,
	 AT(igd_gen),
	 {0},
	 "5 to 12: the generation of Intel's graphics (default: by its ID)"},
	{"igd-reset",
	 CHOICE,
	 AT(igd_reset),
	 {"auto", "never", "reboot", "always"},
	 "when the display is reset and its video BIOS run; auto: at reboots, "
	 "where a video BIOS can bring the picture back"},
	{"igd-dma",
	 CHOICE,
	 AT(igd_dma),
	 {"remapped", "direct"},
	 "direct (with ram=identity): for graphics whose DMA must not be "
	 "remapped; they alone then reach all memory"},
	{"rom-init",
	 FLAG,
	 AT(rom_init),
	 {0},
	 "run the display's video BIOS before the guest's first start, too"},
	{"no-hypervisor-bit",
	 FLAG,
	 AT(no_hypervisor_bit),
	 {0},
	 "CPUID does not say that there is a hypervisor, for drivers that do "
	 "other things under one (i915 on Meteor Lake)"},
	{"iommu",
	 CHOICE,
	 AT(iommu),
	 {"strict", "off"},
	 "strict: a device that does DMA is assigned behind VT-d only"},
	{"unsafe-dma",
	 FLAG,
	 AT(unsafe_dma),
	 {0},
	 "with iommu=off: assigned devices may reach all memory"},
	{"dma-faults",
	 SIZE,
	 AT(dma_faults),
	 {0},
	 "DMA faults within a minute that stop a device (default 1000, 0: "
	 "never)"},
	{"clock",
	 CHOICE,
	 AT(clock),
	 {"auto", "preemption", "apic"},
	 "what keeps the guest's deadlines: VMX's timer or the local APIC's; "
	 "auto: the APIC's where it runs on in deep sleep, or VMX's is "
	 "unreliable"},
	{"apicv",
	 CHOICE,
	 AT(apicv),
	 {"auto", "on", "off"},
	 "whether the CPU itself delivers the guest's interrupts and ends "
	 "them; auto: where it can, on a bare machine"},
	{"itlb",
	 CHOICE,
	 AT(itlb),
	 {"large", "split"},
	 "split: the guest's code lies in pages of 4 KiB, against CPUs' iTLB "
	 "multihit fault"},
	{"serials",
	 FLAG,
	 AT(serials),
	 {0},
	 "the guest's SMBIOS tables have the machine's serial numbers and "
	 "UUID"},
	{"list",
	 FLAG,
	 AT(list),
	 {0},
	 "list the PCI functions, whether each can be assigned and whether "
	 "this machine will do, and end"},
	{"help", FLAG, AT(help), {0}, "list the options and end"},
};

static unsigned distance(const char *a, size_t length, const char *b)
{
	unsigned row[32];
	size_t n = strlen(b);

	if (n >= ARRAY_SIZE(row))
		return ~0u;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; i <= length; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[n];
}

static const char *nearest(const char *word, size_t length)
{
	const char *best = table[0].name;
	unsigned least = ~0u;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		unsigned d = distance(word, length, table[i].name);

		if (d < least) {
			least = d;
			best = table[i].name;
		}
	}
	return best;
}

static bool equal(const char *word, size_t length, const char *name)
{
	return strlen(name) == length && !strncmp(word, name, length);
}

static int choice(const struct option *o, const char *value, size_t length)
{
	for (int i = 0; i < (int)ARRAY_SIZE(o->choices) && o->choices[i]; i++)
		if (equal(value, length, o->choices[i]))
			return i;
	return -EINVAL;
}

static int parse_size(const char *value, size_t length, u64 *out)
{
	u64 n = 0;
	size_t i;

	for (i = 0; i < length && value[i] >= '0' && value[i] <= '9'; i++) {
		if (n > (~0ull >> 32))
			return -EINVAL;
		n = n * 10 + (u64)(value[i] - '0');
	}
	if (i == 0 || i + 1 < length)
		return -EINVAL;
	if (i < length && value[i] == 'K')
		n *= KIB;
	else if (i < length && value[i] == 'M')
		n *= MIB;
	else if (i < length && value[i] == 'G' && n < BIT(30))
		n *= GIB;
	else if (i < length)
		return -EINVAL;
	*out = n;
	return 0;
}

static int parse_set(const struct option *o, const char *value, size_t length,
		     unsigned *set)
{
	size_t start = 0;

	*set = 0;
	for (size_t i = 0; i <= length; i++) {
		int n;

		if (i < length && value[i] != ',')
			continue;
		n = choice(o, value + start, i - start);
		if (n < 0)
			return n;
		*set |= 1u << n;
		start = i + 1;
	}
	return 0;
}

static int set_option(struct options *options, const struct option *o,
		      const char *value, size_t length)
{
	void *field = (char *)options + o->offset;
	int n;

	switch (o->kind) {
	case FLAG:
		if (value)
			return -EINVAL;
		*(bool *)field = true;
		return 0;
	case CHOICE:
	case SWITCH:
		n = value		? choice(o, value, length)
		    : o->kind == SWITCH ? 1
					: -EINVAL;
		if (n >= 0)
			*(unsigned *)field = (unsigned)n;
		return MIN(n, 0);
	case SET:
		return value ? parse_set(o, value, length, field) : -EINVAL;
	case SIZE:
		return value ? parse_size(value, length, field) : -EINVAL;
	case WORD:
		if (!value || options->assign_count == ASSIGN_WORDS)
			return -EINVAL;
		options->assign[options->assign_count++] =
			(struct option_word){value, length};
		return 0;
	}
	return -EINVAL;
}

static int parse_word(struct options *options, const char *word, size_t length)
{
	size_t name = 0;

	while (name < length && word[name] != '=')
		name++;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct option *o = &table[i];
		const char *value = name < length ? word + name + 1 : NULL;

		if (!equal(word, name, o->name))
			continue;
		if (!set_option(options, o, value, length - name - 1))
			return 0;
		log_error("option %s: not a value for it: '%.*s' (%s)", o->name,
			  value ? (int)(length - name - 1) : 0,
			  value ? value : "", o->help);
		return -EINVAL;
	}
	log_error("unknown option '%.*s'; the nearest is '%s' ('help' lists "
		  "all)",
		  (int)name, word, nearest(word, name));
	return -EINVAL;
}

int options_parse(struct options *options, const char *cmdline)
{
	const char *p = cmdline;

	*options = (struct options){
		.sinks = LOG_COM1 | LOG_SCREEN,
		.dma_faults = 1000,
	};
	while (*p) {
		size_t length = 0;
		int err;

		while (p[length] && p[length] != ' ')
			length++;
		err = length ? parse_word(options, p, length) : 0;
		if (err)
			return err;
		p += length;
		while (*p == ' ')
			p++;
	}
	return 0;
}

void options_help(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct option *o = &table[i];
		char values[64] = "";
		size_t n = 0;

		for (size_t j = 0; j < ARRAY_SIZE(o->choices); j++)
			if (o->choices[j])
				n += (size_t)format(
					values + n, sizeof(values) - n, "%s%s",
					j ? (o->kind == SET ? "," : "|") : "=",
					o->choices[j]);
		log_info("  %s%s%s: %s", o->name,
			 o->kind == SIZE   ? "=N"
			 : o->kind == WORD ? "=..."
					   : "",
			 values, o->help);
	}
}
