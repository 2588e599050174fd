/* SPDX-License-Identifier: MIT */
/*
 * Plays standard input, 16-bit stereo samples at 48 kHz:
 *	play DEVICE <FILE
 */
#include <fcntl.h>
#include <limits.h>
#include <sound/asound.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PERIOD = 4800 /* 100 ms */, PERIODS = 4 };

static void choose_mask(struct snd_pcm_hw_params *params, int n, int value)
{
	struct snd_mask *mask =
		&params->masks[n - SNDRV_PCM_HW_PARAM_FIRST_MASK];

	memset(mask, 0, sizeof(*mask));
	mask->bits[value / 32] = 1u << value % 32;
}

static void choose(struct snd_pcm_hw_params *params, int n, unsigned value)
{
	params->intervals[n - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL] =
		(struct snd_interval){.min = value, .max = value, .integer = 1};
}

static int set_up(int fd)
{
	struct snd_pcm_hw_params params = {.rmask = ~0u, .info = ~0u};

	memset(params.masks, 0xff, sizeof(params.masks));
	for (size_t n = 0;
	     n < sizeof(params.intervals) / sizeof(params.intervals[0]); n++)
		params.intervals[n].max = UINT_MAX;
	choose_mask(&params, SNDRV_PCM_HW_PARAM_ACCESS,
		    SNDRV_PCM_ACCESS_RW_INTERLEAVED);
	choose_mask(&params, SNDRV_PCM_HW_PARAM_FORMAT,
		    SNDRV_PCM_FORMAT_S16_LE);
	choose(&params, SNDRV_PCM_HW_PARAM_CHANNELS, 2);
	choose(&params, SNDRV_PCM_HW_PARAM_RATE, 48000);
	choose(&params, SNDRV_PCM_HW_PARAM_PERIOD_SIZE, PERIOD);
	choose(&params, SNDRV_PCM_HW_PARAM_PERIODS, PERIODS);
	if (ioctl(fd, SNDRV_PCM_IOCTL_HW_PARAMS, &params))
		return -1;
	return ioctl(fd, SNDRV_PCM_IOCTL_PREPARE);
}

int main(int argc, char **argv)
{
	static char buffer[PERIOD * 4];
	int fd = argc == 2 ? open(argv[1], O_WRONLY) : -1;
	ssize_t n;

	if (fd < 0 || set_up(fd)) {
		perror("play");
		return 1;
	}
	while ((n = read(0, buffer, sizeof(buffer))) > 0) {
		if (write(fd, buffer, (size_t)n) != n) {
			perror("play");
			return 1;
		}
	}
	return ioctl(fd, SNDRV_PCM_IOCTL_DRAIN) != 0;
}
