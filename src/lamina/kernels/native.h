/* What Python passes to the kernels: raw pointers and sizes, and torch's function that runs a loop
 * on its threads. */
#ifndef LAMINA_NATIVE_H
#define LAMINA_NATIVE_H

#include <stdint.h>

typedef void part_function(int64_t begin, int64_t end, void *context);
typedef int32_t parallel_function(int64_t begin, int64_t end, int64_t grain, part_function *part,
                                  void *context);

/* Batch norm and activation of rows of channels, after a 2x2 max pool if height is not 0.
   Without a pool, the rows are all pixels of all images; with one, they are the pixels after it. */
typedef struct {
    parallel_function *parallel;
    int64_t rows, channels;
    int64_t height, width; /* of an image before the pool; 0 without one */
    const void *input;     /* bf16 or float32, like pooled, output and their gradients */
    void *pooled;    /* with a pool: its output, which replaces input as soon as it is computed */
    uint8_t *places; /* with a pool: which pixel of a window is its largest, from 0 to 3 */
    void *output;
    const float *weight, *bias;        /* null: 1 and 0 */
    float *running_mean, *running_var; /* null: not kept */
    float *mean, *inverse_std; /* written by the forward function, read by the backward one */
    const void *output_gradient;
    void *input_gradient; /* null: not wanted */
    float *weight_gradient, *bias_gradient;
    float slope, eps, momentum;
    int32_t is_bf16, is_training;
} norm_act_call;

/* Each returns 0, or 1 if there is not enough memory for the sums. */
typedef int32_t norm_act_function(const norm_act_call *call);

/* Images of a batch, augmented and normalized. The flips, translations and holes are those of all
   stored images, or null. */
typedef struct {
    parallel_function *parallel;
    int64_t images, stored, height, width, channels;
    const uint8_t *pixels;          /* (stored, height, width, channels) */
    const int64_t *indices;         /* of the images of the batch */
    const uint8_t *flips;           /* 1: mirror left to right */
    const int64_t *translations_px; /* (stored, 2): down and right, less than height and width */
    const int64_t *holes_px;        /* (stored, 2): row and column of the center of a gray square */
    int64_t cutout_px;              /* side of the square */
    const float *scale, *shift;     /* of an image, in the order of the output */
    void *output;                   /* bf16 or float32 */
    int32_t is_bf16, is_channels_first;
} gather_call;

/* Returns 0, 1 if there is not enough memory, or 2 if an index or a translation is out of range. */
typedef int32_t gather_function(const gather_call *call);

#endif
