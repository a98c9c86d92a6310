// What a GPU does that C++ has no words for.
#pragma once
#include "element.cuh"

// 16 bytes of weights, which no other block reads.
__device__ __forceinline__ uint4 stream(const void *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// Brings a line into the cache.
__device__ __forceinline__ void prefetch(const void *from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

// 16 bytes on their way to shared memory; zeros where `is` is false.
__device__ __forceinline__ void send(void *to, const void *from, bool is) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to), bytes = is ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void send(uint4 *to, const void *from) { send(to, from, true); }
// 8 of them, and 4.
__device__ __forceinline__ void send(uint2 *to, const void *from) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(at), "l"(from) : "memory");
}
__device__ __forceinline__ void send(float *to, const void *from) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
}
// Ends a batch of what this thread sends.
__device__ __forceinline__ void sent() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last `LEFT` batches have come.
template <int LEFT> __device__ __forceinline__ void arrived() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// c += a · b: a of 16 rows and 16 columns, b of 16 and 8.
#define PRODUCT(T, name)                                                                                              \
    __device__ __forceinline__ void product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {     \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                           \
                     ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                           \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                 \
    }
PRODUCT(__half, "f16")
PRODUCT(__nv_bfloat16, "bf16")
#undef PRODUCT

// a · b of integers in 8 bits: a of 16 rows and 32 columns, b of 32 and 8.
__device__ __forceinline__ void product(int (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%10, %10, %10, %10};"
                 : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1), "r"(0));
}

// Four matrices of 8 by 8 numbers; a thread points to a row of 16 bytes.
__device__ __forceinline__ void matrices(uint32_t (&to)[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void transposed(uint32_t (&to)[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

// The transpose of eight rows of eight numbers: a thread has two side by side of row t / 4, of which column it gets two.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
    uint32_t other;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(other) : "r"(pair));
    return other;
}

// 2 to the power of what is not positive; what is too small to matter becomes zero.
__device__ __forceinline__ float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Until all of this thread's group of so many threads, of which a block has several, have come.
template <int THREADS> __device__ __forceinline__ void group_together() {
    asm volatile("bar.sync %0, %1;" ::"r"(threadIdx.x / THREADS + 1), "n"(THREADS) : "memory");
}

// The same of the first so many threads of a block, which are whole warps.
template <int THREADS> __device__ __forceinline__ void first_together() {
    asm volatile("bar.sync 8, %0;" ::"n"(THREADS) : "memory");
}

// A barrier in shared memory, for which `count` come, time after time; and all that have begun, before anybody comes.
__device__ __forceinline__ uint32_t in_shared(const void *at) { return (uint32_t)__cvta_generic_to_shared(at); }
__device__ __forceinline__ void barrier_begins(uint64_t *barrier, uint32_t count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(in_shared(barrier)), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_come(uint64_t *barrier) {
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(in_shared(barrier)) : "memory");
}
// Comes when all that this thread has sent is there.
__device__ __forceinline__ void barrier_come_with_sent(uint64_t *barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(in_shared(barrier)) : "memory");
}
// Until all have come for a time: that of the parity 0 is the first, that of 1 the one before it and the second.
__device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity) {
    uint32_t come;
    do {
        asm volatile("{\n.reg .pred p;\n"
#if __CUDA_ARCH__ >= 900
                     "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
#else
                     "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
#endif
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(come)
                     : "r"(in_shared(barrier)), "r"(parity)
                     : "memory");
    } while (!come);
}

// One more, which all that was written before is seen with; and how many there are, with all that was written before those.
__device__ __forceinline__ void released(uint32_t *count) {
    asm volatile("fence.acq_rel.gpu;\nred.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}
__device__ __forceinline__ uint32_t acquired(const uint32_t *count) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(count) : "memory");
    return value;
}
// Both at once: one more, and how many there were before.
__device__ __forceinline__ uint32_t counted(uint32_t *count) {
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(count) : "memory");
    return before;
}
