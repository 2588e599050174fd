/* SPDX-License-Identifier: MIT */
/* The option list: what of this machine could be the guest's, and why not. */
#include "vmm/list.h"

#include "arch/x86/io.h"
#include "drivers/pci/rom.h"
#include "kernel/log_sink.h"
#include "kernel/screen.h"
#include "kernel/string.h"
#include "vmm/assign/assign_word.h"

#define COLUMNS 71 /* of 80, behind the log's prefix */

#define PAGE_SECONDS 20
#define END_SECONDS 120 /* then the machine goes off */
#define KEYBOARD_DATA 0x60

static u64 tsc_hz;

/* A key goes down, or the time is over: there may be no keyboard. */
static void await_key(const char *what, unsigned seconds)
{
	u64 end;

	if (!log_goes_to(LOG_SCREEN))
		return;
	log_info("-- %s in %u s, or at a key --", what, seconds);
	end = rdtsc() + seconds * tsc_hz;
	while (rdtsc() < end) {
		u8 status = inb(I8042_STATUS);
		u8 code = status & 1 ? inb(KEYBOARD_DATA) : 0x80;

		/* Bit 5: the mouse's, or no 8042. Bit 7: the key goes up. */
		if (!(status & 0x20) && !(code & 0x80))
			return;
		cpu_relax();
	}
}

static void turn_page(void)
{
	log_page = NULL; /* a screen may be too small for its line */
	screen_turn_page();
	await_key("more", PAGE_SECONDS);
	log_page = turn_page;
}

/* A line that is broken between words, with its first word as a heading. */
struct line {
	char text[COLUMNS + 1];
	size_t length;
	unsigned words;
};

static void line_start(struct line *l, const char *heading)
{
	l->length =
		(size_t)format(l->text, sizeof(l->text), "  %-11s", heading);
	l->words = 0;
}

static void line_add(struct line *l, const char *separator, const char *word,
		     size_t length)
{
	size_t more = l->words ? strlen(separator) : 0;

	/* Room for the comma that a broken line ends with. */
	if (l->words && l->length + more + length + 1 > COLUMNS) {
		log_info("%s%s", l->text, *separator == ',' ? "," : "");
		line_start(l, "");
		more = 0;
	}
	if (l->length + more + length > COLUMNS) { /* the screen breaks it */
		log_info("%s%.*s", l->text, (int)length, word);
		line_start(l, "");
		return;
	}
	l->length += (size_t)format(l->text + l->length,
				    sizeof(l->text) - l->length, "%s%.*s",
				    more ? separator : "", (int)length, word);
	l->words++;
}

static void line_item(struct line *l, const char *item)
{
	line_add(l, ", ", item, strlen(item));
}

/* Word for word, but not `but`; to a word that begins with a bracket. */
static void line_words(struct line *l, const char *words, const char *but)
{
	size_t n;

	for (; *words && *words != '('; words += n + (words[n] == ' ')) {
		for (n = 0; words[n] && words[n] != ' '; n++)
			;
		if (n && (n != strlen(but) || strncmp(words, but, n)))
			line_add(l, " ", words, n);
	}
}

static void line_end(const struct line *l)
{
	if (l->words)
		log_info("%s", l->text);
}

static const char *size_text(u64 size, char text[12])
{
	static const char units[] = " KMGT";
	unsigned unit = 0;

	for (; size >= 1024 && size % 1024 == 0 && unit < 4; unit++)
		size /= 1024;
	if (unit)
		format(text, 12, "%lu%c", size, units[unit]);
	else
		format(text, 12, "%lu", size);
	return text;
}

static const struct {
	u8 id;
	const char *name;
} capabilities[] = {
	{PCI_CAP_POWER, "power management"},
	{0x02, "AGP"},
	{0x03, "VPD"},
	{PCI_CAP_MSI, "MSI"},
	{0x06, "hot swap"},
	{0x07, "PCI-X"},
	{PCI_CAP_VENDOR, "vendor-specific"},
	{0x0a, "debug port"},
	{0x0d, "subsystem"},
	{PCI_CAP_EXPRESS, "PCI Express"},
	{PCI_CAP_MSIX, "MSI-X"},
	{0x12, "SATA"},
	{PCI_CAP_AF, "advanced features"},
};

