/* rules.c - SGD, Adam and RMSprop: their moments, limits and numbers; the formulas are in
 * kernels/update.h. */
#include "rules.h"

#include <float.h>
#include <math.h>

const gp_rule_ops *gp_rule_ops_of(const gp_rule *rule)
{
    return (size_t)rule->kind < GP_RULES ? gp_rule_table[rule->kind] : NULL;
}

/* The square in a second moment stays within float. */
static double largest_to_square(const gp_rule *rule)
{
    (void)rule;
    return 1e19;
}

/* ---- SGD ------------------------------------------------------------------------------------- */

static int sgd_moments(const gp_rule *rule) { return rule->momentum != 0.0 ? 1 : 0; }

/* What a first moment and the weight add up to stays within float. */
static double sgd_largest(const gp_rule *rule)
{
    return (double)FLT_MAX * fmax(1.0 - rule->momentum, 1e-6) / fmax(2.0 * rule->lr, 1.0);
}

static void sgd_fold(const gp_rule *rule, gp_update *u)
{
    u->beta1 = (float)rule->momentum;
    /* torch: the buffer starts as g */
    u->gain1 = rule->step == 1 ? 1.0f : (float)(1.0 - rule->dampening);
    u->lr = (float)rule->lr;
}

static void sgd_update(const gp_kernels *kernels, size_t n, float *w, const float *g, float *first,
                       float *second, const gp_update *u)
{
    (void)second;
    kernels->sgd(n, w, g, first, u);
}

static const gp_rule_ops sgd = {"sgd", sgd_moments, sgd_largest, sgd_fold, sgd_update};

/* ---- Adam ------------------------------------------------------------------------------------ */

static int adam_moments(const gp_rule *rule)
{
    (void)rule;
    return 2;
}

static void adam_fold(const gp_rule *rule, gp_update *u)
{
    const double t = (double)rule->step;
    u->beta1 = (float)rule->beta1;
    u->beta2 = (float)rule->beta2;
    u->gain1 = (float)(1.0 - rule->beta1);
    u->gain2 = (float)(1.0 - rule->beta2);
    u->correction2 = (float)(1.0 / sqrt(1.0 - pow(rule->beta2, t)));
    u->lr = (float)(rule->lr / (1.0 - pow(rule->beta1, t)));
}

static void adam_update(const gp_kernels *kernels, size_t n, float *w, const float *g, float *first,
                        float *second, const gp_update *u)
{
    kernels->adam(n, w, g, first, second, u);
}

static const gp_rule_ops adam = {"adam", adam_moments, largest_to_square, adam_fold, adam_update};

/* ---- RMSprop --------------------------------------------------------------------------------- */

static int rmsprop_moments(const gp_rule *rule) { return rule->momentum != 0.0 ? 2 : 1; }

static void rmsprop_fold(const gp_rule *rule, gp_update *u)
{
    u->beta1 = (float)rule->momentum;
    u->beta2 = (float)rule->beta2;
    u->gain2 = (float)(1.0 - rule->beta2);
    u->lr = (float)rule->lr;
}

static void rmsprop_update(const gp_kernels *kernels, size_t n, float *w, const float *g,
                           float *first, float *second, const gp_update *u)
{
    kernels->rmsprop(n, w, g, first, second, u);
}

static const gp_rule_ops rmsprop = {"rmsprop", rmsprop_moments, largest_to_square, rmsprop_fold,
                                    rmsprop_update};

const gp_rule_ops *const gp_rule_table[GP_RULES] = {
    [GP_SGD] = &sgd, [GP_ADAM] = &adam, [GP_RMSPROP] = &rmsprop};
