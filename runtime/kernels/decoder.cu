// All layers of a decoder at once (decoder.cuh), with weights in 16 bits.
#include "decoder.cuh"

#define WIDTHS(name, T)                                                                                               \
    DECODER(decoder_##name##_64, decoder::Dense<T>, T, 64)                                                            \
    DECODER(decoder_##name##_96, decoder::Dense<T>, T, 96)                                                            \
    DECODER(decoder_##name##_128, decoder::Dense<T>, T, 128)
WIDTHS(f16, __half)
WIDTHS(bf16, __nv_bfloat16)
