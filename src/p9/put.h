/* SPDX-License-Identifier: BSD-2-Clause */
/* put.h - between cmd_put.c (directories, the command) and put_file.c (files). */
#ifndef P9_PUT_H
#define P9_PUT_H
#include <sys/stat.h>
#include "p9/copy.h"

/* Begins to copy the entry `name` of a directory: a regular file or a symbolic link, as `st` says. */
void p9_put_entry(struct p9_dir *d, const char *name, const struct stat *st);
/* Opens a job's file here, which must be regular, and notes its size, mode and time. Returns 0 or -P9_Exxx. */
int p9_put_open(struct p9_job *j, int dir, int flags);
/* Begins to copy a job whose file is open. */
void p9_put_file(struct p9_job *j);
/* Says what went wrong and ends the job. */
void p9_put_fail(struct p9_job *j, int rc);

#endif
