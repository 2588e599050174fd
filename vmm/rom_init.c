/* SPDX-License-Identifier: MIT */
#include "vmm/rom_init.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "vmm/core/guest_mem.h"

#define STUB_AT 0x7c00u /* and below it the stack */
#define BDA 0x400u
#define BDA_SIZE 0x100u
#define BDA_EQUIPMENT 0x410u
#define BDA_CURSOR_ROW 0x451u
#define COLOUR_80X25 0x20
/* What firmware grants nobody measures; this is past any user's patience. */
#define SECONDS 2

extern const u8 rom_init_stub[], rom_init_stub_iret[], rom_init_stub_end[];

int rom_init_check(const struct rom_init *r, const struct region_list *map,
		   bool say)
{
	const struct region *low = region_find(map, 0);
	const char *fault = NULL;

	if (r->boot->uefi)
		fault = "the firmware is UEFI; its driver has set the mode, "
			"and a video BIOS would change it";
	else if (!r->vga || !r->rom || !r->rom->legacy)
		fault = "the display has no video BIOS; name a file: module2 "
			"FILE rom";
	else if (r->options->igd == IGD_CLOSED)
		fault = "igd=closed takes the memory that it draws on";
	else if (!low || low->kind != REGION_RAM)
		fault = "it needs the first page of memory: ram=relocated or "
			"guest=bios";
	if (fault && say)
		log_error("rom-init: %s", fault);
	return fault ? -EINVAL : 0;
}

/* Where there is no firmware below: no vector leads anywhere. */
static int empty_firmware(const struct region_list *map)
{
	u32 vector =
		STUB_AT + (u32)((u64)rom_init_stub_iret - (u64)rom_init_stub);
	u8 equipment = COLOUR_80X25;
	int err = guest_set(map, BDA, 0, BDA_SIZE);

	for (unsigned n = 0; !err && n < 256; n++)
		err = guest_write(map, 4 * n, &vector, sizeof(vector));
	if (!err)
		err = guest_write(map, BDA_EQUIPMENT, &equipment, 1);
	return err;
}

static void late(void *dev, u64 now)
{
	struct vm *vm = dev;

	(void)now;
	vm_request(vm, VM_STOP);
}

static enum vm_request run(struct rom_init *r)
{
	struct vm *vm = r->vcpu->vm;
	struct guest_entry entry = {
		.mode = ENTRY_REAL16,
		.rip = STUB_AT,
		.rsp = STUB_AT,
		.gpr[GPR_RAX] = r->display->bdf,
		/* Neither an ISA card nor Plug and Play firmware */
		.gpr[GPR_RBX] = 0xffff,
		.gpr[GPR_RDX] = 0xffff,
	};

	vcpu_reset(r->vcpu, &entry);
	vtimer_set(&vm->clock, &r->limit, rdtsc() + SECONDS * vm->clock.tsc_hz);
	vm->request = VM_RUN;
	vm->rom_runs = true;
	vcpu_run(r->vcpu);
	vm->rom_runs = false;
	vtimer_set(&vm->clock, &r->limit, VCLOCK_NEVER);
	return vm->request;
}

/* Text mode, as the ROM's start leaves it; the cursor by the BDA. */
static void read_screen(const struct region_list *map,
			struct boot_framebuffer *screen, u8 *row)
{
	*screen = (struct boot_framebuffer){.kind = DISPLAY_TEXT,
					    .base = 0xb8000,
					    .pitch = 160,
					    .width = 80,
					    .height = 25,
					    .bpp = 16};
	if (guest_read(map, BDA_CURSOR_ROW, row, 1) || *row > 24)
		*row = 24;
}

int rom_init(struct rom_init *r, struct boot_framebuffer *screen, u8 *row)
{
	struct vm *vm = r->vcpu->vm;
	enum vm_request how;
	int err = 0;

	if (!r->limit.fire)
		err = vclock_add(&vm->clock, &r->limit, late, vm);
	if (!err && r->options->guest != GUEST_BIOS)
		err = empty_firmware(&vm->map);
	if (!err)
		err = guest_write(&vm->map, STUB_AT, rom_init_stub,
				  (u64)rom_init_stub_end - (u64)rom_init_stub);
	if (err)
		return err;
	how = run(r);
	if (how == VM_ROM_DONE) {
		log_info("rom-init: the video BIOS of %02x:%02x.%x has run",
			 BDF_ARGS(r->display->bdf));
		read_screen(&vm->map, screen, row);
		return 0;
	}
	log_error("rom-init: the video BIOS of %02x:%02x.%x does not return "
		  "(%d s at most); leave rom-init out or name another ROM",
		  BDF_ARGS(r->display->bdf), SECONDS);
	return -EIO;
}
