/* SPDX-License-Identifier: BSD-2-Clause */
/* gen.h - messages with interesting fields, and mutations of streams of messages, by the descriptors of proto/.
 *
 * Used by the fuzz targets' custom mutators and by the printer of seeds. All state is the random number.
 */
#ifndef P9_FUZZ_GEN_H
#define P9_FUZZ_GEN_H
#include "p9/codec.h"

/* Which messages a generator makes: a name's first letter. */
enum fz_side { FZ_T = 'T', FZ_R = 'R' };

uint32_t fz_rand(uint64_t *rng);
static inline uint32_t fz_below(uint64_t *rng, uint32_t n)
{
	return n ? fz_rand(rng) % n : 0;
}

/* Fills one field with a value of its kind's pool. */
void fz_field(uint64_t *rng, const struct p9_field *f, struct p9_msg *m);
/* A message of a random type, with fields from the pools. */
void fz_message(uint64_t *rng, enum fz_side side, struct p9_msg *m);
/* One of this type. */
void fz_message_of(uint64_t *rng, uint8_t type, struct p9_msg *m);
/* Encodes; 0 when it does not fit. */
size_t fz_put(uint8_t *buf, size_t cap, const struct p9_msg *m);

/* Changes a stream of messages in place: fields, order, number of messages, or plain bytes. Returns its new size. */
size_t fz_mutate(uint8_t *data, size_t size, size_t max, unsigned seed, enum fz_side side);
/* Messages of one stream with messages of another. Returns the size of what is in out. */
size_t fz_cross(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max, unsigned seed);

/* A message of the stream at `pos`: its length, at least 1, at most what is left; *whole when the frame is complete. */
size_t fz_next(const uint8_t *data, size_t size, size_t pos, bool *whole);

/* libFuzzer's own mutator; a program without libFuzzer has a stub. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max,
				 unsigned seed);

/* Ends the process as a finding when a condition does not hold. */
#define FZ_CHECK(cond, ...)                                                     \
	do {                                                                    \
		if (!(cond)) {                                                  \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond); \
			fprintf(stderr, __VA_ARGS__);                           \
			fprintf(stderr, "\n");                                  \
			abort();                                                \
		}                                                               \
	} while (0)

#endif
