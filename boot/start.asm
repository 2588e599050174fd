; SPDX-License-Identifier: MIT
; The multiboot2 header, and the way from GRUB's 32-bit protected mode
; (Multiboot2 3.3: flat segments, paging off, EAX = magic, EBX = information)
; to boot_main() in long mode at IMAGE_VIRTUAL. BOOT_TABLES maps the first
; 4 GiB twice, 1:1 and as the direct map, and the image with 2 MiB pages;
; kernel/paging.c replaces it.

extern boot_main

PTE_P		equ 1
PTE_PW		equ 3
PTE_PWS		equ 0x83	; present, writable, 2 MiB
CR0_ON		equ 0x80010001	; PG, WP, PE
CR4_PAE		equ 1 << 5
EFER		equ 0xc0000080
EFER_LME_NXE	equ 1 << 8 | 1 << 11
MISC_ENABLE	equ 0x1a0
MISC_XD_DISABLE	equ 1 << 2	; bit 34
STACK_SIZE	equ 16384

; Offset of a symbol in the image. The linker adds modulo 2^64, so this is
; x - 0xffffffff80000000, with no constant too wide for 32-bit code.
%define OFF(x) (x + 0x80000000)

section .multiboot2 progbits alloc noexec nowrite align=8
header:
	dd 0xe85250d6, 0, header_end - header
	dd 0x100000000 - (0xe85250d6 + 0 + (header_end - header))
	; Relocatable (3.1.12): from 1 MiB to 4 GiB, on 2 MiB, as high as it
	; goes: low memory stays free for guests of ram=identity.
	dw 10, 0
	dd 24, 0x100000, 0xffffffff, 0x200000, 2
	; Information request, optional: what boot/multiboot2.c reads.
request:
	dw 1, 1
	dd request_end - request, 1, 3, 6, 8, 12, 14, 15, 17, 21
request_end:
	align 8, db 0
	; Framebuffer, optional, of any size: gfxpayload decides (3.1.10).
	dw 5, 1
	dd 20, 0, 0, 0
	align 8, db 0
	; Modules start on pages (3.1.11).
	dw 6, 0
	dd 8
	; End.
	dw 0, 0
	dd 8
header_end:

section .boot.text progbits alloc exec nowrite align=16
bits 32
global boot_start
boot_start:
	cli
	cld
	mov edx, eax
	; There is no stack yet and our address is unknown: the information's
	; reserved second word (3.6.2) holds the one return address that tells.
	lea esp, [ebx + 8]
	call .here
.here:	pop ebp
	sub ebp, OFF(.here)	; where image_start lies
	lea esp, [ebp + OFF(boot_stack_top)]
	mov esi, edx
	mov edi, ebx

	mov eax, 0x80000000
	cpuid
	cmp eax, 0x80000001
	jb no_long_mode
	mov eax, 0x80000001
	cpuid
	bt edx, 29
	jnc no_long_mode
	bt edx, 20
	jc .nx
	; Firmware's setup has NX off: on, or EFER.NXE below is a #GP.
	mov ecx, MISC_ENABLE
	rdmsr
	and edx, ~MISC_XD_DISABLE
	wrmsr
.nx:
	; 1:1 and direct map: four page directories of 2 MiB pages.
	lea ebx, [ebp + OFF(low_pd)]
	mov eax, PTE_PWS
	xor ecx, ecx
.low:	mov [ebx + ecx * 8], eax
	add eax, 0x200000
	inc ecx
	cmp ecx, 2048
	jb .low
	lea eax, [ebx + PTE_PW]
	lea ebx, [ebp + OFF(low_pdpt)]
	xor ecx, ecx
.pdpt:	mov [ebx + ecx * 8], eax
	add eax, 4096
	inc ecx
	cmp ecx, 4
	jb .pdpt
	; The image: eight pages of 2 MiB from its start.
	lea ebx, [ebp + OFF(high_pd)]
	lea eax, [ebp + PTE_PWS]
	xor ecx, ecx
.high:	mov [ebx + ecx * 8], eax
	add eax, 0x200000
	inc ecx
	cmp ecx, 8
	jb .high
	lea eax, [ebx + PTE_PW]
	mov [ebp + OFF(high_pdpt) + 510 * 8], eax
	lea ebx, [ebp + OFF(pml4)]
	lea eax, [ebp + OFF(low_pdpt) + PTE_PW]
	mov [ebx], eax
	mov [ebx + 256 * 8], eax
	lea eax, [ebp + OFF(high_pdpt) + PTE_PW]
	mov [ebx + 511 * 8], eax

	mov eax, CR4_PAE	; nothing of firmware's, as 5-level paging
	mov cr4, eax
	mov cr3, ebx
	mov ecx, EFER
	rdmsr
	or eax, EFER_LME_NXE
	wrmsr
	lea eax, [ebp + OFF(boot_gdt)]
	mov [ebp + OFF(boot_gdtr) + 2], eax
	lgdt [ebp + OFF(boot_gdtr)]
	mov eax, cr0
	or eax, CR0_ON
	mov cr0, eax
	lea eax, [ebp + OFF(long_mode)]
	push dword 8
	push eax
	retf

; Nothing works here but ports: port 0xE9 and COM1 as the firmware left it.
no_long_mode:
	lea esi, [ebp + OFF(no_long_mode_text)]
.next:	lodsb
	test al, al
	jz .halt
	out 0xe9, al
	mov edx, 0x3f8
	out dx, al
	jmp .next
.halt:	hlt
	jmp .halt

bits 64
long_mode:
	mov eax, 16
	mov ds, eax
	mov es, eax
	mov ss, eax
	xor eax, eax
	mov fs, eax
	mov gs, eax
	mov rax, .high
	jmp rax
.high:	mov rsp, boot_stack_top
	mov edi, edi		; information
	xchg edi, esi		; boot_main(magic, information, image)
	mov edx, ebp
	xor ebp, ebp
	call boot_main
.halt:	cli
	hlt
	jmp .halt

section .rodata
no_long_mode_text:
	db "monocle: error: this CPU has no 64-bit mode; use another machine"
	db 13, 10, "monocle: end: 4 refused", 13, 10, 0

section .data
align 8
boot_gdt:
	dq 0
	dq 0x00209b0000000000	; 8: 64-bit code
	dq 0x0000930000000000	; 16: data
boot_gdtr:
	dw 23
	dq 0

section .bss nobits alloc noexec write align=4096
pml4:		resb 4096
low_pdpt:	resb 4096
low_pd:		resb 4096 * 4
high_pdpt:	resb 4096
high_pd:	resb 4096
		resb STACK_SIZE
global boot_stack_top
boot_stack_top:
