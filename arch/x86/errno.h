/* SPDX-License-Identifier: MIT */
/*
 * Error numbers. Functions return 0 or a negative one of these; the values
 * are Linux's, so that a host build may include <errno.h> beside this file.
 */
#ifndef ARCH_X86_ERRNO_H
#define ARCH_X86_ERRNO_H

#define EPERM 1
#define ENOENT 2
#define EIO 5
#define E2BIG 7
#define ENOMEM 12
#define EFAULT 14
#define EBUSY 16
#define EEXIST 17
#define ENODEV 19
#define EINVAL 22
#define ENOSPC 28
#define ERANGE 34
#define ENOSYS 38
#define ENOTSUP 95
#define ETIMEDOUT 110

#endif
