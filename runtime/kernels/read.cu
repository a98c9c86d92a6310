// Reads memory as fast as it can be read: what all products of few rows are measured by.
#include <cstdint>

// `out`, zero before, becomes the exclusive or of all words; `count` is that of vectors of four.
extern "C" __global__ void read_words(const uint4 *words, uint32_t *out, size_t count) {
    constexpr int FLIGHT = 4;
    size_t step = (size_t)gridDim.x * blockDim.x, i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t all = 0;
    for (; i + (FLIGHT - 1) * step < count; i += FLIGHT * step) {
        uint4 loaded[FLIGHT];
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) loaded[n] = __ldcs(words + i + n * step);
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) all ^= loaded[n].x ^ loaded[n].y ^ loaded[n].z ^ loaded[n].w;
    }
    for (; i < count; i += step) {
        uint4 loaded = words[i];
        all ^= loaded.x ^ loaded.y ^ loaded.z ^ loaded.w;
    }
    all = __reduce_xor_sync(~0u, all);
    if (threadIdx.x % 32 == 0) atomicXor(out, all);
}
