// All layers of a decoder at once (decoder.cuh), with weights in Q8_0.
#include "decoder.cuh"

#define WIDTHS(name, T)                                                                                               \
    DECODER(decoder_q8_0_##name##_64, packed::Q8_0, T, 64)                                                            \
    DECODER(decoder_q8_0_##name##_96, packed::Q8_0, T, 96)                                                            \
    DECODER(decoder_q8_0_##name##_128, packed::Q8_0, T, 128)
WIDTHS(f16, __half)
WIDTHS(bf16, __nv_bfloat16)
