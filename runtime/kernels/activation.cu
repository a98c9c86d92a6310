// Activation functions, one thread a number.
#include "element.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Rows [gate | up] of 2 · width to rows of width.
extern "C" __global__ void silu_mul(const float *x, float *y, uint32_t width, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float *gate = x + i / width * 2 * width + i % width;
    y[i] = gate[0] * sigmoid(gate[0]) * gate[width];
}

extern "C" __global__ void quick_gelu(const float *x, float *y, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = x[i] * sigmoid(1.702f * x[i]);
}

extern "C" __global__ void gelu(const float *x, float *y, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = 0.5f * x[i] * (1.f + erff(x[i] * 0.70710678f));
}
