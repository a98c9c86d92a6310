// Weights on their way to shared memory, a ring of stages: some warps of a block send stage after stage as soon as there is
// room, and never wait for anything else; the others use them. So the memory has work while those wait for other blocks.
#pragma once
#include "instructions.cuh"

namespace ring {

// Threads that use weights, and those that send them.
constexpr int WARPS = 8, CONSUMERS = WARPS * 32, PRODUCERS = 128, THREADS = CONSUMERS + PRODUCERS;
constexpr int MOST_STAGES = 16;
// Bytes that the barriers of the stages have.
constexpr int BARRIERS = 2 * MOST_STAGES * 8;

struct Ring {
    uint64_t *full, *empty;
    uint8_t *stages;
    uint32_t count, bytes; // of a stage
    uint32_t at = 0, parity = 0;

    __device__ __forceinline__ Ring(uint8_t *barriers, uint8_t *stages, uint32_t count, uint32_t bytes)
        : full(reinterpret_cast<uint64_t *>(barriers)), empty(full + MOST_STAGES), stages(stages), count(count), bytes(bytes) {}
    // By all threads, before anything is sent.
    __device__ __forceinline__ void begin() const {
        if (threadIdx.x < count) {
            barrier_begins(full + threadIdx.x, PRODUCERS);
            barrier_begins(empty + threadIdx.x, WARPS);
        }
        __syncthreads();
    }
    __device__ __forceinline__ void next() {
        if (++at == count) at = 0, parity ^= 1;
    }

    // Where the next stage is to be sent, as soon as it has been used by all.
    __device__ __forceinline__ uint8_t *room() const {
        barrier_wait(empty + at, parity ^ 1);
        return stages + at * bytes;
    }
    // Each producer has sent its part of it.
    __device__ __forceinline__ void sent() {
        barrier_come_with_sent(full + at);
        next();
    }

    // The next stage, as soon as it is there.
    __device__ __forceinline__ const uint8_t *stage() const {
        barrier_wait(full + at, parity);
        return stages + at * bytes;
    }
    // This warp needs it no more.
    __device__ __forceinline__ void used() {
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_come(empty + at);
        next();
    }
};

// What products have beside the ring: sums of warps, twice, since one tile's are written while another's are read; sums of
// tiles that go on with the next part of x; and that.
struct Room {
    float *sums, *kept;
    uint8_t *rows;
};

// This one of those who send, the producers.
__device__ __forceinline__ uint32_t producer() { return threadIdx.x - CONSUMERS; }
// Until what this one has sent is there: nobody may leave before.
__device__ __forceinline__ void all_sent() { sent(), arrived<0>(); }
// All who use what is sent, the consumers.
__device__ __forceinline__ void consumers_together() { first_together<CONSUMERS>(); }

} // namespace ring
