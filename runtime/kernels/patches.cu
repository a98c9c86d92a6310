// The pixels of each patch of a picture as a row. One block a patch.
#include "element.cuh"

// pixels [tiles, channels, side, side] to [tiles · (side ÷ patch)², length]: channels · patch² numbers, then zeros.
template <typename T>
__device__ void patches(const float *pixels, T *out, uint32_t channels, uint32_t side, uint32_t patch,
                        uint32_t length) {
    uint32_t grid = side / patch, square = patch * patch;
    uint32_t tile = blockIdx.x / (grid * grid), place = blockIdx.x % (grid * grid);
    pixels += ((size_t)tile * channels * side + place / grid * patch) * side + place % grid * patch;
    out += (size_t)blockIdx.x * length;
    for (uint32_t i = threadIdx.x; i < length; i += blockDim.x) {
        uint32_t channel = i / square, row = i % square / patch, column = i % patch;
        out[i] = narrow<T>(channel < channels ? pixels[((size_t)channel * side + row) * side + column] : 0.f);
    }
}

#define PATCHES(name, T)                                                                                              \
    extern "C" __global__ void patches_##name(const float *pixels, T *out, uint32_t channels, uint32_t side,          \
                                              uint32_t patch, uint32_t length) {                                      \
        patches(pixels, out, channels, side, patch, length);                                                          \
    }
PATCHES(f32, float)
PATCHES(f16, __half)
PATCHES(bf16, __nv_bfloat16)
