/* The firmware of the example's sensors: real code for a Cortex-M, small and to no great purpose.
 *
 * It answers on its bus in an endless loop, and filters its readings through a table of coefficients that make.py
 * computes. The sensors' bootloaders check the descriptor at 0x100; make.py puts size and CRC into it.
 */
#include <stdint.h>
#include "table.h"

extern uint32_t _stack_top;
void reset(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[64] = {
    &_stack_top, reset, reset, reset,
};

__attribute__((section(".descriptor"), used)) static const struct {
    char magic[8];
    uint32_t size, crc;
    char version[16], product[16], manufacturer[16];
} descriptor = {{'S', 'E', 'N', 'S', 'O', 'R', 'F', 'W'}, 0, 0xFFFFFFFFu, VERSION, PRODUCT, MANUFACTURER};

static int32_t filtered(const int16_t *samples, uint32_t at)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < TAPS; i++)
        sum += (int32_t)samples[(at + i) % TAPS] * coefficients[i];
    return (int32_t)(sum >> 15);
}

volatile int16_t adc[TAPS];
volatile int32_t result;

void reset(void)
{
    for (uint32_t at = 0;; at = (at + 1) % TAPS)
        result = filtered((const int16_t *)adc, at);
}