/* PCI 3.0, appendix D; an exact class before its base class. */
static const struct {
	u16 class, mask;
	const char *name;
} classes[] = {
	{0x0101, 0xffff, "IDE"},	{0x0106, 0xffff, "SATA"},
	{0x0108, 0xffff, "NVMe"},	{0x0104, 0xffff, "RAID"},
	{0x0100, 0xff00, "storage"},	{0x0200, 0xff00, "network"},
	{0x0300, 0xff00, "display"},	{0x0403, 0xffff, "audio"},
	{0x0400, 0xff00, "multimedia"}, {0x0600, 0xffff, "host bridge"},
	{0x0601, 0xffff, "ISA bridge"}, {0x0604, 0xffff, "PCI bridge"},
	{0x0600, 0xff00, "bridge"},	{0x0700, 0xffff, "serial port"},
	{0x0c03, 0xffff, "USB"},	{0x0c05, 0xffff, "SMBus"},
};

static const char *class_name(u16 class)
{
	for (unsigned i = 0; i < ARRAY_SIZE(classes); i++)
		if ((class & classes[i].mask) == classes[i].class)
			return classes[i].name;
	return "";
}

static const char *interrupt(const struct pci_host *pci, bdf_t bdf,
			     char text[12])
{
	unsigned msix = pci_find_capability(pci, bdf, PCI_CAP_MSIX);
	unsigned msi = pci_find_capability(pci, bdf, PCI_CAP_MSI);

	if (msix)
		format(text, 12, "MSI-X %u",
		       (pci_config_read(pci, bdf, msix + 2, 2) & 0x7ff) + 1);
	else if (msi)
		format(text, 12, "MSI %u",
		       1u << (pci_config_read(pci, bdf, msi + 2, 2) >> 1 & 7));
	else if (pci_config_read(pci, bdf, PCI_INTERRUPT_PIN, 1))
		format(text, 12, "INTx");
	else
		format(text, 12, "none");
	return text;
}

static const char *unit(const struct host *h, bdf_t bdf, char text[12])
{
	const struct dmar_entry *e =
		h->has_vtd ? dmar_unit_of(h->vtd.dmar,
					  (struct pci_host *)&h->pci, bdf)
			   : NULL;

	format(text, 12, "-");
	for (unsigned i = 0; e && i < h->vtd.unit_count; i++)
		if (h->vtd.units[i].base == e->base)
			format(text, 12, "%u", i);
	return text;
}

static void list_bars(const struct pci_function *f)
{
	char word[48], size[12];
	struct line line;

	line_start(&line, "BARs");
	for (unsigned i = 0; i < 6; i++) {
		const struct pci_bar *bar = &f->bars[i];

		if (!bar->size)
			continue;
		format(word, sizeof(word), "%u: %s %s%s at 0x%lx", i,
		       size_text(bar->size, size), bar->io ? "ports" : "memory",
		       bar->prefetchable ? " (prefetchable)" : "", bar->base);
		line_item(&line, word);
	}
	line_end(&line);
}

static void list_capabilities(const struct pci_host *pci, bdf_t bdf)
{
	struct line line;

	line_start(&line, "capable of");
	for (unsigned i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (pci_find_capability(pci, bdf, capabilities[i].id))
			line_item(&line, capabilities[i].name);
	line_end(&line);
}

static void list_rmrrs(const struct host *h, bdf_t bdf)
{
	struct pci_host *pci = (struct pci_host *)&h->pci;
	const struct dmar_entry *e = NULL;
	struct line line;
	char word[48];

	line_start(&line, "RMRRs");
	while (h->has_vtd && (e = dmar_rmrr_of(h->vtd.dmar, pci, bdf, e))) {
		format(word, sizeof(word), "0x%lx-0x%lx", e->base, e->limit);
		line_item(&line, word);
	}
	line_end(&line);
}

/* Those that it can reach past the IOMMU; bridges are none of them. */
static void list_group(const struct pci_host *pci, bdf_t bdf)
{
	bdf_t group = pci_group(pci, bdf);
	struct line line;
	char word[12];

	line_start(&line, "beside");
	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];
		bdf_t other = f->bdf;

		if (other == bdf || f->header_type || f->class >> 8 == 6 ||
		    pci_group(pci, other) != group)
			continue;
		format(word, sizeof(word), "%02x:%02x.%x", BDF_ARGS(other));
		line_item(&line, word);
	}
	line_end(&line);
}

/* A sentence without what stands in brackets. */
static void list_reason(const char *heading, const char *why)
{
	struct line line;

	line_start(&line, heading);
	line_words(&line, why, "");
	line_end(&line);
}

/* What assigned_choose() takes without being told: the first that it can. */
static bool is_display(const struct machine *m, const struct pci_function *f)
{
	struct pci_host *pci = &m->host->pci;
	unsigned i = 0;

	while (i < pci->count &&
	       (pci->functions[i].class >> 8 != 3 ||
		assigned_display_objection(&m->assign, &pci->functions[i])))
		i++;
	return i < pci->count && f == &pci->functions[i] &&
	       !m->host->options.no_vga;
}

