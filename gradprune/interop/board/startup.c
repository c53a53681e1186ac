/* startup.c - what runs before main on a Cortex-M4, and the console of whoever debugs it.
 *
 * There is no C library: memory is set up here, and text leaves by semihosting, a breakpoint that
 * the debugger (or qemu) understands. On a board of your own take the startup file of its vendor.
 */
#include "startup.h"

extern uint32_t data_in_flash[], data_begin[], data_end[], bss_begin[], bss_end[], stack_top[];

int main(void);

static int ask_host(int what, const void *argument)
{
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void write_text(const char *text) { ask_host(4, text); }

void write_number(uint32_t number)
{
    char digits[11], *next = digits + 10;
    *next = 0;
    do *--next = (char)('0' + number % 10);
    while (number /= 10);
    write_text(next);
}

#define SYSTICK ((volatile uint32_t *)0xe000e010) /* control, reload, value: 24 bits, downwards */

void start_clock(void)
{
    SYSTICK[1] = 0xffffff;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5; /* the processor's clock, no interrupt */
}

uint32_t clock_ticks(void)
{
    const uint32_t ticks = 0xffffff - SYSTICK[2];
    return SYSTICK[0] >> 16 & 1 ? UINT32_MAX : ticks; /* it has begun anew meanwhile */
}

static void reset(void)
{
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* the floating-point unit */
    __asm__ volatile("dsb\n\tisb");
    for (uint32_t *from = data_in_flash, *to = data_begin; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;) *to++ = 0;
    main();
    ask_host(0x18, (const void *)0x20026); /* the program has ended */
    for (;;) {}
}

static void fault(void)
{
    write_text("fault\n");
    ask_host(0x18, (const void *)0x20023);
    for (;;) {}
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};
