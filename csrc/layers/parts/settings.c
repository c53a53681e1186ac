/* settings.c - how a layer reads the numbers that are its settings. */
#include <math.h>

#include "layers/layers.h"

int gp_read_size(double number, size_t *size)
{
    /* whole numbers up to here are exact, and so are sizes */
    if (!(number >= 0.0 && number <= 0x1p53) || number != floor(number)) return 0;
    *size = (size_t)number;
    return 1;
}

int gp_read_offset(double number, size_t *offset)
{
    if (number >= 0.0) return gp_read_size(number, offset);
    *offset = GP_NONE;
    return !isnan(number);
}