static void list_row(const struct machine *m, const struct pci_function *f,
		     const char *irq, const char *assignable)
{
	const struct pci_host *pci = &m->host->pci;
	struct pci_bar rom = {0};
	char rom_size[12], by[12];

	if (f->header_type == 0)
		rom = pci_rom_size(pci, f->bdf);
	log_info("%02x:%02x.%x %04x:%04x %04x %-11s %-10s %-6s %-4s %-4s %s",
		 BDF_ARGS(f->bdf), f->vendor, f->device, f->class,
		 class_name(f->class), irq,
		 pci_reset_name(pci_reset_method(pci, f->bdf)),
		 rom.size ? size_text(rom.size, rom_size) : "-",
		 unit(m->host, f->bdf, by), assignable);
}

static void list_function(const struct machine *m, struct pci_function *f)
{
	const struct pci_host *pci = &m->host->pci;
	bool display = is_display(m, f);
	const char *why = display ? NULL : assigned_objection(&m->assign, f);
	char text[12];
	const char *irq = interrupt(pci, f->bdf, text);
	bool by_line =
		!display && !why && assigned_line_objection(&m->assign, f);
	bool by_name = !display && !assign_is_ordinary(f);

	pci_size_bars(pci, f);
	list_row(m, f, irq,
		 why	   ? "no"
		 : by_line ? "gsi="
		 : by_name ? "name"
			   : "yes");
	list_bars(f);
	list_capabilities(pci, f->bdf);
	list_rmrrs(m->host, f->bdf);
	list_group(pci, f->bdf);
	if (why)
		list_reason("not, as it", why);
	if (assign_hides_disks(f))
		list_reason("note", assign_hides_disks(f));
}

/* What the verdict says of VT-d. */
static const char *iommu(const struct host *h)
{
	if (h->has_vtd)
		return h->vtd.remapping
			       ? "VT-d, interrupts remapped"
			       : "VT-d, interrupts not remapped: a device can "
				 "forge them";
	if (h->options.iommu == IOMMU_OFF)
		return "iommu=off";
	if (!acpi_find(&h->acpi, "DMAR", 0))
		return "no DMAR table: switch VT-d on in the firmware's setup";
	return "its DMAR table cannot be used: see the error above";
}

/* Where nothing is said: what the README's first entry says. */
static const char *default_words(struct host *h)
{
	struct options *o = &h->options;
	bool all = h->has_vtd || options_unsafe_dma(o);

	if (o->assign_count || o->igd)
		return "";
	if (all)
		o->assign[o->assign_count++] = (struct option_word){"all", 3};
	if (igd_is_one(pci_find(&h->pci, IGD_BDF)))
		o->igd = IGD_OPEN;
	return !all	? o->igd ? "igd" : ""
	       : o->igd ? "igd assign=all"
			: "assign=all";
}

const char *list_functions(const struct machine *m)
{
	struct host *host = m->host;
	const char *words;
	unsigned root = 0; /* where nothing else is said */

	/* Not known: about as many as of most machines. */
	tsc_hz = host->tsc_hz ? host->tsc_hz : 3000000000ull;
	screen_turn_page();
	log_page = turn_page;
	words = default_words(host);
	log_info("function ID        class            interrupt  reset  ROM  "
		 "unit assign");
	for (unsigned i = 0; i < host->pci.count; i++) {
		struct pci_function *f = &host->pci.functions[i];
		unsigned bus = BDF_BUS(pci_on_root(&host->pci, f->bdf));

		if (bus != root)
			log_info("root bus %02x", bus);
		root = bus;
		list_function(m, f);
	}
	return words;
}

void list_verdict(const struct machine *m, const char *words, int err)
{
	const struct host *h = m->host;
	bool dma = h->has_vtd || options_unsafe_dma(&h->options);
	struct line line;

	if (h->microcode)
		log_info("microcode: revision 0x%x", h->microcode);
	log_info("IOMMU: %s", iommu(h));
	log_info("this machine %s",
		 err   ? "will not do: see the error above"
		 : dma ? "will do"
		       : "will do for a guest and its display only");
	if (!err) { /* the start that was planned, as a menu entry has it */
		line_start(&line, "multiboot2");
		line_words(&line, "/boot/monocle.elf", "");
		line_words(&line, h->boot.cmdline, "list");
		line_words(&line, words, "");
		line_end(&line);
	}
	await_key("off", END_SECONDS);
}
