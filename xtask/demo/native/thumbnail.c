/* A native extension as one finds it in the wild: one path forgets to free. Built by the demo with
 * frame pointers, so that residue can name every function between malloc and the interpreter. */
#include <stdlib.h>
#include <string.h>

#define BYTES_PER_PIXEL 4

static size_t held_bytes;
static unsigned char *last;

/* Kept out of line: each is to be a frame of its own. */
#define FRAME __attribute__((noinline, noclone))

static FRAME unsigned char *allocate_pixels(size_t width, size_t height)
{
    unsigned char *pixels = malloc(width * height * BYTES_PER_PIXEL);
    if (pixels)
        memset(pixels, 0x7f, width * height * BYTES_PER_PIXEL);
    return pixels;
}

static FRAME unsigned char *scale_image(size_t width, size_t height)
{
    unsigned char *pixels = allocate_pixels(width, height);
    last = pixels;
    return pixels;
}

/* The native leak: the pixels of the previous call are forgotten. Returns the bytes lost so far. */
FRAME size_t leak_thumbnail(size_t width, size_t height)
{
    if (scale_image(width, height))
        held_bytes += width * height * BYTES_PER_PIXEL;
    return held_bytes;
}

/* Its clean twin: the same work, and a free. Returns a sample, so that the work has a use. */
FRAME size_t draw_thumbnail(size_t width, size_t height)
{
    unsigned char *pixels = scale_image(width, height);
    size_t sample = pixels ? pixels[0] : 0;
    last = NULL;
    free(pixels);
    return sample;
}
