// x · Wᵀ + b in f32. Few rows: every weight is read once, for all of them, by one warp. Many rows are cuBLAS's; what it
// needs around it is here, and few rows in 16 bits are in few_rows.cu.
#include "element.cuh"

// w [outer, inner], x [ROWS, inner], y [ROWS, outer]. `whole`: rows of w are whole fours, so that it may be read so.
template <int ROWS>
__device__ void few_rows(const float *w, const float *x, const float *bias, float *y, uint32_t inner, uint32_t outer,
                         bool whole) {
    // The more rows there are, the more often what is read of them has to be used.
    constexpr int OUTPUTS = ROWS == 1 ? 1 : ROWS == 2 ? 2 : 4;
    uint32_t first = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * OUTPUTS, lane = threadIdx.x % 32;
    if (first >= outer) return;
    const float *row[OUTPUTS];
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) row[o] = w + (size_t)min(first + o, outer - 1) * inner;
    float sums[OUTPUTS][ROWS] = {};
    uint32_t fours = whole ? inner / 4 : 0;
#pragma unroll(OUTPUTS == 1 ? 4 : 2)
    for (uint32_t i = lane; i < fours; i += 32) {
        float4 loaded[OUTPUTS];
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) loaded[o] = __ldg(reinterpret_cast<const float4 *>(row[o]) + i);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float4 four = __ldg(reinterpret_cast<const float4 *>(x + (size_t)r * inner) + i);
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) {
                float4 part = loaded[o];
                sums[o][r] += part.x * four.x + part.y * four.y + part.z * four.z + part.w * four.w;
            }
        }
    }
    for (uint32_t i = fours * 4 + lane; i < inner; i += 32) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float number = x[(size_t)r * inner + i];
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) sums[o][r] += row[o][i] * number;
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

#define FEW(ROWS)                                                                                                     \
    extern "C" __global__ void few_rows_f32_##ROWS(const float *w, const float *x, const float *bias, float *y,       \
                                                   uint32_t inner, uint32_t outer, uint32_t whole) {                  \
        few_rows<ROWS>(w, x, bias, y, inner, outer, whole != 0);                                                      \
    }
FEW(1)
FEW(2)
FEW(3)
FEW(4)
FEW(5)
FEW(6)
FEW(7)
FEW(8)

#define NARROW(name, T)                                                                                               \
    extern "C" __global__ void narrow_##name(const float *x, T *y, size_t count) {                                    \
        size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;                                                     \
        if (i < count) y[i] = narrow<T>(x[i]);                                                                        \
    }
NARROW(f16, __half)
NARROW(bf16, __nv_bfloat16)
