// Quantised weights as f32, for products of many rows. One thread a number; blocks are those of GGUF.
#include "element.cuh"

__device__ __forceinline__ float half_at(const uint8_t *bytes) {
    return __half2float(__ushort_as_half(bytes[0] | bytes[1] << 8));
}

// 32 numbers: scale, 32 signed bytes.
extern "C" __global__ void widen_q8_0(const uint8_t *blocks, float *out, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const uint8_t *block = blocks + i / 32 * 34;
    out[i] = half_at(block) * (int8_t)block[2 + i % 32];
}

// 32 numbers: scale, 16 bytes with the first numbers in their lower halves and the others in the upper ones.
extern "C" __global__ void widen_q4_0(const uint8_t *blocks, float *out, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const uint8_t *block = blocks + i / 32 * 18;
    uint32_t n = i % 32, two = block[2 + n % 16];
    out[i] = half_at(block) * ((int)(n < 16 ? two & 15 : two >> 4) - 8);
}

// 256 numbers in 8 groups: scale, scale of the minima, 12 bytes with 6 bits of scale and minimum for each group, and
// 32 bytes for every two groups.
extern "C" __global__ void widen_q4_k(const uint8_t *blocks, float *out, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const uint8_t *block = blocks + i / 256 * 144, *six = block + 4;
    uint32_t n = i % 256, group = n / 32, two = block[16 + n / 64 * 32 + n % 32], scale, minimum;
    if (group < 4) {
        scale = six[group] & 63;
        minimum = six[group + 4] & 63;
    } else {
        scale = (six[group + 4] & 15) | (six[group - 4] >> 6) << 4;
        minimum = six[group + 4] >> 4 | (six[group] >> 6) << 4;
    }
    uint32_t number = group % 2 == 0 ? two & 15 : two >> 4;
    out[i] = half_at(block) * scale * number - half_at(block + 2) * minimum;
}
