// What a layer adds to its input.
#include "element.cuh"

extern "C" __global__ void add(const float *x, const float *y, float *out, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = x[i] + y[i];
}

// Each column of y with a scale of its own, four numbers a thread: a row's blocks lie along y.
template <typename T>
__device__ void add_scaled(const float *x, const T *y, const float *scale, float *out, uint32_t width) {
    uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
    if (column >= width) return;
    size_t at = (size_t)blockIdx.x * width + column;
    if (width % 4 == 0) {
        float4 a = four(x + at), b = four(y + at), s = four(scale + column);
        put_four(out + at, make_float4(a.x + b.x * s.x, a.y + b.y * s.y, a.z + b.z * s.z, a.w + b.w * s.w));
    } else {
        for (uint32_t n = 0; n < min(width - column, 4u); n++) out[at + n] = x[at + n] + widen(y[at + n]) * scale[column + n];
    }
}

#define ADD_SCALED(name, T)                                                                                           \
    extern "C" __global__ void add_scaled_##name(const float *x, const T *y, const float *scale, float *out,          \
                                                 uint32_t width) {                                                    \
        add_scaled(x, y, scale, out, width);                                                                          \
    }
ADD_SCALED(f32, float)
ADD_SCALED(f16, __half)
ADD_SCALED(bf16, __nv_bfloat16)
