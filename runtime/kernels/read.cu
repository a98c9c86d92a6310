// Reads memory as fast as it can be read: what all products of few rows are measured by. A block has so many threads' vectors at a
// time, which lie side by side, and there are as many blocks as are there at the same time.
#include <cstdint>

// `out`, zero before, becomes the exclusive or of all words; `count` is that of vectors of four.
extern "C" __global__ void __launch_bounds__(512, 2) read_words(const uint4 *words, uint32_t *out, size_t count) {
    constexpr int FLIGHT = 8;
    size_t step = (size_t)gridDim.x * blockDim.x * FLIGHT, i = (size_t)blockIdx.x * blockDim.x * FLIGHT + threadIdx.x;
    uint32_t all = 0;
    for (; i < count; i += step) {
        uint4 loaded[FLIGHT];
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) {
            size_t at = i + n * blockDim.x;
            loaded[n] = at < count ? __ldcs(words + at) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) all ^= loaded[n].x ^ loaded[n].y ^ loaded[n].z ^ loaded[n].w;
    }
    all = __reduce_xor_sync(~0u, all);
    if (threadIdx.x % 32 == 0) atomicXor(out, all);
}
