/* Batch norm and a piecewise linear activation, optionally after a 2x2 max pool, for AVX-512.

   Forward, with per-channel mean m and variance v of the rows (or the running ones):

       s = 1 / sqrt(v + eps)
       a = weight * s
       b = bias - m * a
       z = a * x + b
       y = z > 0 ? z : slope * z

   Backward, with g = dL/dy * (z > 0 ? 1 : slope), where the sums G of g and H of g * (x - m) are
   over all n rows:

       dL/dbias = G
       dL/dweight = s * H
       dL/dx = a * g - a * s * s * H / n * (x - m) - a * G / n
       dL/dx = a * g if m and v are running averages

   Shape alone divides rows into chunks, and sums of chunks are added in order and in double, so
   that the number of threads changes no bit. A chunk's deviations are from its own mean (Chan,
   Golub, LeVeque 1979), as exact as two passes over memory. Each channel keeps its lane of a vector.

   The functions take raw pointers and sizes and include no headers of Python or torch, so one
   library serves every version. Python calls them only where torch itself uses AVX-512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))),    \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#endif
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* A part of a loop, and torch's function that runs a loop on its threads. */
typedef void part_function(int64_t begin, int64_t end, void *context);
typedef int32_t parallel_function(int64_t begin, int64_t end, int64_t grain, part_function *part,
                                  void *context);

/* What Python passes; library.py has the same fields. Without a pool, the rows are all pixels of
   all images; with one, they are the pixels after it. */
typedef struct {
    parallel_function *parallel;
    int64_t rows, channels;
    int64_t height, width; /* of an image before the pool; 0 without one */
    const void *input;     /* bf16 or float32, like pooled, output and their gradients */
    void *pooled;    /* with a pool: its output, which replaces input as soon as it is computed */
    uint8_t *places; /* with a pool: which pixel of a window is its largest, from 0 to 3 */
    void *output;
    const float *weight, *bias;
    float *running_mean, *running_var;
    float *mean, *inverse_std; /* written by the forward function, read by the backward one */
    const void *output_gradient;
    void *input_gradient; /* null: not wanted */
    float *weight_gradient, *bias_gradient;
    float slope, eps, momentum;
    int32_t is_bf16, is_training;
} norm_act_call;

/* LANES float32 numbers; in memory they may be bf16. */
#define LANES 16
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t bit_lanes __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_lanes __attribute__((vector_size(2 * LANES)));
typedef uint8_t byte_lanes __attribute__((vector_size(LANES)));

/* Intrinsics where GCC 12 finds no single instruction. The compiler itself may not fuse products
 * with sums. */
