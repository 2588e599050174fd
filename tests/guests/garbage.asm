; SPDX-License-Identifier: MIT
; Into random code and, by whatever exception or NMI, out of it again.
%include "guests/layout.inc"

extern garbage_again, gdt_pointer, pml4

section .bss align=16
global garbage_registers, garbage_stack
garbage_registers: resb 16 * 8
	resb 4096
garbage_stack:
	resb 4096
	resb 16384
safe_stack:

section .text
bits 64
; void garbage_enter(const u8 *code): all registers from garbage_registers,
; in the instructions' order.
global garbage_enter
garbage_enter:
	mov [.target], rdi
	mov rax, garbage_registers
	mov r15, [rax + 15 * 8]
	mov r14, [rax + 14 * 8]
	mov r13, [rax + 13 * 8]
	mov r12, [rax + 12 * 8]
	mov r11, [rax + 11 * 8]
	mov r10, [rax + 10 * 8]
	mov r9, [rax + 9 * 8]
	mov r8, [rax + 8 * 8]
	mov rdi, [rax + 7 * 8]
	mov rsi, [rax + 6 * 8]
	mov rbp, [rax + 5 * 8]
	mov rsp, [rax + 4 * 8]
	mov rbx, [rax + 3 * 8]
	mov rdx, [rax + 2 * 8]
	mov rcx, [rax + 1 * 8]
	mov rax, [rax]
	jmp [.target]
section .bss
.target: resb 8

section .text
; Every vector comes here, on a stack of its own (IST 1). Nothing that the
; random code could have changed is trusted.
garbage_trap:
	cli
	cld
	mov rax, pml4
	mov cr3, rax
	mov eax, 0x80010033		; PG, WP, NE, ET, MP, PE
	mov cr0, rax
	mov eax, 0x620			; PAE, OSFXSR, OSXMMEXCPT
	mov cr4, rax
	mov eax, 0x400
	mov dr7, rax
	lgdt [gdt_pointer]
	LOAD_SEGMENTS
	lldt ax
	mov rsp, safe_stack
	push DATA			; IRET: NMIs are taken again
	push safe_stack - 64
	push 2
	push CODE64
	push garbage_again
	iretq

; void garbage_idt(u64 *idt)
global garbage_idt
garbage_idt:
	mov ecx, 256
	mov rax, garbage_trap
.next:	mov [rdi], ax
	mov word [rdi + 2], CODE64
	mov word [rdi + 4], 0x8e01	; IST 1
	mov edx, eax
	shr edx, 16
	mov [rdi + 6], dx
	mov qword [rdi + 8], 0
	add rdi, 16
	loop .next
	ret
