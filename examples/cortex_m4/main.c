/* main.c - predicts the samples of samples.h and says what they are and what it took. */
#include "digits.h"
#include "samples.h"
#include "startup.h"

static uint32_t largest(const float *y)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < digits_OUTPUTS; i++)
        if (y[i] > y[best]) best = i;
    return best;
}

int main(void)
{
    float y[digits_OUTPUTS];
    uint32_t right = 0, ticks = 0;
    for (uint32_t n = 0; n < SAMPLES; n++) {
        start_clock();
        digits_predict(samples[n], y);
        ticks += clock_ticks();
        right += largest(y) == labels[n];
        write_number(labels[n]);
        write_text(" is predicted as ");
        write_number(largest(y));
        write_text("\n");
    }
    write_number(right);
    write_text(" of ");
    write_number(SAMPLES);
    write_text(" are right; ticks a sample: ");
    write_number(ticks / SAMPLES);
    write_text("\n");
    return 0;
}
