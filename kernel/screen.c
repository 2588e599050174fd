/* SPDX-License-Identifier: MIT */
#include "kernel/screen.h"

#include "arch/x86/io.h"
#include "kernel/font.h"
#include "kernel/phys.h"
#include "kernel/string.h"

#define ATTRIBUTE 0x0700 /* grey on black */

static struct {
	struct boot_framebuffer fb;
	u8 *base;
	unsigned columns, rows;
	unsigned column, row;
	unsigned used;	/* rows since the page was turned */
	unsigned scale; /* pixels of the screen for one of the font */
	u32 colour;
} screen;

bool screen_init(const struct boot_framebuffer *fb)
{
	memset(&screen, 0, sizeof(screen));
	screen.fb = *fb;
	if (fb->kind == DISPLAY_TEXT) {
		screen.columns = fb->width;
		screen.rows = fb->height;
	} else if (fb->kind == DISPLAY_RGB && fb->bpp >= 15) {
		screen.scale = fb->width >= 1024 ? 2 : 1;
		screen.columns = fb->width / (FONT_CELL_X * screen.scale);
		screen.rows = fb->height / (FONT_CELL_Y * screen.scale);
		screen.colour = ((1u << fb->red_size) - 1) << fb->red_pos |
				((1u << fb->green_size) - 1) << fb->green_pos |
				((1u << fb->blue_size) - 1) << fb->blue_pos;
	}
	if (!screen.columns || !screen.rows)
		return false;
	if (fb->base + (u64)fb->pitch * fb->height <= 4 * GIB)
		screen.base = phys_to_virt(fb->base);
	return true;
}

void screen_mapped(volatile void *base)
{
	screen.base = (u8 *)base;
}

static u16 *text_line(unsigned row)
{
	return (u16 *)(void *)(screen.base + row * screen.fb.pitch);
}

static void put_pixel(u8 *p, u32 colour)
{
	for (unsigned i = 0; i < (screen.fb.bpp + 7u) / 8; i++)
		mmio_write8(p + i, (u8)(colour >> (8 * i)));
}

static void draw(unsigned column, unsigned row, char c)
{
	const u8 *glyph = font_glyph(c);
	unsigned pixel = (screen.fb.bpp + 7u) / 8;

	for (unsigned y = 0; y < FONT_CELL_Y * screen.scale; y++) {
		u8 *p = screen.base +
			(u64)(row * FONT_CELL_Y * screen.scale + y) *
				screen.fb.pitch +
			(u64)column * FONT_CELL_X * screen.scale * pixel;

		for (unsigned x = 0; x < FONT_CELL_X * screen.scale; x++) {
			bool on = font_pixel(glyph, x / screen.scale,
					     y / screen.scale);

			put_pixel(p + x * pixel, on ? screen.colour : 0);
		}
	}
}

static void put(unsigned column, unsigned row, char c)
{
	if (screen.fb.kind == DISPLAY_TEXT)
		text_line(row)[column] = (u16)(ATTRIBUTE | (u8)c);
	else
		draw(column, row, c);
}

static void clear_line(unsigned row)
{
	for (unsigned i = 0; i < screen.columns; i++)
		put(i, row, ' ');
}

/*
 * Reading a framebuffer is slow on every machine, so it does not scroll: it
 * starts again at the top, with the line after the newest one blank.
 */
static void new_line(void)
{
	screen.column = 0;
	screen.used++;
	if (++screen.row < screen.rows) {
		clear_line(screen.row);
		return;
	}
	if (screen.fb.kind != DISPLAY_TEXT) {
		screen.row = 0;
		clear_line(0);
		return;
	}
	screen.row = screen.rows - 1;
	memmove(text_line(0), text_line(1), screen.row * screen.fb.pitch);
	clear_line(screen.row);
}

void screen_write(const char *text, size_t length)
{
	if (!screen.base)
		return;
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\n') {
			new_line();
			continue;
		}
		if (screen.column == screen.columns)
			new_line();
		put(screen.column++, screen.row, text[i]);
	}
}

bool screen_has_room(size_t length)
{
	return screen.used + length / screen.columns + 2 < screen.rows;
}

void screen_turn_page(void)
{
	screen.used = 0;
}

unsigned screen_row(void)
{
	return screen.row;
}
