/* Views of images on CPUs: crop, flip, colour jitter, grey, blur, normalise, channels last.

   The same operations with the same parameters as in crop.py and ops.py, which is what the tests
   compare with.
   One view after the other goes through all of them, so that it stays in the processor's cache.
   Loops run over the pixels of a plane and have no branches, so that compilers vectorise them.
*/

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EVERY_CPU
#endif

#define LANES 16

static const float RED = 0.2989f, GREEN = 0.587f, BLUE = 0.114f;

static inline float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* The weights of `taps` source pixels in output pixel `to`, of `length` pixels resized to `size`: a
   triangle around the output pixel's centre, as wide on each side as a source pixel or an output
   pixel, whichever is larger. Weight t goes to weights[t * stride]. Returns the first pixel. */
static long triangle(long to, long length, long size, long taps, float sum, float *weights,
                     long stride) {
    double step = (double)length / size, reach = step > 1 ? step : 1;
    double centre = (to + 0.5) * step, all = 0;
    long first = (long)floor(centre - reach + 0.5);
    first = first < 0 ? 0 : first;
    for (int pass = 0; pass < 2; pass++)
        for (long t = 0; t < taps; t++) {
            double weight = 1 - fabs(first + t + 0.5 - centre) / reach;
            weight = first + t < length && weight > 0 ? weight : 0;
            if (pass == 0)
                all += weight;
            else
                weights[t * stride] = (float)(sum * weight / all);
        }
    return first;
}

/* As many as a triangle covers at most. */
static long taps_of(long length, long size) {
    return 2 * (length > size ? (length + size - 1) / size : 1) + 1;
}

FOR_EVERY_CPU
static void add_scaled_bytes(float *restrict sum, const uint8_t *restrict x, long n, float weight) {
    for (long i = 0; i < n; i++)
        sum[i] += x[i] * weight;
}

FOR_EVERY_CPU
static void gather(const float *restrict row, const int32_t *restrict first,
                   const float *restrict weights, long taps, long size, float *restrict out) {
    for (long j = 0; j < size; j++)
        out[j] = row[first[j]] * weights[j];
    for (long t = 1; t < taps; t++)
        for (long j = 0; j < size; j++)
            out[j] += row[first[j] + t] * weights[t * size + j];
}

/* Box (top, left, height, width) of an image `[3 source_height source_width]`, resized to `out`
   `[3 size size]` in units of 1 (white), mirrored or not. Only pixels of the box count. */
static void crop(const uint8_t *image, long source_height, long source_width, const int64_t *box,
                 int mirrored, long size, float *scratch, float *out) {
    long height = box[2], width = box[3];
    long across = taps_of(width, size), down = taps_of(height, size);
    float *row = scratch, *columns = row + width + across, *rows = columns + across * size;
    int32_t *first = (int32_t *)(rows + down);
    for (long j = 0; j < size; j++) {
        long place = mirrored ? size - 1 - j : j;
        first[place] = (int32_t)triangle(j, width, size, across, 1, columns + place, size);
    }
    memset(row, 0, (width + across) * sizeof(float)); /* beyond the box: read, with no weight */
    for (long i = 0; i < size; i++) {
        long y = triangle(i, height, size, down, 1 / 255.0f, rows, 1);
        for (long channel = 0; channel < 3; channel++) {
            const uint8_t *source =
                image + (channel * source_height + box[0] + y) * source_width + box[1];
            memset(row, 0, width * sizeof(float));
            for (long t = 0; t < down; t++)
                if (rows[t] > 0)
                    add_scaled_bytes(row, source + t * source_width, width, rows[t]);
            gather(row, first, columns, across, size, out + (channel * size + i) * size);
        }
    }
}

FOR_EVERY_CPU
static void blend_constant(float *x, long values, float factor, float grey) {
    for (long i = 0; i < values; i++)
        x[i] = clamp(x[i] * factor + grey, 0, 1);
}

FOR_EVERY_CPU
static float mean_luma(const float *restrict x, long plane) {
    const float *red = x, *green = x + plane, *blue = x + 2 * plane;
    double sum = 0;
    long i = 0;
    /* Short partial sums: a float's precision does not suffice for a whole plane. */
    while (i + LANES <= plane) {
        float part[LANES] = {0};
        long stop = i + 64 * LANES < plane ? i + 64 * LANES : plane;
        for (; i + LANES <= stop; i += LANES)
            for (int k = 0; k < LANES; k++)
                part[k] += RED * red[i + k] + GREEN * green[i + k] + BLUE * blue[i + k];
        for (int k = 0; k < LANES; k++)
            sum += part[k];
    }
    for (; i < plane; i++)
        sum += RED * red[i] + GREEN * green[i] + BLUE * blue[i];
    return (float)(sum / plane);
}

FOR_EVERY_CPU
static void blend_luma(float *restrict red, float *restrict green, float *restrict blue, long plane,
                       float factor) {
    for (long i = 0; i < plane; i++) {
        float grey = (RED * red[i] + GREEN * green[i] + BLUE * blue[i]) * (1 - factor);
        red[i] = clamp(red[i] * factor + grey, 0, 1);
        green[i] = clamp(green[i] * factor + grey, 0, 1);
        blue[i] = clamp(blue[i] * factor + grey, 0, 1);
    }
}

