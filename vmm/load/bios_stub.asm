; SPDX-License-Identifier: MIT
; What guest=bios puts at the top of the guest's conventional memory: INT 15h
; answers for the guest's own memory, INT 13h has no disk. Everything else
; goes on to the firmware's handler. Runs at a segment of its own, offset 0.

SMAP equ 0x534d4150

section .rodata
global bios_stub
global bios_stub_end
global bios_stub_int13
global bios_stub_parameters

%define OFF(x) (x - bios_stub)

bits 16
align 16
bios_stub:
	cmp ax, 0xe820
	je .e820
	cmp ax, 0xe801
	je .e801
	cmp ah, 0x88
	je .extended
	jmp far [cs:OFF(old_int15)]

.e820:				; ACPI 6.4, 15.1
	cmp edx, SMAP
	jne unsupported
	cmp ecx, 20
	jb unsupported
	cmp ebx, [cs:OFF(rows)]
	jae unsupported
	push ds
	push si
	push di
	push cs
	pop ds
	imul si, bx, 20
	add si, OFF(table)
	mov cx, 10
	cld
	rep movsw
	pop di
	pop si
	pop ds
	mov ecx, 20
	mov eax, SMAP
	inc ebx
	cmp ebx, [cs:OFF(rows)]
	jb done
	xor ebx, ebx
	jmp done

.e801:
	mov ax, [cs:OFF(below_16m)]
	mov bx, [cs:OFF(above_16m)]
	mov cx, ax
	mov dx, bx
	jmp done

.extended:
	mov ax, [cs:OFF(extended)]
done:
	push bp
	mov bp, sp
	and byte [bp + 6], 0xfe	; CF of the caller's FLAGS
	pop bp
	iret

bios_stub_int13:
	mov ah, 1		; invalid function, or no such drive
	jmp failed
unsupported:
	mov ah, 0x86
failed:
	push bp
	mov bp, sp
	or byte [bp + 6], 1
	pop bp
	iret

align 4
bios_stub_parameters:		; struct stub_parameters of vmm/load/bios.c
old_int15:	dd 0
rows:		dd 0
below_16m:	dw 0		; KiB from 1 MiB on
above_16m:	dw 0		; 64 KiB from 16 MiB on
extended:	dw 0		; KiB from 1 MiB on, at most 63 MiB
		dw 0
bios_stub_end:
table:				; of rows, 20 bytes each

; What rom-init puts at 0000:7C00: the call of the video BIOS, and what every
; vector of an empty table points to.
ROM_INIT_DONE equ 0x4d4f0100	; HYPERCALL_BASE + HYPERCALL_ROM_DONE

global rom_init_stub
global rom_init_stub_iret
global rom_init_stub_end

rom_init_stub:
	call 0xc000:0x0003
	mov eax, ROM_INIT_DONE
	vmcall
	cli
	hlt
rom_init_stub_iret:
	iret
rom_init_stub_end:
