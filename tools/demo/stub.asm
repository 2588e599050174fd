; SPDX-License-Identifier: MIT
; The protected-mode part of the repacked kernel: the two entries of the Linux
; boot protocol (Documentation/arch/x86/boot.rst), and an unpacker that costs
; an emulator little. In the file:
;
;	base + 0	32-bit entry	esi = boot_params, paging off
;	base + 0x200	64-bit entry	rsi = boot_params, identity paging on
;	base + 0x1000	PAYLOAD_SIZE bytes: LZ4 blocks, each behind its size
;			in 32 bits, a size of 0 behind the last one
; In memory:
;
;	base + 2 MiB	vmlinux, startup_64 first: KERNEL_SIZE bytes, of which
;			FLAT_SIZE are unpacked, the rest is zero. The payload
;			waits at its end while it is unpacked.
;	behind it	28 KiB for the page tables of the 32-bit entry
;
; Nothing here depends on base: vmlinux itself runs at any physical address
; that is aligned to 2 MiB (arch/x86/kernel/head_64.S).

%ifndef PAYLOAD_SIZE
%error "PAYLOAD_SIZE, FLAT_SIZE and KERNEL_SIZE, multiples of 8, are needed"
%endif

KERNEL		equ 0x200000
PAYLOAD		equ 0x1000
WAITING		equ KERNEL + KERNEL_SIZE - PAYLOAD_SIZE
TABLES		equ KERNEL + KERNEL_SIZE	; PML4, PDPT, 4 page directories,
STACK_TOP	equ TABLES + 0x7000		; and a page of stack
PAGE_TABLE	equ 0x003	; present, writable
PAGE_2M		equ 0x083	; present, writable, 2 MiB
CR0_PG		equ 1 << 31
CR4_PAE		equ 1 << 5
MSR_EFER	equ 0xC0000080
EFER_LME	equ 1 << 8
BOOT_CS		equ 0x10	; the protocol's selectors
BOOT_DS		equ 0x18

org 0
bits 32
entry32:
	cli
	cld
	; boot_params.scratch (0x1E4) serves as a stack, as in Linux's head_64.S
	lea esp, [esi + 0x1E4 + 4]
	call .here
.here:	pop ebp
	sub ebp, .here
	lea esp, [ebp + STACK_TOP]

	lea edi, [ebp + TABLES]
	lea eax, [edi + 0x1000 + PAGE_TABLE]
	mov [edi], eax
	add eax, 0x1000
	xor ecx, ecx
.pdpt:	mov [edi + 0x1000 + ecx * 8], eax
	add eax, 0x1000
	inc ecx
	cmp ecx, 4
	jb .pdpt
	lea ebx, [edi + 0x2000]
	mov eax, PAGE_2M
.pd:	mov [ebx], eax
	add ebx, 8
	add eax, 0x200000
	jnc .pd

	lea eax, [ebp + gdt]
	mov [ebp + gdt.base], eax
	lgdt [ebp + gdt.pointer]
	mov eax, cr4
	or eax, CR4_PAE
	mov cr4, eax
	mov cr3, edi
	mov ecx, MSR_EFER
	rdmsr
	or eax, EFER_LME
	wrmsr
	mov eax, cr0
	or eax, CR0_PG
	mov cr0, eax
	lea eax, [ebp + long_mode]
	push dword BOOT_CS
	push eax
	retf

bits 64
long_mode:
	mov eax, BOOT_DS
	mov ds, eax
	mov es, eax
	mov ss, eax
	mov esi, esi		; bits 63:32 are undefined after the switch
	jmp entry64

	times 0x200 - ($ - $$) db 0
entry64:
	cli
	cld
	mov r15, rsi		; boot_params, for the kernel
	lea rbp, [rel $$]
	lea rsi, [rbp + PAYLOAD]
	lea rdi, [rbp + WAITING]
	mov rbx, rdi
	mov ecx, PAYLOAD_SIZE / 8
	rep movsq
	mov rsi, rbx
	lea rdi, [rbp + KERNEL]

; LZ4 block format: token (4 bits literals, 4 bits match length - 4, each 15
; followed by bytes to add while they are 255), literals, 16-bit offset.
.block:	lodsd
	test eax, eax
	jz .unpacked
	lea r8, [rsi + rax]
.token:	movzx eax, byte [rsi]
	inc rsi
	mov ecx, eax
	shr ecx, 4
	cmp ecx, 15
	jne .literals
.more:	movzx edx, byte [rsi]
	inc rsi
	add ecx, edx
	cmp edx, 255
	je .more
.literals:
	rep movsb
	cmp rsi, r8
	jae .block
	movzx edx, word [rsi]
	add rsi, 2
	and eax, 15
	lea ecx, [rax + 4]
	cmp eax, 15
	jne .match
.longer:
	movzx eax, byte [rsi]
	inc rsi
	add ecx, eax
	cmp eax, 255
	je .longer
.match:	mov r9, rsi
	mov rsi, rdi
	sub rsi, rdx
	rep movsb
	mov rsi, r9
	jmp .token

.unpacked:
	lea rdi, [rbp + KERNEL + FLAT_SIZE]
	mov ecx, (KERNEL_SIZE - FLAT_SIZE) / 8
	xor eax, eax
	rep stosq
	mov rsi, r15
	lea rax, [rbp + KERNEL]
	jmp rax

align 8
gdt:	dq 0, 0
	dq 0x00AF9A000000FFFF	; BOOT_CS: 64-bit code
	dq 0x00CF92000000FFFF	; BOOT_DS
.end:
.pointer:
	dw .end - gdt - 1
.base:	dd 0

	times PAYLOAD - ($ - $$) db 0