/* The channel at hue `k`, in sixths of a turn from the middle of its valley. */
static inline float from_hue(float k, float high, float chroma) {
    k = fabsf(k - 6 * rintf(k * (1 / 6.0f)));
    return high + chroma * (clamp(k, 1, 2) - 2);
}

FOR_EVERY_CPU
static void turn_hue(float *restrict red, float *restrict green, float *restrict blue, long plane,
                     float turns) {
    for (long i = 0; i < plane; i++) {
        float r = red[i], g = green[i], b = blue[i];
        float high = r > g ? r : g, low = r < g ? r : g;
        high = high > b ? high : b;
        low = low < b ? low : b;
        float chroma = high - low;
        float of_green = b - r + 2 * chroma, of_blue = r - g + 4 * chroma;
        float scaled = high == r ? g - b : high == g ? of_green : of_blue;
        float hue = scaled / (chroma > 1e-12f ? chroma : 1e-12f) + 6 * turns;
        red[i] = from_hue(hue + 3, high, chroma);
        green[i] = from_hue(hue + 1, high, chroma);
        blue[i] = from_hue(hue - 1, high, chroma);
    }
}

FOR_EVERY_CPU
static void add_scaled(float *restrict sum, const float *restrict x, long n, float weight) {
    for (long i = 0; i < n; i++)
        sum[i] += x[i] * weight;
}

/* A kernel reaches less than `n` pixels beyond a line, but always one: also of a line of one. */
static long reflected(long i, long n) {
    i = i < 0 ? -i : i;
    i = i < n ? i : 2 * (n - 1) - i;
    return i < 0 ? 0 : i;
}

/* `scratch` holds a plane, and a row that is longer by the kernel. */
static void blur(float *x, long height, long width, float sigma, long kernel, float *scratch) {
    long half = kernel / 2, used = half;
    float weights[kernel];
    double sum = 0;
    for (long t = 0; t < kernel; t++)
        sum += weights[t] = expf(-0.5f * (t - half) * (t - half) / (sigma * sigma));
    for (long t = 0; t < kernel; t++)
        weights[t] /= (float)sum;
    /* Taps that a float's precision does not see are left out: denormal numbers are slow. */
    while (used > 0 && weights[half - used] < 1e-9f)
        used--;
    float *row = scratch + height * width;
    for (long i = 0; i < height; i++) {
        float *line = x + i * width;
        for (long j = -used; j < width + used; j++)
            row[j + used] = line[reflected(j, width)];
        memset(line, 0, width * sizeof(float));
        for (long t = 0; t <= 2 * used; t++)
            add_scaled(line, row + t, width, weights[half - used + t]);
    }
    memcpy(scratch, x, height * width * sizeof(float));
    memset(x, 0, height * width * sizeof(float));
    for (long i = 0; i < height; i++)
        for (long t = -used; t <= used; t++)
            add_scaled(x + i * width, scratch + reflected(i + t, height) * width, width,
                       weights[half + t]);
}

FOR_EVERY_CPU
static void normalise(const float *restrict x, float *restrict out, long plane, const float *mean,
                      const float *std) {
    const float *red = x, *green = x + plane, *blue = x + 2 * plane;
    for (long i = 0; i < plane; i++) {
        out[3 * i] = (red[i] - mean[0]) / std[0];
        out[3 * i + 1] = (green[i] - mean[1]) / std[1];
        out[3 * i + 2] = (blue[i] - mean[2]) / std[2];
    }
}

/* Floats of `scratch` for images of this size. */
long headwise_scratch(long source_height, long source_width, long size, long kernel) {
    long for_crop = source_width + taps_of(source_width, size) * (size + 1) +
                    taps_of(source_height, size) + size;
    long for_blur = size * size + size + kernel;
    return 3 * size * size + (for_crop > for_blur ? for_crop : for_blur);
}

/* `n` images `[n 3 source_height source_width]` to views `[n size size 3]`. Boxes and parameters
   have one row a view; `sigma` is 0 where a view is not blurred. */
void headwise_views(long n, long source_height, long source_width, long size,
                    const uint8_t *images, const int64_t *boxes, const uint8_t *flipped,
                    const uint8_t *jittered, const float *factors, const int64_t *order,
                    const uint8_t *grey, const float *sigma, long kernel, const float *mean,
                    const float *std, float *scratch, float *views) {
    long plane = size * size;
    float *x = scratch;
    scratch += 3 * plane;
    for (long i = 0; i < n; i++) {
        crop(images + 3 * source_height * source_width * i, source_height, source_width,
             boxes + 4 * i, flipped[i], size, scratch, x);
        for (int turn = 0; turn < (jittered[i] ? 4 : 0); turn++) {
            int64_t kind = order[4 * i + turn];
            float factor = factors[4 * i + kind];
            if (kind == 0)
                blend_constant(x, 3 * plane, factor, 0);
            else if (kind == 1)
                blend_constant(x, 3 * plane, factor, (1 - factor) * mean_luma(x, plane));
            else if (kind == 2)
                blend_luma(x, x + plane, x + 2 * plane, plane, factor);
            else
                turn_hue(x, x + plane, x + 2 * plane, plane, factor);
        }
        if (grey[i])
            blend_luma(x, x + plane, x + 2 * plane, plane, 0);
        for (int channel = 0; channel < (sigma[i] > 0 ? 3 : 0); channel++)
            blur(x + channel * plane, size, size, sigma[i], kernel, scratch);
        normalise(x, views + 3 * plane * i, plane, mean, std);
    }
}
