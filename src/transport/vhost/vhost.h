/* SPDX-License-Identifier: BSD-2-Clause */
/* vhost.h - a virtio 9P device for a VM monitor, over the vhost-user protocol: one connection is one device is one session.
 *
 * control.c speaks with the monitor (memory, rings, configuration), chains.c carries messages between rings and server.
 * A p9_link_make for p9_server_accept; its argument is a struct p9_vhost_conf. See doc/virtio-9p.md.
 */
#ifndef P9_VHOST_VHOST_H
#define P9_VHOST_VHOST_H
#include "p9/transport.h"

#define P9_VHOST_TAG_MAX 31 /* as QEMU: 32 with the end that the configuration space does not hold */
#define P9_VHOST_QUEUES_MAX 64

struct p9_vhost_conf {
	const char *tag; /* what a guest mounts */
	unsigned queues; /* request queues that are offered */
};

p9_link_make p9_vhost_make;
/* A device that another process has packed. */
p9_link_unpack p9_vhost_unpack;

#endif
