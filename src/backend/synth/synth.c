/* SPDX-License-Identifier: BSD-2-Clause */
/* synth.c - directories, portals and computed files in memory. Read-only; immutable once served, so no locks.
 *
 * An inode number is a hash of the path, under device index 0xfffe, which no real device gets (local/qid.c): the same in
 * every p9d that has the same names in its tree, whatever else is there.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/pack.h"
#include "p9/codec.h"
#include "p9/synth.h"

#define SYNTH_PATH(n) (0xfffeull << 48 | (n))
#define INO_MASK ((UINT64_C(1) << 48) - 1)
#define ROOT_INO 1u
#define FILE_TEXT_MAX 65536u

struct snode {
	struct p9_node base; /* counted, but owned by the tree: the count only tells who looks */
	struct snode *parent, *child, *sibling;
	size_t (*fill)(void *arg, char *buf, size_t cap);
	void *arg;
	uint64_t ino;
	char name[P9_NAMEMAX + 1];
};
struct p9_synth {
	struct snode *root;
	time_t born;
};
struct sfile {
	struct p9_file base;
	size_t len;
	char text[];
};

#define SNODE(n) ((struct snode *)(n))

/* FNV-1a, with a slash before each name. */
static uint64_t hash(uint64_t h, const char *name, size_t len)
{
	h = (h ^ '/') * 0x100000001b3ull;
	for (size_t i = 0; i < len; i++) {
		h = (h ^ (uint8_t)name[i]) * 0x100000001b3ull;
	}
	return h & INO_MASK;
}

static struct snode *new_node(struct snode *parent, const char *name, size_t len)
{
	struct snode *n = calloc(1, sizeof(*n));
	if (!n || len > P9_NAMEMAX) {
		free(n);
		return NULL;
	}
	atomic_init(&n->base.refs, 1);
	n->base.be = &p9_synth;
	n->base.qtype = P9_QTDIR;
	n->parent = parent ? parent : n;
	memcpy(n->name, name, len);
	n->ino = parent ? hash(parent->ino, name, len) : ROOT_INO;
	if (parent) {
		struct snode **p = &parent->child;
		while (*p) {
			p = &(*p)->sibling;
		}
		*p = n;
	}
	return n;
}

int p9_synth_new(struct p9_synth **out)
{
	struct p9_synth *s = calloc(1, sizeof(*s));
	if (!s) {
		return -P9_ENOMEM;
	}
	s->born = time(NULL);
	s->root = new_node(NULL, "", 0);
	if (!s->root) {
		free(s);
		return -P9_ENOMEM;
	}
	*out = s;
	return 0;
}

void p9_synth_free(struct p9_synth *s)
{
	struct snode *n = s ? s->root : NULL;
	while (n) { /* leaves first, without recursion: go down, free, go up */
		if (n->child) {
			struct snode *c = n->child;
			n->child = c->sibling;
			n = c;
		} else {
			struct snode *up = n == s->root ? NULL : n->parent;
			free(n);
			n = up;
		}
	}
	free(s);
}

static struct snode *find(const struct snode *dir, const char *name, size_t len)
{
	struct snode *n = dir->child;
	while (n && (strlen(n->name) != len || memcmp(n->name, name, len) != 0)) {
		n = n->sibling;
	}
	return n;
}

static int make(struct p9_synth *s, const char *path, struct snode **out)
{
	struct snode *at = s->root;
	bool fresh = false;
	while (*path) {
		size_t len = strcspn(path, "/");
		if (len > 0 && !(len == 1 && path[0] == '.')) { /* "./a" is a */
			struct snode *n = find(at, path, len);
			fresh = !n;
			n = n ? n : new_node(at, path, len);
			if (!n) {
				return -P9_ENOMEM;
			}
			if (n->base.portal || n->fill) {
				return -P9_EEXIST;
			}
			at = n;
		}
		path += len + (path[len] == '/');
	}
	*out = at;
	return fresh ? 0 : -P9_EEXIST;
}

int p9_synth_portal(struct p9_synth *s, const char *path, void *tree)
{
	struct snode *n;
	int rc = make(s, path, &n);
	if (rc == 0) {
		n->base.portal = true;
		n->base.tree = tree;
	}
	return rc;
}

