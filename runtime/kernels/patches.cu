// From the bytes of a picture to numbers, and the pixels of each patch as a row.
#include "element.cuh"

// Bytes [tiles, 3, plane] to numbers, a thread each. Rounded after each of both steps, as on a processor.
extern "C" __global__ void normalise(const uint8_t *pixels, float *out, uint32_t plane, float s0, float s1, float s2,
                                     float o0, float o1, float o2, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    uint32_t channel = i / plane % 3;
    float scale = channel == 0 ? s0 : channel == 1 ? s1 : s2, offset = channel == 0 ? o0 : channel == 1 ? o1 : o2;
    out[i] = __fadd_rn(__fmul_rn((float)pixels[i], scale), offset);
}

// One block a patch: pixels [tiles, channels, side, side] to [tiles · (side ÷ patch)², length]: channels · patch² numbers, then zeros.
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
