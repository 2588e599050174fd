/* SPDX-License-Identifier: MIT */
/*
 * The header of a Linux kernel, for either boot protocol: Linux,
 * Documentation/arch/x86/boot.rst.
 */
#ifndef VMM_LOAD_SETUP_HEADER_H
#define VMM_LOAD_SETUP_HEADER_H

#include "arch/x86/types.h"

#define SETUP_HEADER 0x1f1     /* of the file and of the zero page */
#define SETUP_MAGIC 0x53726448 /* "HdrS" */
#define LOADER_UNDEFINED 0xff  /* type_of_loader */
/* loadflags */
#define LOADED_HIGH 0x01
#define CAN_USE_HEAP 0x80

struct setup_header {
	u8 setup_sects;
	u16 root_flags;
	u32 syssize; /* paragraphs */
	u16 ram_size;
	u16 vid_mode;
	u16 root_dev;
	u16 boot_flag;
	u8 jump;
	u8 jump_length; /* the header ends this far behind this byte */
	u32 header;
	u16 version;
	u32 realmode_swtch;
	u16 start_sys_seg;
	u16 kernel_version;
	u8 type_of_loader;
	u8 loadflags;
	u16 setup_move_size;
	u32 code32_start;
	u32 ramdisk_image;
	u32 ramdisk_size;
	u32 bootsect_kludge;
	u16 heap_end_ptr;
	u8 ext_loader_ver;
	u8 ext_loader_type;
	u32 cmd_line_ptr;
	u32 initrd_addr_max;
	u32 kernel_alignment;
	u8 relocatable_kernel;
	u8 min_alignment;
	u16 xloadflags;
	u32 cmdline_size;
	u32 hardware_subarch;
	u64 hardware_subarch_data;
	u32 payload_offset;
	u32 payload_length;
	u64 setup_data;
	u64 pref_address;
	u32 init_size;
	u32 handover_offset;
} PACKED;

_Static_assert(offsetof(struct setup_header, header) + SETUP_HEADER == 0x202,
	       "boot.rst: header");
_Static_assert(offsetof(struct setup_header, cmd_line_ptr) + SETUP_HEADER ==
		       0x228,
	       "boot.rst: cmd_line_ptr");
_Static_assert(offsetof(struct setup_header, setup_data) + SETUP_HEADER ==
		       0x250,
	       "boot.rst: setup_data");
_Static_assert(sizeof(struct setup_header) + SETUP_HEADER == 0x268,
	       "boot.rst: end of the header of protocol 2.12");

/* Where a field is in the file. */
#define SETUP_AT(field) (SETUP_HEADER + offsetof(struct setup_header, field))

#endif
