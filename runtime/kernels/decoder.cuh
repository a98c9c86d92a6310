// All layers of a decoder with quantised weights for up to eight single rows, in one kernel: blocks that are all there at the same
// time, one a multiprocessor, do one product or attention after the other together. Some warps of a block send weights all the time,
// as far ahead as there is room (ring.cuh); so the memory has work while the others wait for other blocks: between kernels it has
// none, for as long as the last block of one and the first read of the next take.
#pragma once
#include "single.cuh"
#include "streamed_quantised.cuh"
#include "together.cuh"

namespace decoder {

using ring::Ring;
using ring::Room;

// Weights and cache of one layer, and where they are in the memory of all.
template <typename T> struct Layer {
    const float *input_norm;
    const uint8_t *qkv;
    const float *qkv_bias; // or none
    T *cache;
    const uint8_t *out;
    const float *post_norm;
    const uint8_t *gate_up, *down;
};

struct Sizes {
    uint32_t rows, width, heads, kv_heads, inner; // of the stream, of attention, and of what is gated
    uint32_t phases[3]; // numbers of the stream, of what is mixed and gated that are in shared memory at a time
    float eps;
};

// What steps leave each other.
struct Rooms {
    float *stream, *qkv, *mixed, *gated;
};

template <typename F, typename T, int HD> struct Decoder {
    using Products = few_quantised::Sizes;
    using Step = single::Step<T, float>;
    const Sizes &of;
    const Rooms &rooms;
    const Room &room;
    Ring &ring;
    Grid<ring::CONSUMERS> grid;

    // Sizes of the products of a layer.
    __device__ __forceinline__ Products qkv() const {
        return {of.width, (of.heads + 2 * of.kv_heads) * HD, of.rows, of.phases[0]};
    }
    __device__ __forceinline__ Products out() const { return {of.heads * HD, of.width, of.rows, of.phases[1]}; }
    __device__ __forceinline__ Products gate_up() const { return {of.width, of.inner, of.rows, of.phases[0]}; }
    __device__ __forceinline__ Products down() const { return {of.inner, of.width, of.rows, of.phases[2]}; }

    __device__ __forceinline__ void send(const Layer<T> &layer) const {
        streamed_quantised::send<F, PLAIN>(layer.qkv, qkv(), ring);
        streamed_quantised::send<F, ADDED>(layer.out, out(), ring);
        streamed_quantised::send<F, GATED>(layer.gate_up, gate_up(), ring);
        streamed_quantised::send<F, ADDED>(layer.down, down(), ring);
    }

    // Attention of all rows, of which each group of threads has its share, where sums and rows of products are else.
    __device__ __forceinline__ void attend(const Step &step) {
        constexpr uint32_t GROUPS = ring::CONSUMERS / single::THREADS;
        const uint32_t own = threadIdx.x / single::THREADS;
        auto &shared = reinterpret_cast<single::Shared<T, HD, 1> *>(room.sums)[own];
        // Those are read no longer.
        ring::consumers_together();
        single::attend<HD, 1>(step, blockIdx.x + own * gridDim.x, gridDim.x * GROUPS, shared, [&] { grid.together(); });
    }

    template <int WHAT, typename Source>
    __device__ __forceinline__ void products(const Source &x, const float *bias, float *y, const Products &sizes) {
        grid.together();
        streamed_quantised::products<F, WHAT>(x, bias, y, sizes, room, ring);
    }

    __device__ __forceinline__ void layer(const Layer<T> &layer, Step &step) {
        const streamed_quantised::Normed before{{rooms.stream, layer.input_norm, of.eps}};
        const streamed_quantised::Normed behind{{rooms.stream, layer.post_norm, of.eps}};
        products<PLAIN>(before, layer.qkv_bias, rooms.qkv, qkv());
        step.cache = layer.cache;
        attend(step);
        products<ADDED>(streamed_quantised::Given{rooms.mixed, false}, nullptr, rooms.stream, out());
        products<GATED>(behind, nullptr, rooms.gated, gate_up());
        products<ADDED>(streamed_quantised::Given{rooms.gated, false}, nullptr, rooms.stream, down());
    }
};

} // namespace decoder

// A kernel for weights in F, a cache of T and heads of HD numbers. Shared memory begins with barriers and sums; rows of
// products are at byte `rows_at` of it, and so many stages of the ring at byte `stages_at`.
#define DECODER(name, F, T, HD)                                                                                       \
    extern "C" __global__ void __launch_bounds__(ring::THREADS, 1) name(                                              \
        const decoder::Layer<T> *model, uint32_t layers, uint32_t count, uint32_t width, uint32_t heads,              \
        uint32_t kv_heads, uint32_t inner, uint32_t phase_width, uint32_t phase_mixed, uint32_t phase_inner,          \
        uint32_t rows_at, uint32_t stages_at, uint32_t stages, float eps, STRIDES, const uint32_t *tables,            \
        const Row *rows, const uint32_t *which, const float *angles, float *stream, float *qkv, float *parts,         \
        float *mixed, float *gated, uint32_t *arrived) {                                                              \
        extern __shared__ uint4 shared[];                                                                             \
        uint8_t *memory = reinterpret_cast<uint8_t *>(shared);                                                        \
        float *sums = reinterpret_cast<float *>(memory + ring::BARRIERS);                                             \
        const decoder::Sizes of{count, width, heads, kv_heads, inner, {phase_width, phase_mixed, phase_inner}, eps};  \
        const decoder::Rooms rooms{stream, qkv, mixed, gated};                                                        \
        const decoder::Room room{sums, sums + 2 * ring::WARPS * streamed_quantised::SUMS, memory + rows_at};          \
        ring::Ring ring(memory, memory + stages_at, stages, streamed_quantised::STAGE<F>);                            \
        ring.begin();                                                                                                 \
        decoder::Decoder<F, T, HD> all{of, rooms, room, ring, {arrived}};                                             \
        if (threadIdx.x >= ring::CONSUMERS) {                                                                         \
            for (uint32_t n = 0; n < layers; n++) all.send(model[n]);                                                 \
            return ring::all_sent();                                                                                  \
        }                                                                                                             \
        single::Step<T, float> step{nullptr, {block, value, head, token, block_tokens}, tables, rows, which,          \
                                             count, qkv, angles, parts, mixed,                                        \
                                             {(heads + 2 * kv_heads) * HD, heads, kv_heads, HD}, true};               \
        for (uint32_t n = 0; n < layers; n++) all.layer(model[n], step);                                              \
        all.grid.leave();                                                                                             \
    }
