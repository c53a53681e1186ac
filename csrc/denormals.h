/* denormals.h - numbers below 2^-126 count as 0 while the engine runs.
 *
 * Arithmetic on denormals takes a hundred times as long on many CPUs, and training makes them: the
 * first moment of a weight whose gradient has become 0 (a dead relu) shrinks by 0.9 a step, and
 * rounding keeps it from ever reaching 0.
 */
#ifndef GP_DENORMALS_H
#define GP_DENORMALS_H

#include <stdint.h>

/* Of the calling thread: denormals count as 0 from now on; returns what gp_denormals_restore wants
 * back. (dispatch.c) */
uint64_t gp_denormals_flush(void);
void gp_denormals_restore(uint64_t before);

#endif
