/* test_kernels.c - every kernel, on every instruction set this CPU can run, against naive C.
 *
 * The cases are in cases_<file>.h, one for each of csrc/kernels/<file>.h: a function test_<kernel>
 * a kernel. They are called by the list the kernels themselves come from, so that a kernel without
 * a test does not compile. What is asked of all: sizes around the vector width, pointers off
 * alignment, no write outside of the output, and the same bits wherever in a vector, or in its
 * padded rest, a number happens to stand: the promise that neither threads nor batches change a
 * result rests on it.
 */
#include "cases_cells.h"
#include "cases_elementwise.h"
#include "cases_gemm.h"
#include "cases_int8.h"
#include "cases_lanes.h"
#include "cases_loss.h"
#include "cases_normalize.h"
#include "cases_norms.h"
#include "cases_rows.h"
#include "cases_select.h"
#include "cases_sparse.h"
#include "cases_transform.h"
#include "cases_update.h"
#include "cases_window.h"

#define EACH_ONCE(type, name, parameters) over_instruction_sets("test_" #name, test_##name, 1);

int main(void)
{
    GP_KERNEL_LIST(EACH_ONCE)
    return check_summary();
}
