/* Calls the functions with buffers of exactly the documented sizes, for the sanitizers of a
 * compiler. */
#include <stdio.h>

#include "norm_act.c"

static int32_t serial(int64_t begin, int64_t end, int64_t grain, part_function *part,
                      void *context) {
    (void)grain;
    for (int64_t place = begin; place < end; place++)
        part(place, place + 1, context);
    return 0;
}

static void *fill(int64_t count, int64_t size) {
    unsigned char *bytes = malloc((size_t)(count * size));
    for (int64_t i = 0; i < count * size; i++)
        bytes[i] = (unsigned char)(i % 64);
    return bytes;
}

static int call_both(int64_t images, int64_t channels, int64_t height, int64_t width, int pools,
                     int is_bf16) {
    int64_t size = is_bf16 ? 2 : 4, before = images * height * width * channels;
    int64_t rows = pools ? images * (height / 2) * (width / 2) : images * height * width;
    norm_act_call call = {.parallel = serial, .rows = rows, .channels = channels};
    call.height = pools ? height : 0, call.width = pools ? width : 0;
    call.slope = is_bf16 ? 0 : 0.5F, call.eps = 1e-5F, call.momentum = 0.1F, call.is_bf16 = is_bf16;
    void *buffers[] = {
        fill(before, size),          fill(rows * channels, size), fill(rows * channels, 1),
        fill(rows * channels, size), fill(channels, 4),           fill(channels, 4),
        fill(channels, 4),           fill(channels, 4),           fill(channels, 4),
        fill(channels, 4),           fill(rows * channels, size), fill(before, size),
        fill(channels, 4),           fill(channels, 4),
    };
    call.input = buffers[0], call.pooled = buffers[1], call.places = buffers[2],
    call.output = buffers[3];
    call.weight = buffers[4], call.bias = buffers[5], call.running_mean = buffers[6],
    call.running_var = buffers[7];
    call.mean = buffers[8], call.inverse_std = buffers[9], call.output_gradient = buffers[10];
    call.input_gradient = buffers[11], call.weight_gradient = buffers[12],
    call.bias_gradient = buffers[13];
    int failed = 0;
    for (call.is_training = 0; call.is_training < 2; call.is_training++)
        failed |= lamina_norm_act_forward(&call) | lamina_norm_act_backward(&call);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        free(buffers[i]);
    return failed;
}

int main(void) {
    const int64_t channels[] = {1, 3, 4, 8, 16, 17, 33, 100, 20000};
    int calls = 0;
    for (int i = 0; i < 9; i++)
        for (int form = 0; form < 4; form++, calls++)
            if (call_both(2, channels[i], 5 + i, 7, form & 1, form >> 1))
                return 1;
    printf("%d calls\n", calls);
    return 0;
}
