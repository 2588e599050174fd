; SPDX-License-Identifier: MIT
; Behind a video BIOS, in its ROM: an INT 19h that starts Linux from firmware's
; files opt/vmlinuz and opt/initrd, for a machine without a disk that a guest
; could be given. By Linux's Documentation/arch/x86/boot.rst, 16-bit; without
; fw_cfg it is the video BIOS alone. Behind it stands the command line.

bits 16
org 0xc000

CONFIG	equ 0x510		; the selector; then the data
FILES	equ 0x19
INT_19	equ 0x19 * 4
BUFFER	equ 0x8000
ENTRY	equ 64			; of a file: size, key, name
NAME	equ 8
SETUP	equ 0x10000		; setup's sectors; a stack behind them
STACK	equ 0xe000
APPEND	equ 0x20000
KERNEL	equ 16 << 20		; the repacked kernel wants 2 MiB's alignment
INITRD	equ 128 << 20
%define AT(field) es:dword SETUP + field

	jmp short init
	db 0
bios:	dw 0			; 3: the video BIOS's own entry

init:	push cs
	call word [cs:bios]	; which returns far
	pusha
	push ds
	xor ax, ax
	mov ds, ax
	call select
	in al, dx
	cmp al, 'Q'		; QEMU
	jne .done
	mov word [INT_19], boot
	mov [INT_19 + 2], cs
.done:	pop ds
	popa
	retf

; Selects item ax; dx = the data's port.
select:	mov dx, CONFIG
	out dx, ax
	inc dx
	ret

; Selects the file with the name at si; ecx = its size.
find:	mov ax, FILES
	call select
	mov cx, 4		; how many there are
	mov di, BUFFER
	rep insb
.next:	mov cx, ENTRY
	mov di, BUFFER
	rep insb
	push si
	mov cx, vmlinuz.end - vmlinuz
	mov di, BUFFER + NAME
	repe cmpsb
	pop si
	jne .next
	mov ecx, [es:BUFFER]
	bswap ecx
	mov ax, [es:BUFFER + 4]
	xchg al, ah
	jmp select

boot:	cli
	cld
	mov ax, cs
	mov ds, ax
	lgdt [gdtr]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	mov bx, 8		; es reaches 4 GiB from now on
	mov es, bx
	and al, 0xfe
	mov cr0, eax
	xor bx, bx
	mov es, bx

	mov si, vmlinuz
	call find
	mov ebx, ecx
	mov ecx, 512
	sub ebx, ecx
	mov edi, SETUP
	a32 rep insb
	movzx ecx, byte [AT(0x1f1)]	; setup_sects
	shl ecx, 9
	sub ebx, ecx
	a32 rep insb
	mov ecx, ebx
	mov edi, KERNEL
	a32 rep insb

	mov si, initrd
	call find
	mov [AT(0x21c)], ecx		; ramdisk_size
	mov edi, INITRD
	mov [AT(0x218)], edi		; ramdisk_image
	a32 rep insb

	mov esi, append
	mov edi, APPEND
	mov [AT(0x228)], edi		; cmd_line_ptr
	mov cx, 2048
	a32 rep movsb
	mov byte [AT(0x210)], 0xff	; type_of_loader: none of the known
	or byte [AT(0x211)], 0x80	; CAN_USE_HEAP
	mov word [AT(0x224)], STACK - 0x200	; heap_end_ptr
	mov dword [AT(0x214)], KERNEL	; code32_start

	mov ax, SETUP >> 4
	mov ds, ax
	mov es, ax
	mov fs, ax
	mov gs, ax
	mov ss, ax
	mov sp, STACK
	jmp (SETUP >> 4) + 0x20:0

vmlinuz: db "opt/vmlinuz"
.end:
initrd:	db "opt/initrd", 0
gdtr:	dw 15
	dd 0xc0000 + gdt
align 8
gdt:	dq 0, 0x00cf93000000ffff
append:
