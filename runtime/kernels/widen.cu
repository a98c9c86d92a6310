// Quantised weights as f32, for products of many rows: whole outputs from `first` on, four numbers a thread.
#include "element.cuh"
#include "formats.cuh"

namespace {

template <typename T> __device__ __forceinline__ const T &at(const uint8_t *bytes) {
    return *reinterpret_cast<const T *>(bytes);
}

// Four numbers of output o from `k` on, which are as said in formats.cuh.
__device__ __forceinline__ float4 numbers(packed::Q8_0, const uint8_t *chunk, uint32_t o, uint32_t k) {
    using F = packed::Q8_0;
    uint32_t block = k / 32 % 4;
    float scale = __half2float(at<__half>(chunk + F::head(o, block, 0)));
    char4 four = at<char4>(chunk + F::number(o, block, k % 32 / 4));
    return make_float4(scale * four.x, scale * four.y, scale * four.z, scale * four.w);
}
__device__ __forceinline__ float4 numbers(packed::Q4_0, const uint8_t *chunk, uint32_t o, uint32_t k) {
    using F = packed::Q4_0;
    uint32_t block = k / 32 % 4, high = k % 32 / 16 * 4;
    float scale = __half2float(at<__half>(chunk + F::head(o, block, 0)));
    uchar4 two = at<uchar4>(chunk + F::number(o, block, k % 16 / 4));
    return make_float4(scale * ((two.x >> high & 15) - 8), scale * ((two.y >> high & 15) - 8),
                       scale * ((two.z >> high & 15) - 8), scale * ((two.w >> high & 15) - 8));
}
__device__ __forceinline__ float4 numbers(packed::Q4_K, const uint8_t *chunk, uint32_t o, uint32_t k) {
    using F = packed::Q4_K;
    const uint8_t *head = chunk + F::head(o, 0, 0), *six = head + 4;
    uint32_t n = k % 256, group = n / 32, high = group % 2 * 4, scale, minimum;
    if (group < 4) {
        scale = six[group] & 63, minimum = six[group + 4] & 63;
    } else {
        scale = (six[group + 4] & 15) | (six[group - 4] >> 6) << 4;
        minimum = six[group + 4] >> 4 | (six[group] >> 6) << 4;
    }
    uchar4 two = at<uchar4>(chunk + F::number(o, 0, n / 64 * 8 + n % 32 / 4));
    float unit = __half2float(at<__half>(head)) * scale, less = __half2float(at<__half>(head + 2)) * minimum;
    return make_float4(unit * (two.x >> high & 15) - less, unit * (two.y >> high & 15) - less,
                       unit * (two.z >> high & 15) - less, unit * (two.w >> high & 15) - less);
}

template <typename F>
__device__ __forceinline__ void widened(const uint8_t *weights, float *out, uint32_t first, uint32_t row, size_t fours) {
    size_t n = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= fours) return;
    uint32_t output = first + n / (row / 4), k = n % (row / 4) * 4;
    put_four(out + n * 4, numbers(F(), weights + packed::chunk_at<F>(output, k / F::BLOCK, row), output, k));
}

} // namespace

#define WIDEN(name, F)                                                                                                \
    extern "C" __global__ void widen_##name(const uint8_t *weights, float *out, uint32_t first, uint32_t row,         \
                                            size_t fours) {                                                           \
        widened<packed::F>(weights, out, first, row, fours);                                                          \
    }
WIDEN(q8_0, Q8_0)
WIDEN(q4_0, Q4_0)
WIDEN(q4_k, Q4_K)
