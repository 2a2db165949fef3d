/* SPDX-License-Identifier: BSD-2-Clause */
/* hosterr.c - the only place that knows both the host's errno numbers and the wire's.
 *
 * Called at the edges alone: after a system call in a backend, a transport or the client. The names are the same, the
 * numbers differ on MIPS, SPARC, Alpha and PA-RISC, so the table is made from proto/errno.def by name.
 */
#include "base/hosterr.h"
#include <errno.h>

int p9_hosterr(int host_errno)
{
	switch (host_errno) {
#define ERRNO(name, number, text) \
	case name:                \
		return number;
#include "errno.def"
	default:
		return 5; /* EIO */
	}
}

int p9_hosterr_from(int ecode)
{
	switch (ecode) {
#define ERRNO(name, number, text) \
	case number:              \
		return name;
#include "errno.def"
	default:
		return EIO;
	}
}
