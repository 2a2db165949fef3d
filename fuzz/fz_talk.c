/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_talk.c - the parser of .9t scripts, and the expressions of their `set` statements. Nothing is run or sent. */
#include "p9/talk_lang.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct talk_err err = { .file = "fuzz" };
	struct talk_script s = { .err = &err };
	struct talk_vars vars = { .err = &err };
	unsigned sets = 0;
	if (p9_talk_parse(&s, (const char *)data, size) == 0) {
		for (unsigned i = 0; i < s.n && sets < 4; i++) {
			struct talk_val v;
			if (s.stmts[i].kind == ST_SET && p9_talk_eval(&vars, &s.stmts[i].a, &v) == 0) {
				(void)p9_talk_set(&vars, s.stmts[i].name, &v);
			}
			sets += s.stmts[i].kind == ST_SET;
			p9_talk_reset(&vars.tmp);
		}
	}
	p9_talk_reset(&vars.tmp);
	p9_talk_reset(&vars.keep);
	p9_talk_script_fini(&s);
	return 0;
}
