/* SPDX-License-Identifier: MIT */
/*
 * Pictures, which the test compares with its own: text in the VGA's memory,
 * pixels of mode 13h, pixels of the card's linear framebuffer. Each says how
 * many exits a round of drawing took, then waits for a byte on COM1, or for
 * hold=TICKS.
 */
#include "guests/guest.h"

#define TEXT ((volatile u16 *)0xB8000)
#define GRAPHICS ((volatile u8 *)0xA0000)
#define VBE_INDEX 0x1CE
#define VBE_DATA 0x1CF
#define HYPERCALL_STATS 0x4d4f0001u
#define DISPLAY 0x80001000u /* 00:02.0 */
#define MOVED 0xD0000000u

/* Exits so far, this hypercall's own not counted. */
static u64 exits(void)
{
	static u64 stats[5];
	u64 result;

	if (!is_monocle)
		return 0;
	__asm__ volatile("vmcall"
			 : "=a"(result)
			 : "a"(HYPERCALL_STATS), "b"(stats), "c"(sizeof(stats)),
			   "d"(0)
			 : "memory");
	return stats[4];
}

/* Draws once to be looked at and counts the exits of a second time. */
static void show(unsigned (*picture)(void))
{
	u64 hold = option("hold", 0), before, after;
	unsigned stores = picture();

	before = exits();
	stores = picture();
	after = exits();
	/* The first hypercall is counted by the second. */
	print("draw: %u stores, %lu exits\n", stores,
	      is_monocle ? after - before - 1 : 0);
	print("draw: ready\n");
	before = rdtsc();
	/* Bochs 2.7 holds the host's interrupts back while IF is 0. */
	while (hold ? rdtsc() - before < hold : !(inb(0x3FD) & 1))
		open_interrupts();
	finish(0);
}

/* -- text: 80 x 25 cells; the test knows the same rule */

static u16 cell(unsigned n)
{
	return (u16)(((n * 7 + n / 80) & 0x7f) << 8 | (n * 5 & 0xff));
}

static unsigned text(void)
{
	unsigned stores = 0;

	for (unsigned round = 0; round < 6; round++)
		for (unsigned n = 0; n < 80 * 25; n++, stores++)
			TEXT[n] = cell(n);
	return stores;
}

static void hide_cursor(void)
{
	outb(0x3D4, 0x0A);
	outb(0x3D5, 0x20);
}

/* -- mode 13h: 320 x 200, a byte a pixel (IBM VGA technical reference) */

struct registers {
	u16 index, data;
	unsigned count;
	u8 values[25];
};

static const struct registers mode13[] = {
	{0x3C4, 0x3C5, 5, {3, 1, 15, 0, 14}},
	{0x3D4, 0x3D5, 25, {0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF,
			    0x1F, 0x00, 0x41, 0,    0,	  0,	0,
			    0,	  0,	0x9C, 0x0E, 0x8F, 0x28, 0x40,
			    0x96, 0xB9, 0xA3, 0xFF}},
	{0x3CE, 0x3CF, 9, {0, 0, 0, 0, 0, 0x40, 5, 15, 0xFF}},
};

static void set_mode13(void)
{
	static const u8 attributes[21] = {
		0,  1,	2,  3,	4,  5,	  6, 7,	 8, 9, 10,
		11, 12, 13, 14, 15, 0x41, 0, 15, 0, 0,
	};

	outb(0x3C2, 0x63);
	outb(0x3D4, 0x11); /* registers 0-7 are no longer protected */
	outb(0x3D5, 0x0E);
	for (unsigned i = 0; i < COUNT(mode13); i++)
		for (unsigned n = 0; n < mode13[i].count; n++) {
			outb(mode13[i].index, (u8)n);
			outb(mode13[i].data, mode13[i].values[n]);
		}
	for (unsigned n = 0; n < COUNT(attributes); n++) {
		inb(0x3DA); /* the next write is an index */
		outb(0x3C0, (u8)n);
		outb(0x3C0, attributes[n]);
	}
	inb(0x3DA);
	outb(0x3C0, 0x20); /* the screen on */
}

/* Index n: 3 bits of red, 3 of green, 2 of blue. */
static void set_palette(void)
{
	outb(0x3C6, 0xFF);
	outb(0x3C8, 0);
	for (unsigned n = 0; n < 256; n++) {
		outb(0x3C9, (u8)((n & 7) * 63 / 7));
		outb(0x3C9, (u8)((n >> 3 & 7) * 63 / 7));
		outb(0x3C9, (u8)((n >> 6) * 63 / 3));
	}
}

