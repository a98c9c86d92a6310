// x · Wᵀ + b. Few rows: every weight is read once, for all of them, by one warp. Many rows are cuBLAS's; what it
// needs around it is here.
#include "element.cuh"

template <typename T> struct Vector; // 16 bytes
template <> struct Vector<float> {
    static constexpr int length = 4;
};
template <> struct Vector<__half> {
    static constexpr int length = 8;
};
template <> struct Vector<__nv_bfloat16> {
    static constexpr int length = 8;
};

// w [outer, inner], x [ROWS, inner], y [ROWS, outer]. `whole`: rows of w are whole vectors, so that it may be read so.
template <typename T, int ROWS>
__device__ void few_rows(const T *w, const float *x, const float *bias, float *y, uint32_t inner, uint32_t outer,
                         bool whole) {
    // The more rows there are, the more often what is read of them has to be used.
    constexpr int L = Vector<T>::length, OUTPUTS = ROWS == 1 ? 1 : ROWS == 2 ? 2 : 4;
    uint32_t first = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * OUTPUTS, lane = threadIdx.x % 32;
    if (first >= outer) return;
    const T *row[OUTPUTS];
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) row[o] = w + (size_t)min(first + o, outer - 1) * inner;
    float sums[OUTPUTS][ROWS] = {};
    uint32_t vectors = whole ? inner / L : 0;
#pragma unroll(OUTPUTS == 1 ? 4 : 2)
    for (uint32_t i = lane; i < vectors; i += 32) {
        uint4 loaded[OUTPUTS];
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) loaded[o] = __ldg(reinterpret_cast<const uint4 *>(row[o]) + i);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float4 *numbers = reinterpret_cast<const float4 *>(x + (size_t)r * inner) + i * (L / 4);
#pragma unroll
            for (int q = 0; q < L / 4; q++) {
                float4 four = __ldg(numbers + q);
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++) {
                    const T *part = reinterpret_cast<const T *>(&loaded[o]) + 4 * q;
                    sums[o][r] += widen(part[0]) * four.x + widen(part[1]) * four.y + widen(part[2]) * four.z +
                                  widen(part[3]) * four.w;
                }
            }
        }
    }
    for (uint32_t i = vectors * L + lane; i < inner; i += 32) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float number = x[(size_t)r * inner + i];
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) sums[o][r] += widen(row[o][i]) * number;
        }
    }
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) {
        if (first + o >= outer) break;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float sum = warp_sum(sums[o][r]);
            if (lane == 0) y[(size_t)r * outer + first + o] = sum + (bias ? bias[first + o] : 0.f);
        }
    }
}

#define FEW(name, T, ROWS)                                                                                            \
    extern "C" __global__ void few_rows_##name##_##ROWS(const T *w, const float *x, const float *bias, float *y,      \
                                                        uint32_t inner, uint32_t outer, uint32_t whole) {             \
        few_rows<T, ROWS>(w, x, bias, y, inner, outer, whole != 0);                                                   \
    }
#define EACH(name, T)                                                                                                 \
    FEW(name, T, 1)                                                                                                   \
    FEW(name, T, 2)                                                                                                   \
    FEW(name, T, 3)                                                                                                   \
    FEW(name, T, 4)                                                                                                   \
    FEW(name, T, 5)                                                                                                   \
    FEW(name, T, 6)                                                                                                   \
    FEW(name, T, 7)                                                                                                   \
    FEW(name, T, 8)
EACH(f32, float)
EACH(f16, __half)
EACH(bf16, __nv_bfloat16)

extern "C" __global__ void add_bias(const float *x, const float *bias, float *y, uint32_t outer, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = x[i] + bias[i % outer];
}

#define NARROW(name, T)                                                                                               \
    extern "C" __global__ void narrow_##name(const float *x, T *y, size_t count) {                                    \
        size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;                                                     \
        if (i < count) y[i] = narrow<T>(x[i]);                                                                        \
    }
NARROW(f16, __half)
NARROW(bf16, __nv_bfloat16)