int p9_synth_file(struct p9_synth *s, const char *path, size_t (*fill)(void *arg, char *buf, size_t cap), void *arg)
{
	struct snode *n;
	int rc = make(s, path, &n);
	if (rc == 0) {
		n->base.qtype = P9_QTFILE;
		n->fill = fill;
		n->arg = arg;
	}
	return rc;
}

static struct p9_qid qid_of(const struct snode *n)
{
	return (struct p9_qid){ n->base.qtype, 0, SYNTH_PATH(n->ino) };
}

static int synth_attach(struct p9_caller *c, void *arg, struct p9_node **out)
{
	(void)c;
	*out = p9_node_get(&((struct p9_synth *)arg)->root->base);
	return 0;
}

/* Stops at a portal: what lies behind it is another backend's. */
static int synth_walk(struct p9_caller *c, struct p9_node *base, const struct p9_strs *names, struct p9_qids *qids,
		      struct p9_node **out)
{
	struct snode *n = SNODE(base);
	(void)c;
	qids->n = 0;
	*out = NULL;
	for (unsigned i = 0; i < names->n && !n->base.portal; i++) {
		const struct p9_str *s = &names->v[i];
		bool up = s->len == 2 && memcmp(s->s, "..", 2) == 0;
		struct snode *next = n->fill ? NULL : up ? n->parent : find(n, s->s, s->len);
		if (!next) {
			return qids->n > 0 ? 0 : n->fill ? -P9_ENOTDIR : -P9_ENOENT;
		}
		n = next;
		qids->v[qids->n++] = qid_of(n);
	}
	*out = p9_node_get(&n->base);
	return 0;
}

static int synth_getattr(struct p9_caller *c, struct p9_node *base, uint64_t mask, struct p9_rgetattr *out)
{
	struct snode *n = SNODE(base);
	(void)c;
	(void)mask;
	*out = (struct p9_rgetattr){
		.valid = P9_GETATTR_BASIC,
		.qid = qid_of(n),
		.mode = n->fill ? S_IFREG | 0444 : S_IFDIR | 0555,
		.nlink = n->fill ? 1 : 2,
		.blksize = 4096,
	};
	return 0;
}

static int synth_statfs(struct p9_caller *c, struct p9_node *n, struct p9_rstatfs *out)
{
	(void)c;
	(void)n;
	*out = (struct p9_rstatfs){ .type = 0x01021997, .bsize = 4096, .namelen = P9_NAMEMAX };
	return 0;
}

static int synth_open(struct p9_caller *c, struct p9_node *base, uint32_t flags, struct p9_file **out)
{
	struct snode *n = SNODE(base);
	(void)c;
	if (!n->fill && (flags & P9_O_ACCMODE) != P9_O_RDONLY) {
		return -P9_EISDIR;
	}
	struct sfile *f = calloc(1, sizeof(*f) + (n->fill ? FILE_TEXT_MAX : 0));
	if (!f) {
		return -P9_ENOMEM;
	}
	atomic_init(&f->base.refs, 1);
	f->base.be = &p9_synth;
	f->base.node = p9_node_get(base);
	f->base.flags = flags;
	f->base.fd = -1;
	f->len = n->fill ? n->fill(n->arg, f->text, FILE_TEXT_MAX) : 0;
	*out = &f->base;
	return 0;
}

static int64_t synth_read(struct p9_caller *c, struct p9_file *base, uint64_t offset, const struct iovec *iov, int niov,
			  bool nowait)
{
	struct sfile *f = (struct sfile *)base;
	int64_t n = 0;
	(void)c;
	(void)nowait;
	for (int i = 0; i < niov && offset < f->len; i++) {
		size_t k = f->len - offset < iov[i].iov_len ? f->len - offset : iov[i].iov_len;
		memcpy(iov[i].iov_base, f->text + offset, k);
		offset += k;
		n += (int64_t)k;
	}
	return n;
}

