// Writes keys, rotated, and values of new rows to the cache. One block a row and kv head.
#include "cache.cuh"
#include "early.cuh"
#include "rotate.cuh"

// Rows of qkv have `width` numbers: queries, keys, values.
template <typename T>
__device__ void store(T *cache, Strides at, const uint32_t *tables, const Row *rows, const float *qkv,
                      const float *angles, uint32_t width, uint32_t kv_heads, uint32_t head_dim) {
    in_turn();
    Row row = rows[blockIdx.x];
    const float *keys = qkv + (size_t)blockIdx.x * width + (width - (2 * kv_heads - blockIdx.y) * head_dim);
    const float *values = keys + kv_heads * head_dim;
    T *out = cache + (uint64_t)blockIdx.y * at.head + cached(cache, tables, row, at, 0).offset(row.position);
    for (uint32_t i = threadIdx.x; i < head_dim; i += blockDim.x) {
        out[i] = narrow<T>(rotated(keys, angles + (size_t)row.angles * head_dim, head_dim, i));
        out[at.value + i] = narrow<T>(values[i]);
    }
}

// In 8 bits: one warp for the key, one for the value.
template <typename T>
__device__ void store_scaled(T *cache, Strides at, const uint32_t *tables, const Row *rows, const float *qkv,
                             const float *angles, uint32_t width, uint32_t kv_heads, uint32_t head_dim) {
    in_turn();
    Row row = rows[blockIdx.x];
    const float *keys = qkv + (size_t)blockIdx.x * width + (width - (2 * kv_heads - blockIdx.y) * head_dim);
    const float *values = keys + kv_heads * head_dim;
    Cached<T> to = cached<T>(cache, tables, row, at, blockIdx.y);
    keep_token(to, row.position, head_dim, keys, values, angles + (size_t)row.angles * head_dim, threadIdx.x / 32);
}

#define STORE(name, T)                                                                                                \
    extern "C" __global__ void store_##name(T *cache, STRIDES, const uint32_t *tables, const Row *rows,               \
                                            const float *qkv, const float *angles, uint32_t width, uint32_t kv_heads, \
                                            uint32_t head_dim) {                                                      \
        store(cache, {block, value, head, token, block_tokens}, tables, rows, qkv, angles, width, kv_heads,           \
              head_dim);                                                                                              \
    }
STORE(f32, float)
STORE(f16, __half)
STORE(bf16, __nv_bfloat16)

#define STORE_SCALED(name, T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(64) store_##name(                                                    \
        T *cache, STRIDES, const uint32_t *tables, const Row *rows, const float *qkv, const float *angles,            \
        uint32_t width, uint32_t kv_heads, uint32_t head_dim) {                                                       \
        store_scaled(cache, {block, value, head, token, block_tokens}, tables, rows, qkv, angles, width, kv_heads,    \
                     head_dim);                                                                                       \
    }
STORE_SCALED(int8, Int8)
STORE_SCALED(fp8, Fp8)
