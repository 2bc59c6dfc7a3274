/* An AVR board on simavr: a bootloader in flash, where its reset starts it, its UART 0 on a pseudo-terminal, its reset and its supply
 * on a control pipe.
 *
 *   avr_host MCU HERTZ LOADER.bin ADDRESS
 *
 * It prints one line, the pseudo-terminal's name, and then obeys lines on its standard input, answering each with a line:
 *
 *   reset        an external reset, as the pulse of DTR through a capacitor makes it
 *   power        the supply goes and comes: registers and RAM are new, flash and EEPROM stay
 *   cut N        the same as soon as N more bytes have come from the host; 0 forgets it
 *   flash FILE   the flash's content goes into FILE
 *   eeprom FILE  the EEPROM's content goes into FILE
 *   slow N       while nothing is to be done, N times as long passes outside as inside; 1 unless said
 *
 * It ends when its standard input does, so that nothing is left behind by whoever started it. Opening the
 * pseudo-terminal resets the part too, as opening a serial port does under Linux, which asserts DTR.
 *
 * Behaviour that simavr 1.6 does not have is added here: MCUSR shows the kind of a reset; timer 1 raises TOV1 in normal mode, which
 * Optiboot waits for between the flashes of its LED; and writing a page only clears bits, so that a loader which doesn't
 * erase it before is seen. While bytes are on their way the part runs as fast as it can, else
 * no faster than its clock: a loader's time-out is not shorter than on hardware.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_eeprom.h>
#include <simavr/avr_flash.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>

enum { MCUSR = 0x54, TIFR1 = 0x36, TOV1 = 1, PORF = 1, EXTRF = 2, SPMCSR = 0x57, PGWRT = 4 }; /* of the ATmega328P, 2560 and their kin */
enum { BATCH_CYCLES = 4000, BUFFER = 4096 };

static avr_t *avr;
static avr_irq_t *to_part;
static int master;
static uint8_t waiting[BUFFER];
static int first, count;
static int may_send = 1;
static long cut_after;
static int cut_now;
static int busy;
static int slow = 1;

static void on_output(struct avr_irq_t *irq, uint32_t value, void *unused)
{
	uint8_t byte = value;
	busy = 1;
	/* With nobody there to read, or a full buffer, the byte is lost, as on a wire. */
	if (write(master, &byte, 1) < 0 && errno != EAGAIN && errno != EIO)
		perror("pseudo-terminal");
}

static void on_xon(struct avr_irq_t *irq, uint32_t value, void *unused) { may_send = 1; }
static void on_xoff(struct avr_irq_t *irq, uint32_t value, void *unused) { may_send = 0; }

static void restart(uint8_t cause)
{
	avr_reset(avr);
	avr->data[MCUSR] = cause;
	may_send = 1;
}

static void power_cycle(void)
{
	cut_after = 0;
	cut_now = 0;
	first = count = 0;
	tcflush(master, TCIOFLUSH);
	memset(avr->data, 0, avr->ramend + 1);
	restart(PORF);
}

static int dump(const char *name, const uint8_t *data, size_t size)
{
	FILE *file = fopen(name, "wb");
	int good = file && fwrite(data, 1, size, file) == size;
	return file && fclose(file) == 0 && good;
}

static void obey(char *line)
{
	const char *answer = "ok";
	if (!strcmp(line, "reset")) {
		first = count = 0;
		restart(EXTRF);
	} else if (!strcmp(line, "power"))
		power_cycle();
	else if (!strncmp(line, "cut ", 4))
		cut_after = atol(line + 4);
	else if (!strncmp(line, "slow ", 5))
		slow = atoi(line + 5);
	else if (!strncmp(line, "flash ", 6)) {
		if (!dump(line + 6, avr->flash, avr->flashend + 1))
			answer = "failed";
	} else if (!strncmp(line, "eeprom ", 7)) {
		avr_eeprom_desc_t all = {.ee = NULL, .offset = 0, .size = avr->e2end + 1};
		avr_ioctl(avr, AVR_IOCTL_EEPROM_GET, &all);
		if (!dump(line + 7, all.ee, all.size))
			answer = "failed";
	} else
		answer = "unknown";
	printf("%s\n", answer);
	fflush(stdout);
}

/* Takes what is there of the control pipe; 0 at its end. */
static int control(void)
{
	static char line[512];
	static size_t length;
	char text[256];
	ssize_t size = read(0, text, sizeof text);
	if (size <= 0)
		return 0;
	for (ssize_t i = 0; i < size; i++) {
		if (text[i] == '\n') {
			line[length] = 0;
			length = 0;
			obey(line);
		} else if (length < sizeof line - 1)
			line[length++] = text[i];
	}
	return 1;
}

