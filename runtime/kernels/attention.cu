// Causal attention to cached keys. Single rows of a sequence (decode): a part of the keys and a group of query heads that
// share a kv head at a time, on tensor cores where the cache has 16 or 8 bits and heads are of a usual width, and else by one warp; then
// the parts are joined. Runs of rows (prefill): four warps a run of up to 64 rows and a head on tensor cores, where the cache
// has 16 or 8 bits, and half a run where it has 32.
#include "cache.cuh"
#include "early.cuh"
#include "flash.cuh"
#include "rotate.cuh"
#include "single.cuh"
#include "softmax.cuh"

// A query, rotated and scaled, to shared memory, by the threads of a warp. Zeros where there is none.
__device__ __forceinline__ void load_query(float *out, const float *query, const float *angles, uint32_t head_dim) {
    float scale = 1.f / sqrtf((float)head_dim);
    for (uint32_t i = threadIdx.x % 32; i < row_stride(head_dim); i += 32) {
        out[i] = query && i < head_dim ? scale * rotated(query, angles, head_dim, i) : 0.f;
    }
}

// Eight numbers of a row as they are stored. `whole`: rows begin at multiples of as many bytes as are loaded at once, and
// have whole eights.
template <typename T> struct alignas(16) Eight {
    using Word = typename std::conditional<sizeof(T) == 1, uint2, uint4>::type;
    T number[8];

    __device__ __forceinline__ void load(const T *row, uint32_t column, uint32_t width, bool whole) {
        if (whole && column < width) {
            const Word *from = reinterpret_cast<const Word *>(row + column);
            Word *to = reinterpret_cast<Word *>(number);
#pragma unroll
            for (int v = 0; v < (int)(sizeof(number) / sizeof(Word)); v++) to[v] = __ldg(from + v);
            return;
        }
#pragma unroll
        for (int i = 0; i < 8; i++) number[i] = column + i < width ? row[column + i] : T{};
    }
};

// Whether heads begin where Eight::load and flash::load want them to, and have whole eights.
template <typename T> __device__ __forceinline__ bool are_whole(const Strides &at, uint32_t head_dim) {
    return head_dim % 8 == 0 && at.head * sizeof(T) % (sizeof(T) == 1 ? 8 : 16) == 0;
}

// parts [singles, heads, splits, head dim + 2]: mixed values, largest score, sum of weights. A half of the warp has a
// key, a thread eight numbers of it: nothing but the cache is read, and each number of it once.
template <typename T, int QUERIES>
__device__ void decode(const T *cache, Strides at, const uint32_t *tables, const Row *rows, const uint32_t *singles,
                       const float *qkv, const float *angles, float *parts, Shape shape) {
    in_turn();
    constexpr int FLIGHT = QUERIES > 2 ? 2 : 4; // keys of a half that are on their way together
    uint32_t hd = shape.head_dim, half = threadIdx.x / 16, column = threadIdx.x % 16 * 8;
    uint32_t group = shape.heads / shape.kv_heads, chunks = (group + QUERIES - 1) / QUERIES;
    uint32_t kv_head = blockIdx.y / chunks, first = blockIdx.y % chunks * QUERIES;
    uint32_t index = singles[blockIdx.z], splits = gridDim.x;
    Row row = rows[index];
    uint32_t heads = min(group - first, (uint32_t)QUERIES);
    const float *from = qkv + (size_t)index * shape.width + (size_t)(kv_head * group + first) * hd;
    float scale = 1.f / sqrtf((float)hd), query[QUERIES][8], mixed[QUERIES][8], highest[QUERIES], sum[QUERIES];
#pragma unroll
    for (int q = 0; q < QUERIES; q++) {
        highest[q] = -INFINITY, sum[q] = 0.f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            bool is = q < heads && column + i < hd;
            query[q][i] = is ? scale * rotated(from + q * hd, angles + (size_t)row.angles * hd, hd, column + i) : 0.f;
            mixed[q][i] = 0.f;
        }
    }
    // Every part is whole tiles.
    uint32_t tokens = row.position + 1, tiles = (tokens + KEYS - 1) / KEYS;
    uint32_t each = (tiles + splits - 1) / splits;
    uint32_t begin = min(blockIdx.x * each * KEYS, tokens), end = min(begin + each * KEYS, tokens);
    Cached<T> source = cached(cache, tables, row, at, kv_head);
    bool whole = are_whole<T>(at, hd);
    for (uint32_t position = begin + half; position < end + half; position += 2 * FLIGHT) {
        Eight<T> keys[FLIGHT], values[FLIGHT];
        float key_scales[FLIGHT], value_scales[FLIGHT];
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) {
            uint32_t own = min(position + 2 * n, end - 1);
            uint64_t offset = source.offset(own);
            keys[n].load(source.cache + offset, column, hd, whole);
            values[n].load(source.cache + offset + at.value, column, hd, whole);
            key_scales[n] = source.times(own, 0), value_scales[n] = source.times(own, at.value);
        }
