/* SPDX-License-Identifier: BSD-2-Clause */
/* mem.h - a link without descriptors of the network: two queues of bytes in this process. For tests and embedding.
 *
 * The server's end is an ordinary stream (p9_mem_make goes to p9_server_accept); the other end is called directly.
 */
#ifndef P9_TRANSPORT_MEM_H
#define P9_TRANSPORT_MEM_H
#include "p9/transport.h"

struct p9_mem;

/* Makes both queues, of `cap` bytes each. NULL when memory or descriptors (one eventfd) are short. Any thread. */
struct p9_mem *p9_mem_new(size_t cap);
/* What to hand to p9_server_accept, twice: the server takes it over and closes it. */
int p9_mem_fd(const struct p9_mem *m);
p9_link_make p9_mem_make;
/* The other end. put takes as much as there is room for and returns how much; get returns 0 when nothing is there now, -1
 * when the server has closed the link and all has been read. Any thread, one at a time each. */
size_t p9_mem_put(struct p9_mem *m, const void *bytes, size_t n);
ssize_t p9_mem_get(struct p9_mem *m, void *bytes, size_t n);
/* The other end is done; memory goes when the server is, too. */
void p9_mem_close(struct p9_mem *m);

#endif