/* Takes what the host sent, and notices when it opens the pseudo-terminal. */
static void from_host(short events)
{
	static int open_before;
	int is_open = !(events & POLLHUP);
	if (is_open && !open_before)
		restart(EXTRF);
	open_before = is_open;
	if (events & POLLIN && first == count) {
		ssize_t size = read(master, waiting, sizeof waiting);
		first = 0;
		count = size > 0 ? size : 0;
	}
}

static void to_uart(void)
{
	while (may_send && first < count) {
		busy = 1;
		avr_raise_irq(to_part, waiting[first++]);
		if (cut_after && --cut_after == 0) {
			cut_now = 1;
			return;
		}
	}
}

static int (*spm)(struct avr_io_t *io, uint32_t ctl, void *param);

static int spm_that_only_clears(struct avr_io_t *io, uint32_t ctl, void *param)
{
	if (ctl != AVR_IOCTL_FLASH_SPM || !(avr->data[SPMCSR] & PGWRT))
		return spm(io, ctl, param);
	static uint8_t before[0x40000];
	memcpy(before, avr->flash, avr->flashend + 1);
	int result = spm(io, ctl, param);
	for (avr_flashaddr_t i = 0; i <= avr->flashend; i++)
		avr->flash[i] &= before[i];
	return result;
}

static void connect_flash(void)
{
	for (avr_io_t *io = avr->io_port; io; io = io->next)
		if (!strcmp(io->kind, "flash")) {
			spm = io->ioctl;
			io->ioctl = spm_that_only_clears;
		}
}

static int load(const char *name, avr_flashaddr_t start)
{
	FILE *file = fopen(name, "rb");
	size_t size = 0;
	memset(avr->flash, 0xFF, avr->flashend + 1);
	if (file && start <= avr->flashend) {
		size = fread(avr->flash + start, 1, avr->flashend + 1 - start, file);
		fclose(file);
	}
	avr->reset_pc = start;
	avr->codeend = avr->flashend;
	return size > 0;
}

static void connect_uart(void)
{
	static const char *names[] = {"8>host.in", "8>host.out", ">host.xon", ">host.xoff"};
	uint32_t flags = 0; /* without it each poll of an empty UART sleeps: a hundred times slower */
	avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
	to_part = avr_alloc_irq(&avr->irq_pool, 0, 4, names);
	avr_connect_irq(to_part, avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT));
	avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), on_output, NULL);
	avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), on_xon, NULL);
	avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), on_xoff, NULL);
}

static void open_pty(void)
{
	struct termios raw;
	master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	if (master < 0 || grantpt(master) || unlockpt(master)) {
		perror("pseudo-terminal");
		exit(1);
	}
	tcgetattr(master, &raw);
	cfmakeraw(&raw);
	tcsetattr(master, TCSANOW, &raw);
	/* Only after a first opening and closing does the master tell whether the other end is open. */
	close(open(ptsname(master), O_RDWR | O_NOCTTY));
	printf("%s\n", ptsname(master));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc != 5 || !(avr = avr_make_mcu_by_name(argv[1]))) {
		fprintf(stderr, "usage: avr_host MCU HERTZ LOADER.bin ADDRESS\n");
		return 2;
	}
	avr_init(avr);
	avr->frequency = atol(argv[2]);
	avr->log = LOG_ERROR;
	if (!load(argv[3], strtoul(argv[4], NULL, 0))) {
		fprintf(stderr, "%s does not go into flash at %s\n", argv[3], argv[4]);
		return 1;
	}
	connect_uart();
	connect_flash();
	open_pty();
	restart(PORF);

	avr_cycle_count_t next_overflow = 0;
	for (;;) {
		struct pollfd both[2] = {{.fd = 0, .events = POLLIN}, {.fd = master, .events = POLLIN}};
		struct timespec idle = {0, busy ? 0 : (long)(1e9 * slow * BATCH_CYCLES / avr->frequency)};
		busy = 0;
		/* With nobody at the other end the poll would return at once. */
		if (ppoll(both, first == count ? 2 : 1, &idle, NULL) > 0 && both[1].revents & POLLHUP)
			nanosleep(&idle, NULL);
		if (both[0].revents && !control())
			return 0;
		if (first == count)
			from_host(both[1].revents);
		to_uart();
		avr_cycle_count_t until = avr->cycle + BATCH_CYCLES;
		while (avr->cycle < until && !cut_now) {
			int state = avr_run(avr);
			if (state == cpu_Done || state == cpu_Crashed) {
				restart(EXTRF);
				break;
			}
		}
		if (cut_now)
			power_cycle();
		if (avr->cycle >= next_overflow) {
			avr->data[TIFR1] |= TOV1;
			next_overflow = avr->cycle + avr->frequency / 16;
		}
	}
}