#pragma unroll
        for (int q = 0; q < QUERIES; q++) {
            float weights[FLIGHT], largest = highest[q];
#pragma unroll
            for (int n = 0; n < FLIGHT; n++) {
                float product = 0.f;
#pragma unroll
                for (int i = 0; i < 8; i++) product += query[q][i] * widen(keys[n].number[i]);
#pragma unroll
                for (int distance = 8; distance > 0; distance /= 2) product += __shfl_xor_sync(~0u, product, distance);
                product *= key_scales[n];
                weights[n] = product;
                if (position + 2 * n < end) largest = fmaxf(largest, product);
            }
            // The other half may have one key more.
            if (position >= end) continue;
            float correction = expf(highest[q] - largest);
            highest[q] = largest;
            sum[q] *= correction;
#pragma unroll
            for (int i = 0; i < 8; i++) mixed[q][i] *= correction;
#pragma unroll
            for (int n = 0; n < FLIGHT; n++) {
                if (position + 2 * n >= end) break;
                float weight = expf(weights[n] - largest);
                sum[q] += weight;
                weight *= value_scales[n];
#pragma unroll
                for (int i = 0; i < 8; i++) mixed[q][i] += weight * widen(values[n].number[i]);
            }
        }
    }
    // The first half has a key wherever the second has.
    bool both = begin + 1 < end;
#pragma unroll
    for (int q = 0; q < QUERIES; q++) {
        float other = __shfl_xor_sync(~0u, highest[q], 16), largest = both ? fmaxf(highest[q], other) : highest[q];
        float correction = both ? expf(highest[q] - largest) : 1.f;
        float whole_sum = sum[q] * correction, others = __shfl_xor_sync(~0u, whole_sum, 16);
        if (both) whole_sum += others;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            mixed[q][i] *= correction;
            float others = __shfl_xor_sync(~0u, mixed[q][i], 16);
            if (both) mixed[q][i] += others;
        }
        if (q >= heads || half != 0) continue;
        uint32_t head = kv_head * group + first + q;
        float *part = parts + (((size_t)blockIdx.z * shape.heads + head) * splits + blockIdx.x) * (hd + 2);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (column + i < hd) part[column + i] = mixed[q][i];
        }
        if (column == 0) part[hd] = largest, part[hd + 1] = whole_sum;
    }
}

// One block a head and single row, one thread a column. There are no more parts than threads, nor than MOST_PARTS.
using single::MOST_PARTS;
template <typename Out>
__device__ void join(const float *parts, const uint32_t *singles, Out *out, uint32_t splits, uint32_t head_dim) {
    __shared__ float scales[MOST_PARTS];
    in_turn();
    uint32_t head = blockIdx.x, heads = gridDim.x, stride = head_dim + 2, lane = threadIdx.x % 32;
    parts += ((size_t)blockIdx.y * heads + head) * splits * stride;
    if (threadIdx.x < 32) {
        float highest[MOST_PARTS / 32], sum[MOST_PARTS / 32], largest = -INFINITY, all = 0.f;
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) {
            uint32_t s = n * 32 + lane;
            highest[n] = s < splits ? parts[s * stride + head_dim] : -INFINITY;
            sum[n] = s < splits ? parts[s * stride + head_dim + 1] : 0.f;
            largest = fmaxf(largest, highest[n]);
        }
        largest = warp_max(largest);
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) {
            // A part of no keys says nothing; one of scores that are no numbers must not be lost.
            highest[n] = sum[n] == 0.f ? 0.f : expf(highest[n] - largest);
            all += highest[n] * sum[n];
        }
        all = warp_sum(all);
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) scales[n * 32 + lane] = highest[n] / all;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < head_dim; i += blockDim.x) {
        float mixed = 0.f;
#pragma unroll 8
        for (uint32_t s = 0; s < splits; s++) {
            // What a part of no keys has is nothing.
            if (scales[s] != 0.f) mixed += scales[s] * parts[s * stride + i];
        }
        out[((size_t)singles[blockIdx.y] * heads + head) * head_dim + i] = narrow<Out>(mixed);
    }
}

#define JOIN(name, Out)                                                                                               \
    extern "C" __global__ void join_##name(const float *parts, const uint32_t *singles, Out *out, uint32_t splits,    \
                                           uint32_t head_dim) {                                                       \
        join(parts, singles, out, splits, head_dim);                                                                  \
    }
JOIN(f32, float)
JOIN(f16, __half)
JOIN(bf16, __nv_bfloat16)

