; SPDX-License-Identifier: MIT
; Where a further CPU starts: real mode at the page that the SIPI names
; (SDM 9.4.4.2), to which the code from ap_trampoline on is copied. It loads
; Monocle's page tables (in the first 4 GiB) and calls ap_main() on the stack
; that the parameters hold.

extern ap_main

CR0_ON		equ 0x80010001	; PG, WP, PE
CR4_PAE		equ 1 << 5
EFER		equ 0xc0000080
EFER_LME_NXE	equ 1 << 8 | 1 << 11
MISC_ENABLE	equ 0x1a0
MISC_XD_DISABLE	equ 1 << 2	; bit 34

section .rodata
global ap_trampoline
global ap_trampoline_end
global ap_parameters

%define OFF(x) (x - ap_trampoline)

bits 16
align 16
ap_trampoline:
	cli
	cld
	mov ax, cs
	mov ds, ax
	xor ebx, ebx
	mov bx, ax
	shl ebx, 4		; where this page lies
	lea eax, [ebx + OFF(gdt)]
	mov [OFF(gdtr) + 2], eax
	lea eax, [ebx + OFF(long_mode)]
	mov [OFF(target)], eax
	o32 lgdt [OFF(gdtr)]
	mov eax, CR4_PAE
	mov cr4, eax
	mov eax, [OFF(ap_parameters)]
	mov cr3, eax
	mov esi, ebx
	mov eax, 0x80000001
	cpuid
	mov ebx, esi
	bt edx, 20
	jc .nx
	mov ecx, MISC_ENABLE	; as in start.asm
	rdmsr
	and edx, ~MISC_XD_DISABLE
	wrmsr
.nx:
	mov ecx, EFER
	xor edx, edx
	mov eax, EFER_LME_NXE
	wrmsr
	mov eax, CR0_ON
	mov cr0, eax
	o32 jmp far [OFF(target)]

bits 64
long_mode:
	mov eax, 16
	mov ds, eax
	mov es, eax
	mov ss, eax
	mov rsp, [rbx + OFF(ap_parameters) + 8]
	mov rdi, [rbx + OFF(ap_parameters) + 16]
	mov rax, [rbx + OFF(ap_parameters) + 24]
	xor ebp, ebp
	call rax
.halt:	cli
	hlt
	jmp .halt

align 8
gdt:	dq 0
	dq 0x00209b0000000000
	dq 0x0000930000000000
gdtr:	dw 23
	dd 0
target:	dd 0
	dw 8
align 8
ap_parameters:
	dq 0			; CR3
	dq 0			; stack
	dq 0			; struct percpu
	dq 0			; ap_main
ap_trampoline_end:
