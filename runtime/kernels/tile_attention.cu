// Attention without a mask among the rows of a tile of a picture. Four warps a block: 64 queries of a head on tensor cores,
// or 32 in f32.
#include "flash.cuh"
#include "softmax.cuh"

constexpr int QUERIES = MOST;

// Queries, keys and values have rows of `width` numbers, `strides` numbers apart; those of out follow each other.
extern "C" __global__ void tile_attention(const float *q, const float *k, const float *v, float *out, uint32_t q_stride,
                                          uint32_t k_stride, uint32_t v_stride, uint32_t rows, uint32_t heads,
                                          uint32_t head_dim) {
    extern __shared__ float4 shared[];
    uint32_t hd = head_dim, stride = row_stride(hd), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t head = blockIdx.y;
    size_t base = (size_t)blockIdx.z * rows; // the tile's first row
    float *tile = reinterpret_cast<float *>(shared), *queries = tile + KEYS * stride + warp * QUERIES * stride;
    float scale = 1.f / sqrtf((float)hd);
    uint32_t first = (blockIdx.x * (blockDim.x / 32) + warp) * QUERIES;
    for (uint32_t n = 0; n < QUERIES; n++) {
        const float *query = q + (base + first + n) * q_stride + head * hd;
        for (uint32_t i = lane; i < stride; i += 32) {
            queries[n * stride + i] = first + n < rows && i < hd ? scale * query[i] : 0.f;
        }
    }
    const float *keys = k + base * k_stride + head * hd, *values = v + base * v_stride + head * hd;
    Running<QUERIES> running;
    running.begin();
    for (uint32_t position = 0; position < rows; position += KEYS) {
        int count = min(rows - position, (uint32_t)KEYS), visible[QUERIES];
        float weights[QUERIES];
#pragma unroll
        for (int n = 0; n < QUERIES; n++) visible[n] = count;
        __syncthreads();
        load(tile, [&](uint32_t i) { return keys + (size_t)(position + i) * k_stride; }, count, hd, threadIdx.x,
             blockDim.x);
        __syncthreads();
        running.score(queries, tile, hd, visible, weights);
        __syncthreads();
        load(tile, [&](uint32_t i) { return values + (size_t)(position + i) * v_stride; }, count, hd, threadIdx.x,
             blockDim.x);
        __syncthreads();
        running.add(tile, hd, count, weights);
    }
#pragma unroll
    for (int n = 0; n < QUERIES; n++) {
        if (first + n >= rows) break;
        float *row = out + ((base + first + n) * heads + head) * hd;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            if (lane + 32 * c < hd) row[lane + 32 * c] = running.out[n][c] / running.sum[n];
        }
    }
}

// Rows of a tile in f32, rounded on their way, and in the 16 bits of products.
template <typename T, int HD> struct Source {
    template <typename Rows>
    static __device__ __forceinline__ void fetch(T *tile, Rows row, int count, int width, const float *, bool whole) {
        flash::load_rounded<T, HD>(tile, row, count, width, whole);
    }
    template <typename Rows>
    static __device__ __forceinline__ void fetch(T *tile, Rows row, int count, int width, const T *, bool whole) {
        flash::load<T, HD>(tile, row, count, width, whole);
    }
};

// The same with products in 16 bits.
template <typename In, typename T, int HD>
__device__ void rounded_tile_attention(const In *q, const In *k, const In *v, T *out, uint32_t q_stride,
                                       uint32_t k_stride, uint32_t v_stride, uint32_t rows, uint32_t heads,
                                       uint32_t head_dim) {
    extern __shared__ float4 tiles[];
    T *keys = reinterpret_cast<T *>(tiles), *values = keys + flash::KEYS * flash::STRIDE<HD>;
    uint32_t hd = head_dim, head = blockIdx.y, first = blockIdx.x * flash::QUERIES;
    size_t base = (size_t)blockIdx.z * rows; // the tile's first row
    int count = min(rows - first, (uint32_t)flash::QUERIES);
    q += (base + first) * q_stride + head * hd;
    k += base * k_stride + head * hd;
    v += base * v_stride + head * hd;
    constexpr uint32_t WHOLE = 16 / sizeof(In);
    auto whole = [&](const In *from, uint32_t stride) {
        return hd % WHOLE == 0 && stride % WHOLE == 0 && reinterpret_cast<size_t>(from) % 16 == 0;
    };
    float scale = 1.f / sqrtf((float)hd);
#pragma unroll 8
    for (int i = threadIdx.x; i < flash::QUERIES * HD; i += flash::THREADS) {
        int n = i / HD, column = i % HD;
        bool is = n < count && column < hd;
        keys[n * flash::STRIDE<HD> + column] =
            narrow<T>(is ? scale * widen(q[(size_t)n * q_stride + column]) : 0.f);
    }
    bool whole_keys = whole(k, k_stride), whole_values = whole(v, v_stride);
    flash::attend<T, HD>(
        keys, values, rows,
        [&](T *tile, int begin, int count, bool of_values) {
            const In *from = of_values ? v : k;
            uint32_t stride = of_values ? v_stride : k_stride;
            Source<T, HD>::fetch(tile, [&](int n) { return from + (size_t)(begin + n) * stride; }, count, hd, from,
                                 of_values ? whole_values : whole_keys);
        },
        [&](int) { return rows; },
        [&](int n) { return out + ((base + first + n) * heads + head) * hd; }, count, hd);
}

#define ROUNDED(from, In, name, T, HD)                                                                                \
    extern "C" __global__ void FLASH_BOUNDS(HD) tile_attention_##from##_##name##_##HD(                                \
        const In *q, const In *k, const In *v, T *out, uint32_t q_stride, uint32_t k_stride, uint32_t v_stride,       \
        uint32_t rows, uint32_t heads, uint32_t head_dim) {                                                           \
        rounded_tile_attention<In, T, HD>(q, k, v, out, q_stride, k_stride, v_stride, rows, heads, head_dim);         \
    }
#define EACH(name, T)                                                                                                 \
    ROUNDED(f32, float, name, T, 64)                                                                                  \
    ROUNDED(f32, float, name, T, 128)                                                                                 \
    ROUNDED(name, T, name, T, 64)                                                                                     \
    ROUNDED(name, T, name, T, 128)
EACH(f16, __half)
EACH(bf16, __nv_bfloat16)
