/* rules.h - what an optimizer's rule says about itself: one row a gp_rule_kind. */
#ifndef GP_RULES_H
#define GP_RULES_H

#include "gradprune.h"
#include "kernels/kernels.h"

typedef struct gp_rule_ops {
    const char *name;
    /* How many moments it keeps. */
    int (*moments)(const gp_rule *rule);
    /* What a clipped entry may be at most, so that every number of the step stays within float. */
    double (*largest_gradient)(const gp_rule *rule);
    /* Its numbers in an update that holds those common to all rules. */
    void (*fold)(const gp_rule *rule, gp_update *update);
    /* One step of n weights; a moment that it does not keep is NULL. */
    void (*update)(const gp_kernels *kernels, size_t n, float *w, const float *g, float *first,
                   float *second, const gp_update *update);
} gp_rule_ops;

extern const gp_rule_ops *const gp_rule_table[GP_RULES];

/* The row of a rule, or NULL if its kind is none. */
const gp_rule_ops *gp_rule_ops_of(const gp_rule *rule);

#endif