/* Cookies: 1 after ".", 2 after "..", 2 + i after the i-th child. */
static int synth_readdir(struct p9_caller *c, struct p9_file *f, uint64_t offset, uint8_t *buf, uint32_t cap)
{
	struct snode *dir = SNODE(f->node), *n = dir->child;
	uint32_t len = 0;
	(void)c;
	for (uint64_t at = 0;; at++) {
		const char *name = at == 0 ? "." : at == 1 ? ".." : n ? n->name : NULL;
		const struct snode *who = at == 0 ? dir : at == 1 ? dir->parent : n;
		if (!name) {
			return (int)len;
		}
		if (at > 1) {
			n = n->sibling;
		}
		if (at < offset) {
			continue;
		}
		struct p9_dirent e = {
			qid_of(who), at + 1, who->fill ? DT_REG : DT_DIR, { name, (uint16_t)strlen(name) }
		};
		size_t k = p9_wire_dirent_put(buf + len, cap - len, &e);
		if (k == 0) {
			return len ? (int)len : -P9_EINVAL;
		}
		len += (uint32_t)k;
	}
}

static int synth_close(struct p9_caller *c, struct p9_file *f)
{
	(void)c;
	p9_node_put(f->node);
	free(f);
	return 0;
}

/* The tree holds one reference on each node for as long as it lives. */
static void synth_free_node(struct p9_node *n)
{
	(void)n;
}

/* ---- for another process: a node is its path ---- */
#define DEPTH_MAX 64

static void synth_pack_node(struct p9_node *base, struct p9_pack *p)
{
	const struct snode *way[DEPTH_MAX], *n = SNODE(base);
	unsigned depth = 0;
	for (; n->parent != n && depth < DEPTH_MAX; n = n->parent) {
		way[depth++] = n;
	}
	if (n->parent != n) {
		p9_pack_fail(p, "the directory of exports is too deep");
	}
	p9_pack_number(p, depth);
	while (depth > 0) {
		p9_pack_text(p, way[--depth]->name);
	}
}

static struct p9_node *synth_unpack_node(void *root, struct p9_unpack *u)
{
	struct snode *n = ((struct p9_synth *)root)->root;
	unsigned depth = (unsigned)p9_unpack_number(u, DEPTH_MAX);
	for (unsigned i = 0; i < depth && !p9_unpack_bad(u); i++) {
		char name[P9_NAMEMAX + 1];
		p9_unpack_text(u, name, sizeof(name));
		struct snode *next = find(n, name, strlen(name));
		if (!next) {
			p9_unpack_fail(u, "a client is in \"%s\" of the list of exports, and that is gone", name);
			return NULL;
		}
		n = next;
	}
	return p9_unpack_bad(u) ? NULL : p9_node_get(&n->base);
}

static void synth_pack_file(struct p9_file *base, struct p9_pack *p)
{
	const struct sfile *f = (const struct sfile *)base;
	synth_pack_node(base->node, p);
	p9_pack_number(p, base->flags);
	p9_pack_bytes(p, f->text, f->len);
}

static struct p9_file *synth_unpack_file(void *root, struct p9_unpack *u)
{
	size_t n;
	struct p9_node *node = synth_unpack_node(root, u);
	uint32_t flags = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	const uint8_t *text = p9_unpack_bytes(u, FILE_TEXT_MAX, &n);
	struct sfile *f = calloc(1, sizeof(*f) + n);
	if (p9_unpack_bad(u) || !node || !f) {
		p9_unpack_fail(u, "out of memory");
		p9_node_put(node);
		free(f);
		return NULL;
	}
	atomic_init(&f->base.refs, 1);
	f->base.be = &p9_synth;
	f->base.node = node;
	f->base.flags = flags;
	f->base.fd = -1;
	f->len = n;
	if (n) {
		memcpy(f->text, text, n);
	}
	return &f->base;
}

const struct p9_backend p9_synth = {
	.name = "synth",
	.attach = synth_attach,
	.walk = synth_walk,
	.getattr = synth_getattr,
	.statfs = synth_statfs,
	.open = synth_open,
	.read = synth_read,
	.readdir = synth_readdir,
	.close = synth_close,
	.free_node = synth_free_node,
	.pack_node = synth_pack_node,
	.unpack_node = synth_unpack_node,
	.pack_file = synth_pack_file,
	.unpack_file = synth_unpack_file,
};
