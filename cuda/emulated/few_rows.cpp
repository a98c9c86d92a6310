// Products of few rows with weights in 16 bits, which come in a ring: against sums in f64.
#include "machine.h"

#include "kernels/few_rows.cu"

namespace {

using Numbers = std::vector<float>;
using Half = __half;
using Halves = std::vector<Half>;
using Multiply = void (*)(const Half *, const Half *, const float *, void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                          uint32_t, uint32_t);

std::mt19937 chance(5);

struct Case {
    What what;
    size_t rows, inner, outer, phase;
    unsigned blocks;
    uint32_t stages;
    bool biased;
};

Numbers normal(size_t count, float spread) {
    std::normal_distribution<float> one;
    Numbers numbers(count);
    for (float &number : numbers) number = spread * one(chance);
    return numbers;
}

// What a product, or of a gated one the gate and its partner, give.
double product(const Case &of, const Halves &w, const Halves &x, size_t row, size_t output) {
    double sum = 0;
    for (size_t k = 0; k < of.inner; k++) sum += double(__half2float(w[output * of.inner + k])) * __half2float(x[row * of.inner + k]);
    return sum;
}

bool holds(const Case &of) {
    // Memory behind the numbers is watched.
    auto halves = [](const Numbers &numbers) {
        Halves rounded;
        for (float number : numbers) rounded.push_back(__float2half(number));
        return rounded;
    };
    const size_t outputs = of.what == GATED ? 2 * of.outer : of.outer;
    const Halves w = halves(normal(outputs * of.inner, 1)), x = halves(normal(of.rows * of.inner, 1 / std::sqrt(float(of.inner))));
    const Numbers bias = normal(of.outer, 1), before = normal(of.rows * of.outer, 1);
    Numbers sums = before;
    Halves gated(of.rows * of.outer);
    void *y = of.what == GATED ? static_cast<void *>(gated.data()) : sums.data();
    const Multiply kernel = of.what == PLAIN ? few_rows_f16_plain : of.what == ADDED ? few_rows_f16_added : few_rows_f16_gated;
    const uint32_t kept = (of.outer / 8 / of.blocks + 2) * few::SUMS * sizeof(float);
    const uint32_t rows_at = ring::BARRIERS + 2 * ring::WARPS * few::SUMS * sizeof(float) + (kept + 127) / 128 * 128;
    const uint32_t stages_at = rows_at + (of.rows * (of.phase + few::PAD) * sizeof(Half) + 127) / 128 * 128;
    machine::launch({of.blocks}, ring::THREADS, false, [&] {
        kernel(w.data(), x.data(), of.biased ? bias.data() : nullptr, y, of.inner, of.outer, of.rows, of.phase, rows_at, stages_at,
               of.stages);
    });
    double wrong = 0;
    for (size_t row = 0; row < of.rows; row++) {
        for (size_t j = 0; j < of.outer; j++) {
            double want = product(of, w, x, row, j), got = sums[row * of.outer + j], limit = 1e-4;
            if (of.what == GATED) {
                want = want / (1 + std::exp(-want)) * product(of, w, x, row, of.outer + j);
                got = __half2float(gated[row * of.outer + j]), limit = 1e-3 * (1 + std::abs(want));
            } else {
                want += (of.biased ? bias[j] : 0) + (of.what == ADDED ? before[row * of.outer + j] : 0);
            }
            const double apart = std::abs(got - want) / limit;
            wrong = std::isnan(apart) ? INFINITY : std::max(wrong, apart);
        }
    }
    if (wrong < 1) return true;
    printf("WRONG: %zu rows of %zu to %zu (%d), %u blocks, %u stages: %.1e times what is allowed\n", of.rows, of.inner, of.outer,
           of.what, of.blocks, of.stages, wrong);
    return false;
}

} // namespace

int main() {
    int cases = 0, wrong = 0;
    for (What what : {PLAIN, ADDED, GATED}) {
        const bool biased = what != GATED;
        // Rows whole and in parts, none and some a multiple of what a stage has; tiles whole and not, fewer than blocks as well.
        for (const Case &of : {Case{what, 1, 512, 32, 512, 2, 3, biased}, Case{what, 8, 520, 90, 1024, 3, 2, biased},
                               Case{what, 3, 1600, 50, 512, 2, 4, false}, Case{what, 5, 8, 7, 512, 9, 2, biased},
                               Case{what, 2, 2048, 33, 1024, 1, 5, biased}}) {
            cases++, wrong += !holds(of);
        }
    }
    printf("few_rows: %d cases, %d wrong\n", cases, wrong);
    return wrong;
}
