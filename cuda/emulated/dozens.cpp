// Products of some dozen rows in 16 bits, by clusters of blocks, against sums in f64.
#include "machine.h"

#include "kernels/dozens.cu"

namespace {

using Half = __half;
std::mt19937 chance(5);

std::vector<Half> halves(size_t count, float spread) {
    std::normal_distribution<float> one(0, spread);
    std::vector<Half> numbers(count);
    for (Half &number : numbers) number = __float2half(one(chance));
    return numbers;
}

struct Case {
    What what;
    uint32_t rows, inner, outer, ranks, clusters, slots;
};

template <int TILES> void launch(const Case &of, const Half *w, const Half *x, const float *bias, void *y) {
    machine::cluster_size = of.ranks;
    machine::launch({of.ranks * of.clusters}, dozens::THREADS, true, [&] {
        const dozens::Sizes sizes{of.inner, of.outer, of.rows, of.ranks, of.slots};
        auto wait = [] {};
        if (of.what == PLAIN) dozens::products<PLAIN, TILES>(w, x, bias, y, sizes, wait);
        if (of.what == ADDED) dozens::products<ADDED, TILES>(w, x, bias, y, sizes, wait);
        if (of.what == GATED) dozens::products<GATED, TILES>(w, x, bias, y, sizes, wait);
    });
    machine::cluster_size = 1;
}

bool holds(const Case &of) {
    const size_t outputs = of.what == GATED ? 2 * of.outer : of.outer, count = size_t(of.rows) * of.outer;
    std::vector<Half> w = halves(outputs * of.inner, 1 / std::sqrt(of.inner)), x = halves(of.rows * of.inner, 1);
    std::normal_distribution<float> one;
    std::vector<float> bias(of.outer), before(count), y;
    for (float &number : bias) number = of.what == PLAIN ? one(chance) : 0;
    for (float &number : before) number = one(chance);
    y = before;
    std::vector<Half> gated(count);
    void *to = of.what == GATED ? static_cast<void *>(gated.data()) : y.data();
    auto run = of.rows <= 16 ? launch<2> : of.rows <= 32 ? launch<4> : launch<8>;
    run(of, w.data(), x.data(), of.what == PLAIN ? bias.data() : nullptr, to);
    auto sum = [&](size_t row, size_t output) {
        double all = 0;
        for (size_t k = 0; k < of.inner; k++) all += double(__half2float(w[output * of.inner + k])) * __half2float(x[row * of.inner + k]);
        return all;
    };
    double wrong = 0;
    for (size_t row = 0; row < of.rows; row++) {
        for (size_t j = 0; j < of.outer; j++) {
            double want = sum(row, j) + bias[j], got = y[row * of.outer + j];
            if (of.what == ADDED) want += before[row * of.outer + j];
            if (of.what == GATED) {
                want = want / (1 + std::exp(-want)) * sum(row, of.outer + j), got = __half2float(gated[row * of.outer + j]);
            }
            double apart = std::abs(got - want) / (1 + std::abs(want));
            wrong = std::isnan(apart) ? INFINITY : std::max(wrong, apart);
        }
    }
    const bool good = wrong < (of.what == GATED ? 1e-3 : 1e-5);
    if (!good) {
        printf("WRONG: %d: %u rows of %u numbers, %u outputs, %u clusters of %u blocks: %.1e\n", of.what, of.rows, of.inner,
               of.outer, of.clusters, of.ranks, wrong);
    }
    return good;
}

} // namespace

int main() {
    int cases = 0, wrong = 0;
    auto check = [&](const Case &of) { cases++, wrong += !holds(of); };
    // All of a slice in memory, and several tiles of a warp; slices that are no whole pieces; one tile, and pieces that replace
    // each other; sizes that are no multiples.
    check({PLAIN, 16, 1024, 300, 2, 1, 4});
    check({PLAIN, 9, 1352, 130, 2, 2, 4});
    check({ADDED, 33, 4000, 100, 2, 1, 4});
    check({ADDED, 64, 640, 264, 4, 1, 4});
    check({PLAIN, 12, 2304, 300, 2, 1, 5});
    check({PLAIN, 20, 328, 700, 4, 1, 4});
    check({GATED, 32, 768, 200, 4, 2, 4});
    check({GATED, 50, 2056, 50, 2, 2, 5});
    check({PLAIN, 40, 512, 5, 8, 1, 4});
    printf("dozens: %d cases, %d wrong\n", cases, wrong);
    return wrong;
}
