// Activation functions, four numbers a thread. Numbers in 16 bits are widened before and rounded behind.
#include "early.cuh"
#include "element.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

struct QuickGelu {
    static __device__ __forceinline__ float of(float x) { return x * sigmoid(1.702f * x); }
};
struct Gelu {
    static __device__ __forceinline__ float of(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678f)); }
};

// Rows [gate | up] of 2 · width to rows of width: a row's blocks lie along y.
template <typename T> __device__ void silu_mul(const T *x, T *y, uint32_t width) {
    in_turn();
    uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
    if (column >= width) return;
    x += (size_t)blockIdx.x * 2 * width + column;
    y += (size_t)blockIdx.x * width + column;
    auto of = [](float gate, float up) { return gate * sigmoid(gate) * up; };
    if (width % 4 == 0) {
        float4 gate = four(x), up = four(x + width);
        put_four(y, make_float4(of(gate.x, up.x), of(gate.y, up.y), of(gate.z, up.z), of(gate.w, up.w)));
    } else {
        for (uint32_t n = 0; n < min(width - column, 4u); n++) y[n] = narrow<T>(of(widen(x[n]), widen(x[width + n])));
    }
}

template <typename Function, typename T> __device__ void each(const T *x, T *y, size_t count) {
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i + 4 <= count) {
        float4 numbers = four(x + i);
        numbers.x = Function::of(numbers.x), numbers.y = Function::of(numbers.y);
        numbers.z = Function::of(numbers.z), numbers.w = Function::of(numbers.w);
        put_four(y + i, numbers);
    } else {
        for (; i < count; i++) y[i] = narrow<T>(Function::of(widen(x[i])));
    }
}

#define ACTIVATIONS(name, T)                                                                                          \
    extern "C" __global__ void silu_mul_##name(const T *x, T *y, uint32_t width) { silu_mul(x, y, width); }           \
    extern "C" __global__ void quick_gelu_##name(const T *x, T *y, size_t count) { each<QuickGelu>(x, y, count); }    \
    extern "C" __global__ void gelu_##name(const T *x, T *y, size_t count) { each<Gelu>(x, y, count); }
ACTIVATIONS(f32, float)
ACTIVATIONS(f16, __half)
ACTIVATIONS(bf16, __nv_bfloat16)