static unsigned pixels(void)
{
	for (unsigned y = 0; y < 200; y++)
		for (unsigned x = 0; x < 320; x++)
			GRAPHICS[320 * y + x] = (u8)((x / 4) ^ (y / 2));
	return 320 * 200;
}

/* -- the linear framebuffer: 640 x 480, 32 bits a pixel */

static u32 framebuffer;

static void vbe(u16 index, u16 value)
{
	outw(VBE_INDEX, index);
	outw(VBE_DATA, value);
}

static void set_vbe(void)
{
	outl(0xCF8, DISPLAY | 0x10);
	framebuffer = inl(0xCFC) & ~0xFu;
	vbe(4, 0);
	vbe(1, 640);
	vbe(2, 480);
	vbe(3, 32);
	vbe(4, 0x41); /* on, linear */
}

static void move_bar(void)
{
	u32 old = framebuffer;

	outl(0xCF8, DISPLAY | 0x10);
	outl(0xCFC, MOVED);
	framebuffer = inl(0xCFC) & ~0xFu;
	check(framebuffer, MOVED);
	check(read32(old), 0xffffffff); /* nothing is left there */
	write32(MOVED, 0x123456);
	check(read32(MOVED), 0x123456);
}

static unsigned rectangles(void)
{
	for (u32 y = 0; y < 480; y++)
		for (u32 x = 0; x < 640; x++) {
			u32 n = (x / 40 + 16 * (y / 30)) & 0xff;
			u32 red = (n & 7) * 255 / 7;
			u32 green = (n >> 3 & 7) * 255 / 7;
			u32 blue = (n >> 6) * 255 / 3;

			write32(framebuffer + 4 * (640 * y + x),
				red << 16 | green << 8 | blue);
		}
	return 640 * 480;
}

/* -- what a reset takes: every register, and the palette with them */

static const struct {
	u16 index, data;
	unsigned count;
} indexed[] = {{0x3C4, 0x3C5, 5}, {0x3D4, 0x3D5, 25}, {0x3CE, 0x3CF, 9}};

static void print_registers(void)
{
	print("vga: %x", inb(0x3CC));
	for (unsigned i = 0; i < COUNT(indexed); i++)
		for (unsigned n = 0; n < indexed[i].count; n++) {
			/* The cursor's place is no state of the mode. */
			if (indexed[i].index == 0x3D4 && n >= 14 && n < 16)
				continue;
			outb(indexed[i].index, (u8)n);
			print(" %x", inb(indexed[i].data));
		}
	outb(0x3C7, 0);
	for (unsigned n = 0; n < 3 * 64; n++)
		print(" %x", inb(0x3C9));
	print("\n");
}

static void wipe(void)
{
	outb(0x3D4, 0x11);
	outb(0x3D5, 0);
	for (unsigned i = 0; i < COUNT(indexed); i++)
		for (unsigned n = 0; n < indexed[i].count; n++) {
			outb(indexed[i].index, (u8)n);
			outb(indexed[i].data, 0);
		}
	outb(0x3C8, 0);
	for (unsigned n = 0; n < 3 * 256; n++)
		outb(0x3C9, 0);
	inb(0x3DA);
	outb(0x3C0, 0); /* the screen off */
	outb(0x3C2, 0x01);
}

/* By what is there: no register is written. On a w all is taken away. */
static void draw_and_wipe(void)
{
	print_registers();
	for (unsigned n = 0; n < 80 * 25; n++)
		TEXT[n] = cell(n);
	hide_cursor();
	print("draw: ready\n");
	while (!(inb(0x3FD) & 1))
		open_interrupts();
	if (inb(0x3F8) != 'w')
		finish(0);
	wipe();
	print_registers();
	outb(0xCF9, 6);
	for (;;)
		;
}

void draw(const char *what)
{
	if (starts(what, "wiped"))
		draw_and_wipe();
	if (starts(what, "text")) {
		hide_cursor();
		show(text);
	} else if (starts(what, "mode13")) {
		set_mode13();
		set_palette();
		show(pixels);
	}
	set_vbe();
	if (starts(what, "moved"))
		move_bar();
	show(rectangles);
}
