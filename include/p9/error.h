/* SPDX-License-Identifier: BSD-2-Clause */
/* error.h - the one error space of p9: Linux generic errno numbers, as Rlerror carries them.
 *
 * Functions return >= 0, or -P9_Exxx. Host errno values are translated only at the backend and socket edge
 * (src/base/hosterr.c); they differ from ours on MIPS, SPARC, Alpha and PA-RISC.
 */
#ifndef P9_ERROR_H
#define P9_ERROR_H
#include <stdint.h>

#define P9_MUST_USE __attribute__((warn_unused_result))
/* Around the declarations of every header that a C++ program may include. */
#ifdef __cplusplus
#define P9_C_BEGIN extern "C" {
#define P9_C_END }
#else
#define P9_C_BEGIN
#define P9_C_END
#endif
P9_C_BEGIN

/* Name of an error number, "ENOENT"; "E?" for one that is not known. Never NULL. Any thread. */
const char *p9_error_name(uint32_t ecode);
/* Text of an error number, "No such file or directory". Never NULL. Any thread. */
const char *p9_error_text(uint32_t ecode);
/* Number for a name ("ENOENT", length n), or 0 when there is none. */
uint32_t p9_error_number(const char *name, unsigned n);

P9_C_END
#endif
