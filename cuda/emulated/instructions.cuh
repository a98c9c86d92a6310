// What runtime/kernels/instructions.cuh has, on the machine of machine.h: as the PTX manual defines it.
#pragma once
#include "element.cuh"

inline uint4 stream(const void *from) { return *static_cast<const uint4 *>(from); }
// A prefetch may ask for what is behind the end; what it asks for here must be there.
inline void prefetch(const void *from) { (void)*static_cast<const volatile char *>(from); }

// What is sent comes at once, or no sooner than somebody waits for it.
inline void send(void *to, const void *from, bool is, size_t bytes = 16) {
    const machine::Sent one{to, from, is, bytes};
    if (machine::chance() % 2) {
        one.come();
    } else {
        machine::now->sent.back().push_back(one);
    }
}
template <typename T> void send(T *to, const void *from) { send(to, from, true, sizeof(T)); }
inline void sent() { machine::now->sent.emplace_back(); }
template <int LEFT> void arrived() {
    auto &batches = machine::now->sent;
    while (batches.size() > LEFT + 1) {
        for (const machine::Sent &one : batches.front()) one.come();
        batches.erase(batches.begin());
    }
}

template <int THREADS> void group_together() {
    machine::meet(machine::block().meetings[threadIdx.x / THREADS + 1], THREADS);
}
template <int THREADS> void first_together() { machine::meet(machine::block().meetings[8], THREADS); }

inline machine::Barrier &barrier(uint64_t *at) {
    static_assert(sizeof(machine::Barrier) == sizeof *at);
    return *reinterpret_cast<machine::Barrier *>(at);
}
inline void barrier_begins(uint64_t *at, uint32_t count) { barrier(at) = {uint16_t(count), uint16_t(count), 0}; }
inline void barrier_come(uint64_t *at) { barrier(at).come(); }
inline void barrier_come_with_sent(uint64_t *at) {
    machine::now->sent.back().push_back({nullptr, nullptr, false, 0, &barrier(at)});
}
inline void barrier_wait(uint64_t *at, uint32_t parity) {
    while (barrier(at).times % 2 == parity) machine::progress(), machine::pause();
}
inline void released(uint32_t *count) { ++*count; }
inline uint32_t counted(uint32_t *count) { return (*count)++; }
inline uint32_t acquired(const uint32_t *count) {
    // Some look late: the others may be far ahead by then.
    for (unsigned n = machine::chance() % 8 ? 1 : machine::chance() % 4000; n > 0; n--) machine::pause();
    return *count;
}
inline float power(float x) { return exp2f(x); }

// Matrices of a product in the registers of a warp: thread 4·g + t has of row, or column, g the numbers from N·t on, and
// those half of a row further, of a also of row g + 8; of c two numbers side by side of either row.
template <typename T, typename Sum, int K> struct Product {
    uint32_t a[4], b[2];
    Sum c[4];

    static Sum number(uint32_t word, int n) {
        constexpr int BITS = 8 * sizeof(T);
        word >>= BITS * n;
        T number;
        memcpy(&number, &word, sizeof number);
        if constexpr (std::is_same_v<T, int8_t>) {
            return number;
        } else {
            return widen(number);
        }
    }
    static void multiply(Product *(&all)[machine::LANES]) {
        constexpr int N = 4 / sizeof(T);
        Sum a[16][K], b[K][8];
        for (unsigned lane = 0; lane < machine::LANES; lane++) {
            for (int n = 0; n < N; n++) {
                unsigned g = lane / 4, k = lane % 4 * N + n;
                for (int half = 0; half < 2; half++) {
                    a[g][k + half * K / 2] = number(all[lane]->a[half * 2], n);
                    a[g + 8][k + half * K / 2] = number(all[lane]->a[half * 2 + 1], n);
                    b[k + half * K / 2][g] = number(all[lane]->b[half], n);
                }
            }
        }
        for (unsigned lane = 0; lane < machine::LANES; lane++) {
            for (int n = 0; n < 4; n++) {
                unsigned row = lane / 4 + n / 2 * 8, column = lane % 4 * 2 + n % 2;
                for (int k = 0; k < K; k++) all[lane]->c[n] += a[row][k] * b[k][column];
            }
        }
    }
};

template <typename T, typename Sum, int K>
void multiplied(Sum (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Product<T, Sum, K> own{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    machine::together<Product<T, Sum, K>>(own, Product<T, Sum, K>::multiply);
    std::copy(own.c, own.c + 4, c);
}
inline void product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half) {
    multiplied<__half, float, 16>(c, a, b0, b1);
}
inline void product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16) {
    multiplied<__nv_bfloat16, float, 16>(c, a, b0, b1);
}
inline void product(int (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
    c[0] = c[1] = c[2] = c[3] = 0;
    multiplied<int8_t, int, 32>(c, {a.x, a.y, a.z, a.w}, b0, b1);
}

// Four matrices of 8 by 8 numbers: thread n has pointed to row n % 8 of matrix n / 8, and has of each two numbers side by
// side of row n / 4, or of column.
struct Matrices {
    const uint16_t *row;
    uint32_t got[4];

    template <bool TRANSPOSED> static void load(Matrices *(&all)[machine::LANES]) {
        for (unsigned lane = 0; lane < machine::LANES; lane++) {
            for (unsigned n = 0; n < 4; n++) {
                uint16_t two[2];
                for (unsigned i = 0; i < 2; i++) {
                    unsigned row = lane / 4, column = lane % 4 * 2 + i;
                    if (TRANSPOSED) std::swap(row, column);
                    two[i] = all[n * 8 + row]->row[column];
                }
                all[lane]->got[n] = two[0] | uint32_t(two[1]) << 16;
            }
        }
    }
};
template <bool TRANSPOSED> void loaded(uint32_t (&to)[4], const void *row) {
    Matrices own{static_cast<const uint16_t *>(row), {}};
    machine::together<Matrices>(own, Matrices::load<TRANSPOSED>);
    std::copy(own.got, own.got + 4, to);
}
inline void matrices(uint32_t (&to)[4], const void *row) { loaded<false>(to, row); }
inline void transposed(uint32_t (&to)[4], const void *row) { loaded<true>(to, row); }

struct Transposed {
    uint32_t pair;

    static void transpose(Transposed *(&all)[machine::LANES]) {
        uint16_t matrix[8][8];
        for (unsigned lane = 0; lane < machine::LANES; lane++) {
            uint16_t *two = &matrix[lane / 4][lane % 4 * 2];
            two[0] = uint16_t(all[lane]->pair), two[1] = uint16_t(all[lane]->pair >> 16);
        }
        for (unsigned lane = 0; lane < machine::LANES; lane++) {
            unsigned row = lane % 4 * 2, column = lane / 4;
            all[lane]->pair = matrix[row][column] | uint32_t(matrix[row + 1][column]) << 16;
        }
    }
};
inline uint32_t transposed(uint32_t pair) {
    Transposed own{pair};
    machine::together<Transposed>(own, Transposed::transpose);
    return own.pair;
}
