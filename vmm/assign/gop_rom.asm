; SPDX-License-Identifier: MIT
; An option ROM's image (PCI Firmware 3.0, 5.1.2; UEFI 2.10, 14.4.2) with the
; driver of vmm/assign/gop/. Code of this type has no checksum, so that
; vmm/assign/gop.c can fill in what is 0 here.
	default rel
	section .rodata

	global gop_rom, gop_rom_end

%define UNITS ((gop_rom_end - gop_rom) / 512)

gop_rom:
	dw 0xaa55
	dw UNITS
	dd 0x0ef1
	dw 11			; a boot service driver
	dw 0x8664		; for x64
	dw 0			; not compressed
	times 8 db 0
	dw driver - gop_rom
	dw pcir - gop_rom
	align 4, db 0
pcir:
	db 'PCIR'
	dw 0, 0			; the display's IDs
	dw 0
	dw pcir_end - pcir
	db 3
	db 0, 0, 3		; a VGA controller
	dw UNITS
	dw 0
	db 3			; EFI
	db 0x80			; the last image
	dw 0
pcir_end:
	times 0x40 - ($ - gop_rom) db 0
	times 32 db 0		; struct gop_table
driver:
	incbin "vmm/assign/gop/gop.efi"
	align 512, db 0xff
gop_rom_end:
