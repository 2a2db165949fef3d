/* SPDX-License-Identifier: BSD-2-Clause */
/* hosterr.h - the host's errno numbers as the wire's. */
#ifndef P9_BASE_HOSTERR_H
#define P9_BASE_HOSTERR_H
#include <errno.h>

/* Linux generic number for an errno of this host; EIO for one that has none. Any thread. */
int p9_hosterr(int host_errno);
/* The host's errno for a Linux generic number; EIO for one that has none. Any thread. */
int p9_hosterr_from(int ecode);
/* The negative number to return after a system call has failed. */
static inline int p9_err(void)
{
	return -p9_hosterr(errno);
}

#endif