// Runs: first row and number of rows, one after another in a sequence. Rows of `out` are heads · head dim. Of what the cache
// keeps as S.
template <typename S, typename Out, int HD>
__device__ void prefill(const S *cache, Strides at, const uint32_t *tables, const Row *rows, const uint32_t *runs,
                        const float *qkv, const float *angles, Out *out, Shape shape) {
    extern __shared__ float4 shared[];
    using T = typename Kept<S>::Number;
    T *keys = reinterpret_cast<T *>(shared), *values = keys + flash::KEYS * flash::STRIDE<HD>;
    uint32_t hd = shape.head_dim, first = runs[2 * blockIdx.x], count = runs[2 * blockIdx.x + 1], head = blockIdx.y;
    float scale = 1.f / sqrtf((float)hd);
    const float *query = qkv + (size_t)first * shape.width + (size_t)head * hd;
    // The angles of positions that follow each other do.
    const float *turn = angles + (size_t)rows[first].angles * hd;
#pragma unroll 8
    for (uint32_t i = threadIdx.x; i < flash::QUERIES * (HD / 2); i += flash::THREADS) {
        uint32_t n = i / (HD / 2), pair = i % (HD / 2), half = hd / 2;
        float low = 0.f, high = 0.f, cosine = 0.f, sine = 0.f;
        if (n < count && pair < half) {
            const float *x = query + (size_t)n * shape.width, *of = turn + (size_t)n * hd;
            low = scale * x[pair], high = scale * x[pair + half], cosine = of[pair], sine = of[pair + half];
        }
        // Behind the last pair there is room for zeros alone, whichever half they come from.
        uint32_t at = pair < half ? pair : 2 * pair, other = pair < half ? pair + half : 2 * pair + 1;
        keys[n * flash::STRIDE<HD> + at] = narrow<T>(low * cosine - high * sine);
        keys[n * flash::STRIDE<HD> + other] = narrow<T>(high * cosine + low * sine);
    }
    Cached<S> source = cached(cache, tables, rows[first], at, head / (shape.heads / shape.kv_heads));
    uint32_t position = rows[first].position;
    bool whole = are_whole<S>(at, hd);
    flash::attend<T, HD>(
        keys, values, position + count,
        [&](T *tile, int begin, int rows, bool of_values) {
            const S *part = source.cache + (of_values ? at.value : 0);
            auto row = [&](int n) { return part + source.offset(begin + n); };
            if constexpr (Kept<S>::SCALED) {
                auto scale = [&](int n) { return source.times(begin + n, of_values ? at.value : 0); };
                flash::load_scaled<T, HD>(tile, row, scale, rows, hd, whole);
            } else {
                flash::load<T, HD>(tile, row, rows, hd, whole);
            }
        },
        [&](uint32_t n) { return position + min(n, count - 1) + 1; },
        [&](uint32_t n) { return out + ((size_t)(first + n) * shape.heads + head) * hd; }, count, hd);
}

// The same in f32 without tensor cores, 32 rows a block.
template <typename T, int QUERIES>
__device__ void prefill_exact(const T *cache, Strides at, const uint32_t *tables, const Row *rows,
                              const uint32_t *runs, const float *qkv, const float *angles, float *out, Shape shape) {
    extern __shared__ float4 shared[];
    uint32_t hd = shape.head_dim, stride = row_stride(hd), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t half = blockIdx.z * 4 * QUERIES, all = runs[2 * blockIdx.x + 1];
    if (half >= all) return;
    uint32_t first = runs[2 * blockIdx.x] + half, count = min(all - half, 4u * QUERIES), head = blockIdx.y;
    float *tile = reinterpret_cast<float *>(shared), *queries = tile + KEYS * stride + warp * QUERIES * stride;
    int own[QUERIES]; // keys that each of this warp's queries sees
#pragma unroll
    for (int q = 0; q < QUERIES; q++) {
        uint32_t n = warp * QUERIES + q;
        bool is = n < count;
        Row row = rows[first + (is ? n : 0)];
        own[q] = is ? row.position + 1 : 0;
        const float *query = qkv + (size_t)(first + n) * shape.width + (size_t)head * hd;
        load_query(queries + q * stride, is ? query : nullptr, angles + (size_t)row.angles * hd, hd);
    }
    Cached<T> source = cached(cache, tables, rows[first], at, head / (shape.heads / shape.kv_heads));
    uint32_t tokens = rows[first + count - 1].position + 1;
    Running<QUERIES> running;
    running.begin();
    for (uint32_t position = 0; position < tokens; position += KEYS) {
        int keys = min(tokens - position, (uint32_t)KEYS), visible[QUERIES];
        float weights[QUERIES];
#pragma unroll
        for (int q = 0; q < QUERIES; q++) visible[q] = own[q] - (int)position;
        __syncthreads();
        load(tile, [&](uint32_t i) { return source.key(position + i); }, keys, hd, threadIdx.x, blockDim.x);
        __syncthreads();
        running.score(queries, tile, hd, visible, weights);
        __syncthreads();
        load(tile, [&](uint32_t i) { return source.value(position + i); }, keys, hd, threadIdx.x, blockDim.x);
        __syncthreads();
        running.add(tile, hd, keys, weights);
    }
#pragma unroll
    for (int q = 0; q < QUERIES; q++) {
        uint32_t n = warp * QUERIES + q;
        if (n >= count) break;
        float *row = out + ((size_t)(first + n) * shape.heads + head) * hd;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            if (lane + 32 * c < hd) row[lane + 32 * c] = running.out[q][c] / running.sum[q];
        }
    }
}

