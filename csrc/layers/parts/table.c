/* table.c - the layers, as the build has found them (GP_LAYER_LIST), and what is asked of any. */
#include "layers/layers.h"

#define X(name) extern const gp_layer_ops gp_layer_##name;
GP_LAYER_LIST
#undef X

static const gp_layer_ops *const table[] = {
#define X(name) &gp_layer_##name,
    GP_LAYER_LIST
#undef X
};

const gp_layer_ops *gp_layer_at(size_t i)
{
    return i < sizeof table / sizeof table[0] ? table[i] : NULL;
}

const gp_layer_ops *gp_layer_named(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i]->name, name) == 0) return table[i];
    return NULL;
}

const char *gp_layer_name(const gp_layer_ops *type) { return type->name; }

const char *gp_layer_word(const gp_layer_ops *type, size_t i, double *number)
{
    for (const gp_word *word = type->words; word && word->word; word++) {
        if (i-- > 0) continue;
        *number = (double)word->number;
        return word->word;
    }
    return NULL;
}

size_t gp_layer_settings_count(const gp_layer_ops *type) { return type->n_settings; }

gp_status gp_layer_set(gp_layer_spec *spec, const double *numbers)
{
    const gp_layer_ops *type = spec->type;
    return !type->set || type->set(spec, numbers) ? GP_OK : GP_BAD_ARGUMENT;
}

int gp_buffers_are_valid(const gp_layer_spec *spec, const gp_arena *arena)
{
    const size_t floats = spec->type->buffers ? spec->type->buffers(spec) : 0;
    return floats == 0 || (spec->buffers >= arena->n && floats <= arena->n_buffers &&
                           spec->buffers - arena->n <= arena->n_buffers - floats);
}
