/* table.c - compiled once per instruction set with -DGP_ISA_<NAME>; gives one table,
 * gp_kernels__<name>. */
#include "kernels/kernels.h"

#include "kernels/cells.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/int8.h"
#include "kernels/lanes.h"
#include "kernels/loss.h"
#include "kernels/normalize.h"
#include "kernels/norms.h"
#include "kernels/rows.h"
#include "kernels/select.h"
#include "kernels/sparse.h"
#include "kernels/transform.h"
#include "kernels/update.h"
#include "kernels/window.h"

#define GP_PASTE2(a, b) a##b
#define GP_PASTE(a, b) GP_PASTE2(a, b)
#define GP_STRING2(a) #a
#define GP_STRING(a) GP_STRING2(a)

const gp_kernels GP_PASTE(gp_kernels__, GP_SUFFIX) = {.isa = GP_STRING(GP_SUFFIX),
                                                      .width = GP_V,
#define GP_KERNEL_ENTRY(type, name, parameters) .name = name,
                                                      GP_KERNEL_LIST(GP_KERNEL_ENTRY)
#undef GP_KERNEL_ENTRY
};
