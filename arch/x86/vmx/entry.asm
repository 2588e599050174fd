; SPDX-License-Identifier: MIT
; int vmx_enter(struct vmx_frame *): the way in and out of the guest.
; General registers are ours to exchange (SDM 28.5); RSP, RIP, RFLAGS and the
; rest come and go with the VMCS. Vector registers stay the guest's.

VMCS_HOST_RSP	equ 0x6c14
FRAME_HOST_RSP	equ 128		; of struct vmx_frame
FRAME_LAUNCHED	equ 136
PERCPU_ATTENTION equ 24		; kernel/percpu.h

; From the first of these to the second, an NMI has the CPU go on at the third:
; it may not enter the guest with what the NMI was for unseen (kernel/traps.c).
global vmx_window
global vmx_window_last
global vmx_window_out

section .text
bits 64
global vmx_enter
global vmx_exit

align 64
vmx_enter:
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	push rdi		; the frame
vmx_window:
	cmp dword [gs:PERCPU_ATTENTION], 0
	jne vmx_window_out
	cmp [rdi + FRAME_HOST_RSP], rsp
	jne vmx_stack
vmx_load:
	mov rax, [rdi]		; ZF: it was launched; moves keep the flags
	mov rcx, [rdi + 8]
	mov rdx, [rdi + 16]
	mov rbx, [rdi + 24]
	mov rbp, [rdi + 40]
	mov rsi, [rdi + 48]
	mov r8, [rdi + 64]
	mov r9, [rdi + 72]
	mov r10, [rdi + 80]
	mov r11, [rdi + 88]
	mov r12, [rdi + 96]
	mov r13, [rdi + 104]
	mov r14, [rdi + 112]
	mov r15, [rdi + 120]
	mov rdi, [rdi + 56]
	jnz vmx_launch
	vmresume
	jmp vmx_failed
vmx_launch:
	vmlaunch
	jmp vmx_failed
vmx_stack:	; It moves with the caller only; at first it is 0.
	mov eax, VMCS_HOST_RSP
	vmwrite rax, rsp
	mov [rdi + FRAME_HOST_RSP], rsp
	cmp byte [rdi + FRAME_LAUNCHED], 1
	jmp vmx_load
vmx_window_last:
vmx_failed:
	; CF: VMfailInvalid, ZF: VMfailValid (SDM 31.2).
	mov eax, 1
	jc vmx_out
	mov eax, 2
	jmp vmx_out
vmx_window_out:
	mov eax, 3
vmx_out:
	pop rdi
	jmp vmx_return

align 64
vmx_exit:
	push rdi		; the guest's
	mov rdi, [rsp + 8]	; the frame
	mov byte [rdi + FRAME_LAUNCHED], 1
	mov [rdi], rax
	mov [rdi + 8], rcx
	mov [rdi + 16], rdx
	mov [rdi + 24], rbx
	mov [rdi + 40], rbp
	mov [rdi + 48], rsi
	pop qword [rdi + 56]
	mov [rdi + 64], r8
	mov [rdi + 72], r9
	mov [rdi + 80], r10
	mov [rdi + 88], r11
	mov [rdi + 96], r12
	mov [rdi + 104], r13
	mov [rdi + 112], r14
	mov [rdi + 120], r15
	pop rdi
	xor eax, eax
vmx_return:
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret

global cpu_unblock_nmi
cpu_unblock_nmi:
	pop rax			; the return address
	mov rdx, rsp
	mov ecx, ss
	push rcx
	push rdx
	pushfq
	mov ecx, cs
	push rcx
	push rax
	iretq