#define ATTENTION(bounds, step, name, T, Out, ...)                                                                    \
    extern "C" __global__ void bounds name(                                                                           \
        const T *cache, STRIDES, const uint32_t *tables, const Row *rows, const uint32_t *which, const float *qkv,    \
        const float *angles, Out *out, uint32_t width, uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {        \
        step<T, __VA_ARGS__>(cache, {block, value, head, token, block_tokens}, tables, rows, which, qkv, angles, out, \
                             {width, heads, kv_heads, head_dim});                                                     \
    }
#define DECODE(name, T)                                                                                               \
    ATTENTION(, decode, decode_##name##_1, T, float, 1)                                                                 \
    ATTENTION(, decode, decode_##name##_2, T, float, 2)                                                                 \
    ATTENTION(, decode, decode_##name##_4, T, float, 4)                                                                 \
    ATTENTION(, decode, decode_##name##_8, T, float, 8)
DECODE(f32, float)
DECODE(f16, __half)
DECODE(bf16, __nv_bfloat16)
DECODE(int8, Int8)
DECODE(fp8, Fp8)
// Single rows on tensor cores, a block a worker. So many times of keys and values of a warp are on their way: that of others is while
// one is used.
constexpr int AHEAD = 1;
#define DECODE_PRODUCTS(name, T, Out, HD)                                                                             \
    extern "C" __global__ void __launch_bounds__(single::THREADS) decode_products_##name##_##HD(                      \
        T *cache, STRIDES, const uint32_t *tables, const Row *rows, const uint32_t *which, uint32_t count,            \
        const float *qkv, const float *angles, float *parts, Out *out, uint32_t width, uint32_t heads,                \
        uint32_t kv_heads, uint32_t stores) {                                                                         \
        extern __shared__ float4 shared[];                                                                            \
        auto &own = *reinterpret_cast<single::Shared<T, HD, AHEAD> *>(shared);                                        \
        let_next_start();                                                                                             \
        const single::Step<T, Out> step{cache, {block, value, head, token, block_tokens}, tables, rows, which, count, \
                                        qkv, angles, parts, out, {width, heads, kv_heads, HD}, stores != 0};          \
        single::attend<HD, AHEAD>(step, blockIdx.x, gridDim.x, own, wait_for_last);                                   \
    }
#define WIDTHS(name, T, Out)                                                                                          \
    DECODE_PRODUCTS(name, T, Out, 64)                                                                                 \
    DECODE_PRODUCTS(name, T, Out, 96)                                                                                 \
    DECODE_PRODUCTS(name, T, Out, 128)
WIDTHS(f16_f32, __half, float)
WIDTHS(f16_f16, __half, __half)
WIDTHS(bf16_f32, __nv_bfloat16, float)
WIDTHS(bf16_bf16, __nv_bfloat16, __nv_bfloat16)
#define SCALED_WIDTHS(name, T)                                                                                        \
    WIDTHS(name##_f32, T, float)                                                                                      \
    WIDTHS(name##_f16, T, __half)                                                                                     \
    WIDTHS(name##_bf16, T, __nv_bfloat16)
SCALED_WIDTHS(int8, Int8)
SCALED_WIDTHS(fp8, Fp8)
ATTENTION(, prefill_exact, prefill_f32, float, float, MOST)
#define PREFILL(name, T, Out)                                                                                         \
    ATTENTION(FLASH_BOUNDS(64), prefill, prefill_##name##_64, T, Out, Out, 64)                                        \
    ATTENTION(FLASH_BOUNDS(128), prefill, prefill_##name##_128, T, Out, Out, 128)
PREFILL(f16_f32, __half, float)
PREFILL(f16_f16, __half, __half)
PREFILL(bf16_f32, __nv_bfloat16, float)
PREFILL(bf16_bf16, __nv_bfloat16, __nv_bfloat16)
#define SCALED_PREFILL(name, T)                                                                                       \
    PREFILL(name##_f32, T, float)                                                                                     \
    PREFILL(name##_f16, T, __half)                                                                                    \
    PREFILL(name##_bf16, T, __nv_bfloat16)
SCALED_PREFILL(int8, Int8)
SCALED_PREFILL(fp8, Fp8)
