; SPDX-License-Identifier: MIT
; vmx_switch, which vmx_enter() (vmx.h) calls: the way in and out of the guest.
; General registers are ours to exchange (SDM 28.5); RSP, RIP, RFLAGS and the
; rest come and go with the VMCS. Vector registers stay the guest's. Monocle's own
; are lost but for RBX, RBP and RSP: the caller knows.

FRAME_STACK	equ 128		; of struct vmx_frame
FRAME_LAUNCHED	equ 136
PERCPU_ATTENTION equ 24		; kernel/percpu.h

; From the first of these to the second, an NMI has the CPU go on at the third:
; it may not enter the guest with what the NMI was for unseen (kernel/traps.c).
global vmx_window
global vmx_window_last
global vmx_window_out

section .text
bits 64
global vmx_switch
global vmx_exit

align 64
vmx_switch:
	push rbx
	push rbp
vmx_window:
	cmp dword [gs:PERCPU_ATTENTION], 0
	jne vmx_window_out
	mov [rdi + FRAME_STACK], rsp
	cmp byte [rdi + FRAME_LAUNCHED], 1
	mov rax, [rdi]		; moves keep the flags
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
	jne vmx_launch
	vmresume
	jmp vmx_failed
vmx_launch:
	vmlaunch
vmx_window_last:
vmx_failed:
	; CF: VMfailInvalid, ZF: VMfailValid (SDM 31.2).
	mov eax, 1
	jc vmx_out
	mov eax, 2
vmx_out:
	pop rbp
	pop rbx
	ret
vmx_window_out:
	mov eax, 3
	jmp vmx_out

; RSP is the frame (HOST_RSP). Nothing lies on it until it is the stack again:
; IF is 0, and NMIs and machine checks have stacks of their own.
align 64
vmx_exit:
	mov byte [rsp + FRAME_LAUNCHED], 1
	mov [rsp], rax
	mov [rsp + 8], rcx
	mov [rsp + 16], rdx
	mov [rsp + 24], rbx
	mov [rsp + 40], rbp
	mov [rsp + 48], rsi
	mov [rsp + 56], rdi
	mov [rsp + 64], r8
	mov [rsp + 72], r9
	mov [rsp + 80], r10
	mov [rsp + 88], r11
	mov [rsp + 96], r12
	mov [rsp + 104], r13
	mov [rsp + 112], r14
	mov [rsp + 120], r15
	mov rsp, [rsp + FRAME_STACK]
	pop rbp
	pop rbx
	xor eax, eax
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
