// Root-mean-square and layer norms: one block a row, two passes over it, statistics in f32.
#include "element.cuh"

// Sum over all threads of a block of up to 1024, known to all of them.
__device__ float block_sum(float value) {
    __shared__ float sums[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    __syncthreads(); // The sums of the call before may still be read.
    if (lane == 0) sums[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? sums[lane] : 0.f);
}

// Rows of x are `stride` numbers apart, those of y follow each other.
template <typename T>
__device__ void rms_norm(const float *x, const float *weight, T *y, uint32_t width, uint32_t stride, float eps) {
    x += (size_t)blockIdx.x * stride;
    y += (size_t)blockIdx.x * width;
    float sum = 0.f;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) sum += x[i] * x[i];
    float scale = 1.f / sqrtf(block_sum(sum) / width + eps);
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) y[i] = narrow<T>(x[i] * scale * weight[i]);
}

template <typename T>
__device__ void layer_norm(const float *x, const float *weight, const float *bias, T *y, uint32_t width, uint32_t stride,
                           float eps) {
    x += (size_t)blockIdx.x * stride;
    y += (size_t)blockIdx.x * width;
    float sum = 0.f;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
    float mean = block_sum(sum) / width;
    float square = 0.f;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) square += (x[i] - mean) * (x[i] - mean);
    float scale = 1.f / sqrtf(block_sum(square) / width + eps);
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) y[i] = narrow<T>((x[i] - mean) * scale * weight[i] + bias[i]);
}

#define NORMS(name, T)                                                                                                \
    extern "C" __global__ void rms_norm_##name(const float *x, const float *weight, T *y, uint32_t width,             \
                                               uint32_t stride, float eps) {                                          \
        rms_norm(x, weight, y, width, stride, eps);                                                                   \
    }                                                                                                                 \
    extern "C" __global__ void layer_norm_##name(const float *x, const float *weight, const float *bias, T *y,        \
                                                 uint32_t width, uint32_t stride, float eps) {                        \
        layer_norm(x, weight, bias, y, width, stride, eps);                                                           \
    }
NORMS(f32, float)
NORMS(f16, __half)
NORMS(bf16, __nv_bfloat16)
