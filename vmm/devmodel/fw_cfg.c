/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/fw_cfg.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"

enum {
	KEY_SIGNATURE = 0,
	KEY_ID = 1,
	KEY_CPUS = 5,
	KEY_BOOT_MENU = 14, /* SeaBIOS: ESC shows the disks */
	KEY_CPUS_MOST = 15,
	KEY_DIRECTORY = 25,
	KEY_FILES = 32,
};

#define ID_PORTS 1u /* bit 1 would be DMA */
#define DEBUG_IS_THERE 0xe9

/* What is behind the selector; size 0: nothing, which reads 0. */
static struct fw_cfg_file item(const struct fw_cfg *f)
{
	static const u32 id = ID_PORTS;
	static const u16 yes = 1;
	unsigned n = (unsigned)f->key - KEY_FILES;

	switch (f->key) {
	case KEY_SIGNATURE:
		return (struct fw_cfg_file){.data = "QEMU", .size = 4};
	case KEY_ID:
		return (struct fw_cfg_file){.data = &id, .size = sizeof(id)};
	case KEY_CPUS:
	case KEY_CPUS_MOST:
		return (struct fw_cfg_file){.data = &f->vcpus, .size = 2};
	case KEY_BOOT_MENU:
		return (struct fw_cfg_file){.data = &yes, .size = sizeof(yes)};
	case KEY_DIRECTORY:
		return (struct fw_cfg_file){.data = &f->directory,
					    .size = sizeof(f->directory)};
	default:
		return n < f->count ? f->files[n] : (struct fw_cfg_file){0};
	}
}

static void select(struct fw_cfg *f, u16 key)
{
	struct fw_cfg_file file;

	f->key = key;
	f->at = 0;
	file = item(f);
	if (file.fill)
		file.fill(file.ctx);
}

static int config_access(void *dev, struct bus_access *a)
{
	struct fw_cfg *f = dev;
	struct fw_cfg_file file;

	if (a->write && a->addr == FW_CFG_PORT && a->size == 2)
		select(f, (u16)a->value);
	if (a->write)
		return 0;
	a->value = 0;
	if (a->addr == FW_CFG_PORT)
		return 0;
	file = item(f);
	if (f->at < file.size)
		a->value = ((const u8 *)file.data)[f->at++];
	return 0;
}

static int debug_access(void *dev, struct bus_access *a)
{
	struct fw_cfg *f = dev;
	char c = (char)a->value;

	if (!a->write) {
		a->value = DEBUG_IS_THERE;
		return 0;
	}
	if (c >= ' ')
		f->line[f->length++] = c;
	if (f->length && (c == '\n' || f->length == sizeof(f->line))) {
		log_info("firmware: %.*s", (int)f->length, f->line);
		f->length = 0;
	}
	return 0;
}

int fw_cfg_init(struct fw_cfg *f, struct bus *bus)
{
	int err;

	*f = (struct fw_cfg){.vcpus = 1};
	err = bus_register(bus, BUS_PORT, FW_CFG_PORT, FW_CFG_PORT + 1,
			   config_access, f, "fw_cfg");
	if (err)
		return err;
	return bus_register(bus, BUS_PORT, FW_CFG_DEBUG_PORT, FW_CFG_DEBUG_PORT,
			    debug_access, f, "firmware's log");
}

size_t fw_cfg_name_length(const char *name)
{
	size_t n = 0;

	while (name[n] && name[n] != ' ')
		n++;
	return n;
}

int fw_cfg_add(struct fw_cfg *f, const char *name, struct fw_cfg_file file)
{
	struct fw_cfg_entry *e = &f->directory.entries[f->count];
	size_t n = fw_cfg_name_length(name);

	if (f->count == FW_CFG_FILES)
		return -ENOSPC;
	if (n >= FW_CFG_NAME)
		return -EINVAL;
	memcpy(e->name, name, n);
	e->size = __builtin_bswap32(file.size);
	e->key = __builtin_bswap16((u16)(KEY_FILES + f->count));
	f->files[f->count++] = file;
	f->directory.count = __builtin_bswap32(f->count);
	return 0;
}

void fw_cfg_reset(struct fw_cfg *f)
{
	f->key = 0;
	f->at = 0;
	f->length = 0;
}
