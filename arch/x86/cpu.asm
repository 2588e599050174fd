; SPDX-License-Identifier: MIT
section .text
bits 64

; int rdmsr_safe(u32 msr, u64 *value): 0, or -EFAULT where the CPU has no
; such MSR; trap_handle() sends the #GP at rdmsr_fault on to rdmsr_recover.
global rdmsr_safe
global rdmsr_fault
global rdmsr_recover
rdmsr_safe:
	mov ecx, edi
rdmsr_fault:
	rdmsr
	shl rdx, 32
	or rax, rdx
	mov [rsi], rax
	xor eax, eax
	ret
rdmsr_recover:
	mov eax, -14
	ret
