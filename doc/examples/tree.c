/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.c - lists what a 9P2000.L server shares, with sizes: a program of libp9's that waits for each answer.
 *
 *   cc tree.c -o tree $(pkg-config --cflags --libs p9)
 *   ./tree unix:/run/p9.sock [PATH]
 */
#include <inttypes.h>
#include <stdio.h>
#include <p9/fs.h>

static int show(void *arg, const struct p9_visit *v)
{
	unsigned *files = arg;
	if (v->error < 0) {
		printf("%s: %s\n", v->path, p9_error_text((uint32_t)-v->error));
		return 0; /* and go on with the rest */
	}
	printf("%12" PRIu64 "  %s\n", v->st ? v->st->size : 0, v->path);
	*files += 1;
	return 0;
}

int main(int argc, char **argv)
{
	struct p9_client_opts opts = { .uid = 0, .timeout_ms = 30000, .reconnect_ms = 60000 };
	struct p9_client *c = p9_client_new();
	unsigned files = 0;
	if (!c || argc < 2) {
		fprintf(stderr, "usage: tree ADDRESS [PATH]\n");
		return 2;
	}
	if (p9_client_dial(c, argv[1], &opts) < 0 ||
	    p9_walk_tree(c, argc > 2 ? argv[2] : "/", P9_WALK_TREE_ATTRS, show, &files) < 0) {
		fprintf(stderr, "tree: %s\n", p9_client_error(c));
		p9_client_free(c);
		return 1;
	}
	printf("%u files\n", files);
	p9_client_free(c);
	return 0;
}
