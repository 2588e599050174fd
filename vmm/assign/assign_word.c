/* SPDX-License-Identifier: MIT */
#include "vmm/assign/assign_word.h"

#include "arch/x86/errno.h"
#include "kernel/string.h"

static int hex(const char **p, unsigned digits, u32 *value)
{
	for (*value = 0; digits; digits--, (*p)++) {
		char c = **p;

		if (c >= '0' && c <= '9')
			*value = *value * 16 + (u32)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = *value * 16 + (u32)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			*value = *value * 16 + (u32)(c - 'A' + 10);
		else
			return -EINVAL;
	}
	return 0;
}

static bool begins(const struct option_word *w, const char *with)
{
	size_t n = strlen(with);

	return w->length >= n && !strncmp(w->text, with, n);
}

static struct option_word behind(const struct option_word *w, size_t n)
{
	return (struct option_word){w->text + n, w->length - n};
}

static int parse_address(struct option_word text, struct assign_word *w)
{
	const char *p = text.text;

	w->kind = BY_ADDRESS;
	if (text.length != 7 || p[2] != ':' || p[5] != '.' || hex(&p, 2, &w->a))
		return -EINVAL;
	p++;
	if (hex(&p, 2, &w->b))
		return -EINVAL;
	p++;
	return hex(&p, 1, &w->c) || w->b > 31 || w->c > 7 ? -EINVAL : 0;
}

int assign_word_next_but(struct option_word *but, bdf_t *bdf)
{
	struct assign_word w = {0};

	if (!but->length)
		return -ENOENT;
	if (!begins(but, ",-") || but->length < 9 ||
	    parse_address((struct option_word){but->text + 2, 7}, &w))
		return -EINVAL;
	*but = behind(but, 9);
	*bdf = BDF(w.a, w.b, w.c);
	return 0;
}

static int parse_all(const struct option_word *text, struct assign_word *w)
{
	struct option_word but = behind(text, 3);
	bdf_t bdf;
	int err;

	*w = (struct assign_word){.kind = ALL, .but = but};
	while (!(err = assign_word_next_but(&but, &bdf)))
		;
	return err == -ENOENT ? 0 : err;
}

/* ",gsi=N" at the word's end; without it the word stays as it is. */
static int parse_gsi(struct option_word *text, struct assign_word *w)
{
	struct option_word tail;
	size_t n = 0;

	while (n < text->length && text->text[n] != ',')
		n++;
	tail = behind(text, n);
	if (!tail.length)
		return 0;
	if (!begins(&tail, ",gsi=") || tail.length < 6 || tail.length > 8)
		return -EINVAL;
	for (size_t i = 5; i < tail.length; i++) {
		if (tail.text[i] < '0' || tail.text[i] > '9')
			return -EINVAL;
		w->gsi = w->gsi * 10 + (u32)(tail.text[i] - '0');
	}
	w->has_gsi = true;
	text->length = n;
	return 0;
}

int assign_word_parse(struct option_word text, struct assign_word *w)
{
	const char *p = text.text;

	*w = (struct assign_word){0};
	if (begins(&text, "all"))
		return parse_all(&text, w);
	if (parse_gsi(&text, w))
		return -EINVAL;
	if (text.length == 10 && begins(&text, "class=")) {
		w->kind = BY_CLASS;
		p += 6;
		return hex(&p, 4, &w->a);
	}
	if (text.length == 9 && p[4] == ':') {
		w->kind = BY_ID;
		if (hex(&p, 4, &w->a))
			return -EINVAL;
		p++;
		return hex(&p, 4, &w->b);
	}
	return parse_address(text, w);
}

static bool is_left_out(struct option_word but, bdf_t bdf)
{
	bdf_t one;

	while (!assign_word_next_but(&but, &one))
		if (one == bdf)
			return true;
	return false;
}

bool assign_word_names(const struct assign_word *w,
		       const struct pci_function *f)
{
	switch (w->kind) {
	case BY_ADDRESS:
		return f->bdf == BDF(w->a, w->b, w->c);
	case BY_ID:
		return f->vendor == w->a && f->device == w->b;
	case BY_CLASS:
		return f->class == w->a;
	case ALL:
		return assign_is_ordinary(f) && !is_left_out(w->but, f->bdf);
	}
	return false;
}

/* Intel's management engine, which the graphics' driver talks to. */
static bool is_heci(const struct pci_function *f)
{
	return f->vendor == PCI_INTEL && f->class == 0x0780 &&
	       (BDF_DEV(f->bdf) == 0x16 || BDF_DEV(f->bdf) == 0x0f);
}

const char *assign_hides_disks(const struct pci_function *f)
{
	unsigned device = BDF_DEV(f->bdf);

	if (f->vendor != PCI_INTEL || f->class != 0x0104)
		return NULL;
	return device == 0x0e || device == 0x05
		       ? "Intel's VMD hides NVMe disks from a guest without a "
			 "driver for it; else switch VMD off in the "
			 "firmware's setup"
		       : "RAID mode hides NVMe disks; switch SATA to AHCI in "
			 "the firmware's setup";
}

const char *assign_companion(const struct pci_function *f)
{
	if (is_heci(f) && !BDF_FN(f->bdf))
		return "HECI: media engines, content protection";
	if (f->vendor == PCI_INTEL &&
	    (f->class == 0x0401 || f->class == 0x0403))
		return "HDA: sound by HDMI and DisplayPort";
	return NULL;
}

bool assign_is_ordinary(const struct pci_function *f)
{
	/* PCI 3.0, appendix D */
	static const struct {
		u16 class, mask;
	} rows[] = {
		{0x0100, 0xff00}, /* storage */
		{0x0200, 0xff00}, /* network */
		{0x0300, 0xff00}, /* display */
		{0x0401, 0xffff}, /* audio */
		{0x0403, 0xffff}, /* high definition audio */
		{0x0805, 0xffff}, /* SD host controller */
		{PCI_CLASS_USB, 0xffff},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if ((f->class & rows[i].mask) == rows[i].class)
			return f->header_type == 0;
	return is_heci(f);
}
