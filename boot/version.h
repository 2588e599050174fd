/* SPDX-License-Identifier: MIT */
/* The one place that says it; CHANGELOG.md's first entry is of this version. */
#ifndef BOOT_VERSION_H
#define BOOT_VERSION_H

#define MONOCLE_VERSION "0.9"

#endif
