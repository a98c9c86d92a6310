// All layers of a decoder at once (decoder.cuh), with weights in Q4_K.
#include "decoder.cuh"

#define WIDTHS(name, T)                                                                                               \
    DECODER(decoder_q4_k_##name##_64, packed::Q4_K, T, 64)                                                            \
    DECODER(decoder_q4_k_##name##_96, packed::Q4_K, T, 96)                                                            \
    DECODER(decoder_q4_k_##name##_128, packed::Q4_K, T, 128)
WIDTHS(f16, __half)
WIDTHS(bf16, __nv_bfloat16)
