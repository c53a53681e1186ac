/* startup.h - the console and the clock of startup.c */
#ifndef STARTUP_H
#define STARTUP_H

#include <stdint.h>

void write_text(const char *text);
void write_number(uint32_t number);

/* Ticks since start_clock, up to 2^24; UINT32_MAX for more. */
void start_clock(void);
uint32_t clock_ticks(void);

#endif
