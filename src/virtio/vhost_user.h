/* SPDX-License-Identifier: BSD-2-Clause */
/* vhost_user.h - the messages of vhost-user, as docs/interop/vhost-user.rst of QEMU has them. Host byte order. For both ends:
 * src/transport/vhost/ is the device, src/front/ the driver. */
#ifndef P9_VIRTIO_VHOST_USER_H
#define P9_VIRTIO_VHOST_USER_H
#include <stdint.h>

enum {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_RESET_DEVICE = 34,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_STATUS = 39,
	VU_GET_STATUS = 40,
};

#define VU_VERSION 1u
#define VU_VERSION_MASK 3u
#define VU_REPLY 4u
#define VU_NEED_REPLY 8u

/* Protocol features. */
#define VU_P_MQ (UINT64_C(1) << 0)
#define VU_P_REPLY_ACK (UINT64_C(1) << 3)
#define VU_P_BACKEND_REQ (UINT64_C(1) << 5)
#define VU_P_CONFIG (UINT64_C(1) << 9)
#define VU_P_INFLIGHT_SHMFD (UINT64_C(1) << 12)
#define VU_P_RESET_DEVICE (UINT64_C(1) << 13)
#define VU_P_CONFIGURE_MEM_SLOTS (UINT64_C(1) << 15)
#define VU_P_STATUS (UINT64_C(1) << 16)
/* In the virtio features: that there are protocol features. */
#define VU_F_PROTOCOL_FEATURES (UINT64_C(1) << 30)

#define VU_NOFD 0x100u /* SET_VRING_KICK, _CALL, _ERR: no descriptor comes */
#define VU_INDEX 0xffu

#define P9_VHOST_FDS_MAX 8
#define VU_TABLE_MAX 8	  /* regions of one SET_MEM_TABLE */
#define VU_CONFIG_MAX 256 /* bytes of configuration space */
#define VU_PAYLOAD_MAX 512

struct vu_header {
	uint32_t request, flags, size;
};
struct vu_vring_state {
	uint32_t index, num;
};
struct vu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};
struct vu_region {
	uint64_t guest, size, user, offset;
};
struct vu_mem_table {
	uint32_t n, padding;
	struct vu_region r[VU_TABLE_MAX];
};
struct vu_mem_one {
	uint64_t padding;
	struct vu_region r;
};
struct vu_config {
	uint32_t offset, size, flags;
	uint8_t bytes[VU_CONFIG_MAX];
};
struct vu_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t queues, num;
	uint32_t padding; /* sent by those who send their compiler's struct, such as QEMU */
};
#define VU_INFLIGHT_MIN 20u

/* On the wire the payload follows the head at once; here it is aligned. */
struct p9_vhost_message {
	struct vu_header head;
	union {
		uint64_t u64;
		struct vu_vring_state state;
		struct vu_vring_addr addr;
		struct vu_mem_table table;
		struct vu_mem_one one;
		struct vu_config config;
		struct vu_inflight inflight;
		uint8_t bytes[VU_PAYLOAD_MAX];
	};
};

#endif
