/* loss_table.c - the losses by number. */
#include "loss.h"

static const gp_loss_ops *const losses[] = {
#define X(name) &gp_loss_##name,
    GP_LOSS_LIST
#undef X
};

const gp_loss_ops *gp_loss_at(size_t i)
{
    return i < sizeof losses / sizeof losses[0] ? losses[i] : NULL;
}

const char *gp_loss_name(const gp_loss_ops *loss) { return loss->name; }
