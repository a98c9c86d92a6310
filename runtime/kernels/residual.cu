// What a layer adds to its input.
#include "element.cuh"

extern "C" __global__ void add(const float *x, const float *y, float *out, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = x[i] + y[i];
}

// Each column of y with a scale of its own.
extern "C" __global__ void add_scaled(const float *x, const float *y, const float *scale, float *out, uint32_t width,
                                      size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = x[i] + y[i] * scale[i % width];
}
