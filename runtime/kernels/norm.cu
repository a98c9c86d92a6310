// Root-mean-square and layer norms: one block a row, which its threads hold where it is not too long, statistics in f32.
#include "early.cuh"
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

// What a thread holds of a row: PARTS times four numbers.
constexpr uint32_t PARTS = 4;

// Whether the threads of a block hold a row: in fours, at multiples of their size.
__device__ __forceinline__ bool held(const float *x, const float *weight, uint32_t width, uint32_t stride) {
    return width % 4 == 0 && stride % 4 == 0 && width <= blockDim.x * 4 * PARTS &&
           (reinterpret_cast<size_t>(x) | reinterpret_cast<size_t>(weight)) % 16 == 0;
}

// A thread's part of a row; zeros behind its end.
struct Part {
    float4 four[PARTS];

    __device__ __forceinline__ void load(const float *x, uint32_t width) {
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++) {
            uint32_t i = (p * blockDim.x + threadIdx.x) * 4;
            four[p] = i < width ? ::four(x + i) : make_float4(0.f, 0.f, 0.f, 0.f);
        }
    }
    __device__ __forceinline__ float sum() const {
        float all = 0.f;
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++) all += four[p].x + four[p].y + four[p].z + four[p].w;
        return all;
    }
    // Of the squares of what is `mean` less, where the row is.
    __device__ __forceinline__ float squares(float mean, uint32_t width) const {
        float all = 0.f;
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++) {
            if ((p * blockDim.x + threadIdx.x) * 4 >= width) continue;
            float a = four[p].x - mean, b = four[p].y - mean, c = four[p].z - mean, d = four[p].w - mean;
            all += a * a + b * b + c * c + d * d;
        }
        return all;
    }
};

// Rows of x are `stride` numbers apart, those of y follow each other.
template <typename T>
__device__ void rms_norm(const float *x, const float *weight, T *y, uint32_t width, uint32_t stride, float eps) {
    let_next_start();
    x += (size_t)blockIdx.x * stride;
    y += (size_t)blockIdx.x * width;
    if (held(x, weight, width, stride)) {
        Part part, weights;
        // Nobody writes those.
        weights.load(weight, width);
        wait_for_last();
        part.load(x, width);
        float scale = 1.f / sqrtf(block_sum(part.squares(0.f, width)) / width + eps);
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++) {
            uint32_t i = (p * blockDim.x + threadIdx.x) * 4;
            if (i >= width) continue;
            float4 v = part.four[p], w = weights.four[p];
            put_four(y + i, make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w));
        }
        return;
    }
    wait_for_last();
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
    if (held(x, weight, width, stride) && reinterpret_cast<size_t>(bias) % 16 == 0) {
        Part part;
        part.load(x, width);
        float mean = block_sum(part.sum()) / width;
        float scale = 1.f / sqrtf(block_sum(part.squares(mean, width)) / width + eps);
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++) {
            uint32_t i = (p * blockDim.x + threadIdx.x) * 4;
            if (i >= width) continue;
            float4 v = part.four[p], w = four(weight + i), b = four(bias + i);
            put_four(y + i, make_float4((v.x - mean) * scale * w.x + b.x, (v.y - mean) * scale * w.y + b.y,
                                        (v.z - mean) * scale * w.z + b.z, (v.w - mean) * scale * w.w + b.w));
        }
        return;
    }
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
