/* SPDX-License-Identifier: MIT */
/*
 * Asks for the display's memory by hypercall, where Monocle was started with
 * igd=closed: docs/hypercalls.md. Legacy VGA's and the video BIOS's pages,
 * since every VGA card that is assigned has them.
 */
#include "guests/guest.h"

#define IDENTITY_MAP 0x4d4f0004u
#define VGA 0xA0000u
#define VGA_PAGES 32
#define TEXT 0xB8000u
#define TEXT_PAGES 8
#define VIDEO_BIOS 0xC0000u
#define BIOS 0xF0000u
#define CMOS_STAGE 0x40
#define EPERM 1
#define EINVAL 22

struct run {
	u64 gpa, pages;
};

static struct run list[33];
static u64 result;

static void call(void *arg)
{
	u64 count = *(u64 *)arg;

	__asm__ volatile("vmcall"
			 : "=a"(result)
			 : "a"(IDENTITY_MAP), "b"(list), "c"(count), "d"(0)
			 : "memory");
}

static u64 map(u64 count)
{
	call(&count);
	return result;
}

/* As where nothing answers: looked at in steps, each an exit. */
static bool is_closed(u32 from, u32 pages)
{
	for (u32 at = from; at < from + pages * 4096; at += 252)
		if (*(volatile u32 *)(u64)at != ~0u)
			return false;
	return true;
}

static void refuse(u64 gpa, u64 pages)
{
	list[0] = (struct run){TEXT, TEXT_PAGES};
	list[1] = (struct run){gpa, pages};
	list[2] = (struct run){VGA, 1};
	check(map(3), (u64)-EINVAL);
}

static void call_unmapped(void *arg)
{
	(void)arg;
	__asm__ volatile("vmcall"
			 : "=a"(result)
			 : "a"(IDENTITY_MAP), "b"(0x7fe00000000), "c"(1), "d"(0)
			 : "memory");
}

static void refused(void)
{
	u64 one = 1;

	refuse(BIOS, 1);
	refuse(0x9f000, 2); /* RAM and VGA */
	refuse(0, 1);
	refuse(LAPIC_PAGE, 1);
	refuse(TEXT + 1, 1);
	refuse(TEXT, 0);
	refuse(TEXT, 1ull << 52);
	refuse(~0xfffull, 2);
	list[0] = (struct run){TEXT, TEXT_PAGES};
	check(map(0), (u64)-EINVAL);
	check(map(COUNT(list)), (u64)-EINVAL);
	check(map(~0ull), (u64)-EINVAL);
	user_open_image();
	check(attempt_user(call, &one, 0), (u64)-1);
	check(result, (u64)-EPERM);
	user_close_image();
	check(attempt(call_unmapped, NULL), VEC_PF);
	check(fault.address, 0x7fe00000000);
}

/* What Monocle has left on its text screen: content that nobody made up. */
static void print_screen(void)
{
	const volatile u16 *cell = (const volatile u16 *)(u64)TEXT;

	for (unsigned row = 0; row < 25; row++) {
		char line[81];

		for (unsigned n = 0; n < 80; n++) {
			char c = (char)cell[row * 80 + n];

			line[n] = c >= ' ' && c <= '~' ? c : ' ';
		}
		line[80] = 0;
		print("screen: %s\n", line);
	}
}

static bool second_start(void)
{
	bool second;

	outb(0x70, CMOS_STAGE);
	second = inb(0x71) == 0xA5;
	outb(0x70, CMOS_STAGE);
	outb(0x71, 0xA5);
	return second;
}

void windows(void)
{
	volatile u32 *text = (volatile u32 *)(u64)TEXT;
	bool second = second_start();

	check_true(is_closed(VGA, VGA_PAGES));
	check_true(is_closed(VIDEO_BIOS, 1));
	text[0] = 0x12345678; /* dropped */
	check(text[0], ~0u);
	if (second) {
		print("windows: closed again\n");
		finish(0);
	}
	refused();
	check_true(is_closed(VGA, VGA_PAGES));
	list[0] = (struct run){TEXT + 4096, 2};
	list[1] = (struct run){TEXT, 2};
	check(map(2), 0);
	check_true(text[0] != ~0u && text[0] != 0x12345678);
	check_true(is_closed(VGA, VGA_PAGES - TEXT_PAGES));
	check_true(is_closed(TEXT + 3 * 4096, TEXT_PAGES - 3));
	print_screen();
	print("windows: open\n");
	while (!(inb(0x3FD) & 1))
		open_interrupts();
	list[0] = (struct run){VGA, VGA_PAGES + 1};
	check(map(1), 0);
	check(*(volatile u16 *)(u64)VIDEO_BIOS, 0xAA55);
	check_true(is_closed(VIDEO_BIOS + 4096, 1));
	text[0x1800] = 0x07410742;
	check(text[0x1800], 0x07410742);
	outb(0xCF9, 6);
	for (;;)
		relax();
}

#define IGD (2 << 11)

static void check_closed(const struct run *runs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		check(read32(runs[i].gpa), ~0u);
		check(read32(runs[i].gpa + runs[i].pages * 4096 - 4), ~0u);
	}
}

static void check_memory(u64 at)
{
	write32(at, (u32)at + 0x12345678);
	check(read32(at), (u32)at + 0x12345678);
}

/*
 * What Intel graphics has besides: OpRegion, half of its stolen memory and,
 * told by rmrr=, an RMRR. GTT memory is no window.
 */
u8 windows_igd(void)
{
	u64 gsm = config_read(0, 0xb4) & ~(MIB - 1);
	u64 dsm = config_read(IGD, 0x5c) & ~(MIB - 1);
	const struct run all[] = {{config_read(IGD, 0xfc) & ~0xfffu, 2},
				  {dsm, 512},
				  {option("rmrr", 0), 256}};

	check_closed(all, COUNT(all));
	memcpy(list, all, sizeof(all));
	list[3] = (struct run){gsm, 1};
	check(map(4), (u64)-EINVAL);
	check_closed(all, COUNT(all));
	check(map(3), 0);
	check(read32(all[0].gpa), 0x65746e49); /* "Inte" */
	check_memory(all[1].gpa);
	check_memory(all[1].gpa + 512 * 4096 - 4);
	check(read32(all[1].gpa + 512 * 4096), ~0u);
	check_memory(all[2].gpa);
	check(read32(gsm), ~0u);
	print("windows: igd: %u failed\n", failures);
	hold();
	return failures ? 1 : 0;
}