typedef __mmask16 mask;
INLINE mask is_above(lanes a, lanes b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
}
INLINE mask is_at_most(lanes a, lanes b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
}
INLINE mask is_nan(lanes a) { return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q); }
INLINE mask is_equal(bit_lanes a, bit_lanes b) {
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}
INLINE lanes choose(mask is, lanes yes, lanes no) {
    return (lanes)_mm512_mask_mov_ps((__m512)no, is, (__m512)yes);
}
INLINE lanes fma_lanes(lanes a, lanes b, lanes c) {
    return (lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE bit_lanes widen(half_lanes halves) {
    return (bit_lanes)_mm512_cvtepu16_epi32((__m256i)halves);
}
INLINE half_lanes narrow(bit_lanes bits) {
    return (half_lanes)_mm512_cvtepi32_epi16((__m512i)bits);
}

INLINE void copy(void *to, const void *from, int64_t count, size_t size) {
    if (count == LANES)
        memcpy(to, from, LANES * size);
    else
        memcpy(to, from, (size_t)count * size);
}

INLINE lanes load(const void *base, int64_t index, int64_t count, int is_bf16) {
    if (is_bf16) {
        half_lanes halves = {0};
        copy(&halves, (const uint16_t *)base + index, count, sizeof(uint16_t));
        return (lanes)(widen(halves) << 16);
    }
    lanes values = {0};
    copy(&values, (const float *)base + index, count, sizeof(float));
    return values;
}

/* Rounds to the nearest bf16, to even if two are equally near, like torch. NaN stays NaN unless
   only its last 16 bits are set, which no processor's arithmetic does. */
INLINE void store(void *base, int64_t index, int64_t count, int is_bf16, lanes values) {
    if (is_bf16) {
        bit_lanes bits = (bit_lanes)values;
        half_lanes halves = narrow((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        copy((uint16_t *)base + index, &halves, count, sizeof(uint16_t));
    } else
        copy((float *)base + index, &values, count, sizeof(float));
}

enum { CHUNK_ELEMENTS = 16384, GRAIN_CHUNKS = 2 };

typedef struct {
    const norm_act_call *call;
    const void *rows; /* what is normalized: the output of the pool, or the input */
    int64_t chunk_rows, chunks;
    float *sums;           /* (chunks, 2, channels) */
    float *scale, *shift;  /* a and b */
    float *slide, *offset; /* the factors of x and 1 in dL/dx */
} work;

/* What the compiler knows of a call in each version of a loop. */
typedef struct {
    int is_bf16, is_relu;
} form;

INLINE lanes bend(lanes z, lanes value, float slope, form of) {
    /* ReLU is 0 for -infinity and NaN for NaN, as in torch. */
    return of.is_relu ? choose(is_at_most(z, (lanes){0}), (lanes){0}, value)
                      : choose(is_above(z, (lanes){0}), value, value * slope);
}

/* Calls ``loop(..., channel, count, width)`` for blocks of ``wide`` vectors, of one vector, and for
 * the rest. */
#define FOR_BLOCKS(channels, wide, loop, ...)                                                      \
    do {                                                                                           \
        int64_t channel = 0;                                                                       \
        for (; channel + (wide) * LANES <= (channels); channel += (wide) * LANES)                  \
            loop(__VA_ARGS__, channel, LANES, wide);                                               \
        for (; channel + LANES <= (channels); channel += LANES)                                    \
            loop(__VA_ARGS__, channel, LANES, 1);                                                  \
        if (channel < (channels))                                                                  \
            loop(__VA_ARGS__, channel, (channels) - channel, 1);                                   \
    } while (0)

/* The first of the four pixels of a window in the input, by the row of its result. */
INLINE int64_t find_window(const norm_act_call *call, int64_t row) {
    int64_t wide = call->width / 2, high = call->height / 2, line = row / wide;
    return ((line / high * call->height + line % high * 2) * call->width + row % wide * 2) *
           call->channels;
}

INLINE int64_t next_window(const norm_act_call *call, int64_t row, int64_t corner) {
    return (row + 1) % (call->width / 2) ? corner + 2 * call->channels : find_window(call, row + 1);
}

INLINE void pool_block(const norm_act_call *call, form of, int64_t row, int64_t corner,
                       int64_t channel, int64_t count, int width) {
    int64_t line = call->width * call->channels, index = row * call->channels + channel;
    const int64_t steps[4] = {0, call->channels, line, line + call->channels};
    (void)width;
    lanes best = load(call->input, corner + channel, count, of.is_bf16);
    bit_lanes place = {0};
    for (uint32_t other = 1; other < 4; other++) {
        lanes value = load(call->input, corner + steps[other] + channel, count, of.is_bf16);
        mask is_larger = is_above(value, best) | is_nan(value); /* NaN wins, as in torch */
        best = choose(is_larger, value, best);
        place = (bit_lanes)choose(is_larger, (lanes)((bit_lanes){0} + other), (lanes)place);
    }
    store(call->pooled, index, count, of.is_bf16, best);
    byte_lanes bytes = __builtin_convertvector(place, byte_lanes);
    copy(call->places + index, &bytes, count, 1);
}

/* Sums over a chunk, then the squared deviations from the chunk's mean. */
INLINE void sum_block(const work *work, form of, int64_t begin, int64_t end, float *sums,
                      int64_t channel, int64_t count, int width) {
    const void *rows = work->rows;
    int64_t channels = work->call->channels;
    lanes total[2] = {{0}}, squares[2] = {{0}}, mean[2];
    for (int64_t row = begin; row < end; row++)
        for (int part = 0; part < width; part++)
            total[part] += load(rows, row * channels + channel + part * LANES, count, of.is_bf16);
    for (int part = 0; part < width; part++)
        mean[part] = total[part] / (float)(end - begin);
    for (int64_t row = begin; row < end; row++)
        for (int part = 0; part < width; part++) {
            lanes x =
                load(rows, row * channels + channel + part * LANES, count, of.is_bf16) - mean[part];
            squares[part] = fma_lanes(x, x, squares[part]);
        }
    for (int part = 0; part < width; part++) {
        store(sums, channel + part * LANES, count, 0, total[part]);
        store(sums, channels + channel + part * LANES, count, 0, squares[part]);
    }
}

INLINE void sum_chunk(const work *work, form of, int64_t begin, int64_t end, float *sums) {
    const norm_act_call *call = work->call;
    if (call->height) {
        int64_t corner = find_window(call, begin);
        for (int64_t row = begin; row < end; corner = next_window(call, row, corner), row++)
            FOR_BLOCKS(call->channels, 1, pool_block, call, of, row, corner);
    }
    if (call->is_training)
        FOR_BLOCKS(call->channels, 2, sum_block, work, of, begin, end, sums);
}

INLINE void apply_block(const work *work, form of, int64_t begin, int64_t end, int64_t channel,
                        int64_t count, int width) {
    const void *rows = work->rows;
    void *output = work->call->output;
    int64_t channels = work->call->channels;
    float slope = work->call->slope;
    lanes scale[2], shift[2];
    for (int part = 0; part < width; part++) {
        scale[part] = load(work->scale, channel + part * LANES, count, 0);
        shift[part] = load(work->shift, channel + part * LANES, count, 0);
    }
    for (int64_t row = begin; row < end; row++)
        for (int part = 0; part < width; part++) {
            int64_t index = row * channels + channel + part * LANES;
            lanes z = fma_lanes(load(rows, index, count, of.is_bf16), scale[part], shift[part]);
            store(output, index, count, of.is_bf16, bend(z, z, slope, of));
        }
}

INLINE void apply_chunk(const work *work, form of, int64_t begin, int64_t end, float *sums) {
    (void)sums;
    FOR_BLOCKS(work->call->channels, 2, apply_block, work, of, begin, end);
}

INLINE void sum_gradient_block(const work *work, form of, int64_t begin, int64_t end, float *sums,
                               int64_t channel, int64_t count, int width) {
    const norm_act_call *call = work->call;
    const void *rows = work->rows, *gradient = call->output_gradient;
    int64_t channels = call->channels;
    float slope = call->slope;
    lanes total[2] = {{0}}, products[2] = {{0}}, mean[2], scale[2], shift[2];
    for (int part = 0; part < width; part++) {
        mean[part] = load(call->mean, channel + part * LANES, count, 0);
        scale[part] = load(work->scale, channel + part * LANES, count, 0);
        shift[part] = load(work->shift, channel + part * LANES, count, 0);
    }
    for (int64_t row = begin; row < end; row++)
        for (int part = 0; part < width; part++) {
            int64_t index = row * channels + channel + part * LANES;
            lanes x = load(rows, index, count, of.is_bf16);
            lanes g = load(gradient, index, count, of.is_bf16);
            g = bend(fma_lanes(x, scale[part], shift[part]), g, slope, of);
            total[part] += g;
            products[part] = fma_lanes(g, x - mean[part], products[part]);
        }
    for (int part = 0; part < width; part++) {
        store(sums, channel + part * LANES, count, 0, total[part]);
        store(sums, channels + channel + part * LANES, count, 0, products[part]);
    }
}

INLINE void sum_gradient_chunk(const work *work, form of, int64_t begin, int64_t end, float *sums) {
    FOR_BLOCKS(work->call->channels, 2, sum_gradient_block, work, of, begin, end, sums);
}

INLINE void apply_gradient_block(const work *work, form of, int64_t begin, int64_t end,
                                 int64_t channel, int64_t count, int width) {
    const norm_act_call *call = work->call;
    int64_t channels = call->channels, line = call->width * channels;
    const int64_t steps[4] = {0, channels, line, line + channels};
    const void *rows = work->rows, *gradient = call->output_gradient;
    void *input_gradient = call->input_gradient;
    const uint8_t *places = call->places;
    float slope = call->slope;
    int is_pooled = call->height != 0;
    lanes scale[2], shift[2], slide[2], offset[2];
    for (int part = 0; part < width; part++) {
        scale[part] = load(work->scale, channel + part * LANES, count, 0);
        shift[part] = load(work->shift, channel + part * LANES, count, 0);
        slide[part] = load(work->slide, channel + part * LANES, count, 0);
        offset[part] = load(work->offset, channel + part * LANES, count, 0);
    }
    int64_t corner = call->height ? find_window(call, begin) : 0;
    for (int64_t row = begin; row < end; row++) {
        for (int part = 0; part < width; part++) {
            int64_t index = row * channels + channel + part * LANES;
            lanes x = load(rows, index, count, of.is_bf16);
            lanes g = load(gradient, index, count, of.is_bf16);
            g = bend(fma_lanes(x, scale[part], shift[part]), g, slope, of);
            g = fma_lanes(g, scale[part], fma_lanes(x, slide[part], offset[part]));
            if (!is_pooled) {
                store(input_gradient, index, count, of.is_bf16, g);
                continue;
            }
            byte_lanes bytes = {0};
            copy(&bytes, places + index, count, 1);
            bit_lanes place = __builtin_convertvector(bytes, bit_lanes);
            for (uint32_t pixel = 0; pixel < 4; pixel++)
                store(input_gradient, corner + steps[pixel] + channel + part * LANES, count,
                      of.is_bf16, choose(is_equal(place, (bit_lanes){0} + pixel), g, (lanes){0}));
        }
        if (is_pooled)
            corner = next_window(call, row, corner);
    }
}

INLINE void apply_gradient_chunk(const work *work, form of, int64_t begin, int64_t end,
                                 float *sums) {
    (void)sums;
    FOR_BLOCKS(work->call->channels, 2, apply_gradient_block, work, of, begin, end);
}

/* Chunks for one of torch's threads; the branches let the compiler know the form of the call. */
#define FOR_CHUNKS(loop)                                                                           \
    static void loop##s(int64_t begin, int64_t end, void *context) {                               \
        const work *work = context;                                                                \
        const norm_act_call *call = work->call;                                                    \
        for (int64_t chunk = begin; chunk < end; chunk++) {                                        \
            int64_t first = chunk * work->chunk_rows, last = first + work->chunk_rows;             \
            float *sums = work->sums + chunk * 2 * call->channels;                                 \
            last = last < call->rows ? last : call->rows;                                          \
            if (call->is_bf16 && call->slope == 0)                                                 \
                loop(work, (form){1, 1}, first, last, sums);                                       \
            else if (call->is_bf16)                                                                \
                loop(work, (form){1, 0}, first, last, sums);                                       \
            else if (call->slope == 0)                                                             \
                loop(work, (form){0, 1}, first, last, sums);                                       \
            else                                                                                   \
                loop(work, (form){0, 0}, first, last, sums);                                       \
        }                                                                                          \
    }
FOR_CHUNKS(sum_chunk)
FOR_CHUNKS(apply_chunk)
FOR_CHUNKS(sum_gradient_chunk)
FOR_CHUNKS(apply_gradient_chunk)

static int32_t begin_work(work *work, const norm_act_call *call) {
    int64_t channels = call->channels, rows = CHUNK_ELEMENTS / channels;
    work->call = call;
    work->rows = call->height ? call->pooled : call->input;
    work->chunk_rows = rows < 1 ? 1 : rows;
    work->chunks = (call->rows + work->chunk_rows - 1) / work->chunk_rows;
    work->sums = malloc((size_t)(2 * work->chunks + 4) * (size_t)channels * sizeof(float));
    if (!work->sums)
        return 1;
    work->scale = work->sums + 2 * work->chunks * channels;
    work->shift = work->scale + channels;
    work->slide = work->shift + channels;
    work->offset = work->slide + channels;
    return 0;
}

static int32_t run(work *work, part_function *part) {
    return work->call->parallel(0, work->chunks, GRAIN_CHUNKS, part, work);
}

static void set_scale(const work *work) {
    const norm_act_call *call = work->call;
    for (int64_t channel = 0; channel < call->channels; channel++) {
        double scale = (double)call->weight[channel] * call->inverse_std[channel];
        work->scale[channel] = (float)scale;
        work->shift[channel] = (float)(call->bias[channel] - call->mean[channel] * scale);
    }
}

static void set_statistics(const work *work) {
    const norm_act_call *call = work->call;
    int64_t channels = call->channels;
    double count = (double)call->rows;
    for (int64_t channel = 0; channel < channels; channel++) {
        double total = 0, squares = 0;
        for (int64_t chunk = 0; chunk < work->chunks; chunk++)
            total += work->sums[chunk * 2 * channels + channel];
        double mean = total / count;
        for (int64_t chunk = 0; chunk < work->chunks; chunk++) {
            int64_t left = call->rows - chunk * work->chunk_rows;
            double rows = (double)(left < work->chunk_rows ? left : work->chunk_rows);
            const float *sums = work->sums + chunk * 2 * channels + channel;
            double distance = sums[0] / rows - mean;
            squares += sums[channels] + rows * distance * distance;
        }
        double weight = call->momentum, variance = squares / (count - 1);
        call->mean[channel] = (float)mean;
        call->inverse_std[channel] = (float)(1 / sqrt(squares / count + call->eps));
        call->running_mean[channel] =
            (float)(weight * mean + (1 - weight) * call->running_mean[channel]);
        call->running_var[channel] =
            (float)(weight * variance + (1 - weight) * call->running_var[channel]);
    }
}

/* Each function returns 0, or 1 if there is not enough memory for the sums. */
EXPORTED int32_t lamina_norm_act_forward(const norm_act_call *call) {
    work work;
    if (begin_work(&work, call))
        return 1;
    int32_t failure = 0;
    if (call->is_training || call->height)
        failure = run(&work, sum_chunks);
    if (call->is_training)
        set_statistics(&work);
    else
        for (int64_t channel = 0; channel < call->channels; channel++) {
            call->mean[channel] = call->running_mean[channel];
            call->inverse_std[channel] =
                (float)(1 / sqrt((double)call->running_var[channel] + call->eps));
        }
    set_scale(&work);
    failure |= run(&work, apply_chunks);
    free(work.sums);
    return failure;
}

EXPORTED int32_t lamina_norm_act_backward(const norm_act_call *call) {
    work work;
    if (begin_work(&work, call))
        return 1;
    set_scale(&work);
    int32_t failure = run(&work, sum_gradient_chunks);
    int64_t channels = call->channels;
    for (int64_t channel = 0; channel < channels; channel++) {
        double total = 0, products = 0, inverse_std = call->inverse_std[channel];
        double share = call->is_training ? work.scale[channel] / (double)call->rows : 0;
        for (int64_t chunk = 0; chunk < work.chunks; chunk++) {
            total += work.sums[chunk * 2 * channels + channel];
            products += work.sums[(chunk * 2 + 1) * channels + channel];
        }
        call->weight_gradient[channel] = (float)(products * inverse_std);
        call->bias_gradient[channel] = (float)total;
        work.slide[channel] = (float)(-share * inverse_std * inverse_std * products);
        work.offset[channel] =
            (float)(share * (call->mean[channel] * inverse_std * inverse_std * products - total));
    }
    if (call->input_gradient)
        failure |= run(&work, apply_gradient_chunks);
    free(work.sums);
    return failure;
}
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
