// Products with quantised weights: packed, unpacked, widened, and multiplied with few rows, against sums in f64 over the numbers of
// the blocks of GGUF and rows as they are rounded.
#include "machine.h"

#include "kernels/few_quantised.cu"
#include "kernels/pack.cu"
#include "kernels/widen.cu"

#include "blocks.h"

namespace {

using Numbers = std::vector<float>;
using gguf::Bytes;
using gguf::Format;

using Multiply = void (*)(const uint8_t *, const void *, const float *, float *, uint32_t, uint32_t, uint32_t, uint32_t);
using Fewest = void (*)(const uint8_t *, const void *, const float *, float *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                        uint32_t, uint32_t, uint32_t);
using Round = void (*)(const float *, uint8_t *, uint32_t, uint32_t, uint32_t);
using Pack = void (*)(uint16_t *, uint8_t *, uint32_t, size_t, uint32_t);
using Widen = void (*)(const uint8_t *, float *, uint32_t, uint32_t, size_t);

// The kernels of a format, for 8, 16, 32 and 64 rows.
struct Kernels {
    Format format;
    Pack pack;
    Widen widen;
    Round round[4];
    Fewest fewest[3];
    Multiply multiply[3][3];
    uint32_t stage; // bytes of one of the ring for the fewest
};

#define MULTIPLY(name, rows) {few_##name##_##rows##_plain, few_##name##_##rows##_added, few_##name##_##rows##_gated}
#define KERNELS(name, F)                                                                                              \
    {                                                                                                                 \
        FORMAT(name, F), pack_##name, widen_##name,                                                                   \
            {round_##name##_8, round_##name##_16, round_##name##_32, round_##name##_64},                              \
            MULTIPLY(name, 8), {MULTIPLY(name, 16), MULTIPLY(name, 32), MULTIPLY(name, 64)},                          \
            streamed_quantised::STAGE<packed::F>                                                                      \
    }
const Kernels KERNELS_OF_EACH[] = {KERNELS(q8_0, Q8_0), KERNELS(q4_0, Q4_0), KERNELS(q4_k, Q4_K)};

struct Case {
    const Kernels &kernels;
    What what;
    size_t rows, inner, outer, phase;
    unsigned blocks;
    bool rounded;        // before the product, by a kernel of its own
    uint32_t stages = 3; // of the ring, of the fewest

    size_t outputs() const { return what == GATED ? 2 * outer : outer; }
};

std::mt19937 chance(7);

Numbers normal(size_t count) {
    std::normal_distribution<float> one;
    Numbers numbers(count);
    for (float &number : numbers) number = one(chance);
    return numbers;
}

float weight(const Case &of, const Bytes &blocks, size_t output, size_t k) {
    return of.kernels.format.weight(blocks, output, of.inner, k);
}

bool packs(const Case &of, Bytes &blocks, uint8_t *packed) {
    size_t words = blocks.size() / 2, first = 3, fours = (of.outputs() - first) * of.inner / 4;
    Bytes again(blocks.size());
    Numbers wide(fours * 4);
    auto each = [](size_t count, std::function<void()> kernel) {
        machine::launch({unsigned(count + 255) / 256}, 256, false, std::move(kernel));
    };
    auto words_of = [](Bytes &bytes) { return reinterpret_cast<uint16_t *>(bytes.data()); };
    each(words, [&] { of.kernels.pack(words_of(blocks), packed, of.inner, words, 0); });
    each(words, [&] { of.kernels.pack(words_of(again), packed, of.inner, words, 1); });
    each(fours, [&] { of.kernels.widen(packed, wide.data(), first, of.inner, fours); });
    for (size_t n = 0; n < wide.size(); n++) {
        if (std::abs(wide[n] - weight(of, blocks, first + n / of.inner, n % of.inner)) > 1e-5f) return false;
    }
    return again == blocks;
}

// How far products are from what they should be, as a part of the largest.
double error(const Case &of, const Bytes &blocks, const Numbers &x, const Numbers &bias, const Numbers &y) {
    std::vector<double> rows = gguf::rounded(of.kernels.format, x.data(), x.size());
    double worst = 0, largest = 0;
    for (size_t row = 0; row < of.rows; row++) {
        auto dot = [&](size_t output) {
            double sum = 0;
            for (size_t k = 0; k < of.inner; k++) sum += rows[row * of.inner + k] * weight(of, blocks, output, k);
            return sum;
        };
        for (size_t o = 0; o < of.outer; o++) {
            double want = dot(o);
            if (of.what == GATED) {
                want = want / (1 + exp(-want)) * dot(of.outer + o);
            } else {
                want += bias[o] + (of.what == ADDED ? 1 : 0);
            }
            double got = y[row * of.outer + o];
            worst = std::isnan(got) ? INFINITY : std::max(worst, std::abs(got - want));
            largest = std::max(largest, std::abs(want));
        }
    }
    return worst / largest;
}

bool holds(const Case &of) {
    const Format &format = of.kernels.format;
    const int size = of.rows <= 8 ? 0 : of.rows <= 16 ? 1 : of.rows <= 32 ? 2 : 3;
    const size_t parts = (of.inner + of.phase - 1) / of.phase;
    Bytes blocks = gguf::random(format, of.outputs(), of.inner, 0.01f, chance);
    machine::Aligned packed(format.packed(of.outputs(), of.inner), 0);
    const bool is_packed = packs(of, blocks, packed.at);
    Numbers x = normal(of.rows * of.inner), bias = normal(of.outer), y(of.rows * of.outer, 1.f);
    // Whatever the format: a number and what goes with it for each row that there is room for.
    machine::Aligned image(parts * of.phase * (8 << size) * 3, 0xaa);
    if (of.rounded) {
        machine::launch({2, unsigned(parts)}, 64, false,
                        [&] { of.kernels.round[size](x.data(), image.at, of.inner, of.rows, of.phase); });
    }
    const void *rows = of.rounded ? static_cast<void *>(image.at) : x.data();
    const float *added = of.what == GATED ? nullptr : bias.data();
    auto product = [&](size_t threads, auto kernel, auto... more) {
        machine::launch({of.blocks}, threads, false, [&] {
            kernel(packed.at, rows, added, y.data(), of.inner, of.outer, of.rows, of.phase, more...);
        });
    };
    if (size > 0) {
        product(few_quantised::THREADS, of.kernels.multiply[size - 1][of.what]);
    } else {
        const uint32_t rows_at = 16 << 10, stages_at = rows_at + of.phase * 12;
        product(ring::THREADS, of.kernels.fewest[of.what], uint32_t(of.rounded), rows_at, stages_at, of.stages);
    }
    const double wrong = error(of, blocks, x, bias, y);
    const bool good = is_packed && wrong < 1e-4;
    if (!good) {
        printf("WRONG: %s, %zu rows of %zu in %zu parts, %zu outputs%s, %u blocks, rounded %s: %s by %.1e\n", format.name,
               of.rows, of.inner, parts, of.outer, of.what == GATED ? " gated" : of.what == ADDED ? " added" : "", of.blocks,
               of.rounded ? "before" : "within", is_packed ? "products" : "packed", wrong);
    }
    return good;
}

} // namespace

int main() {
    int cases = 0, wrong = 0;
    auto check = [&](const Case &of) { cases++, wrong += !holds(of); };
    for (const Kernels &kernels : KERNELS_OF_EACH) {
        const size_t width = kernels.format.width, whole = kernels.format.numbers, part = 2 * width + whole;
        int turn = 0;
        for (size_t rows : {1, 2, 7, 13, 27, 50}) {
            const What what = What(turn++ % 3);
            const size_t outer = what == GATED ? 24 : 21;
            check({kernels, what, rows, part, outer, 3 * width, 3, true});
            check({kernels, what, rows, 9 * whole, outer, 2 * width, 2, true});
            if (rows == 2 || rows == 7) check({kernels, what, rows, part, outer, 2 * width, 3, false});
        }
        // More chunks than warps, and more blocks than tiles.
        check({kernels, PLAIN, 2, 35 * width + whole, 16, 36 * width, 4, false, 2});
    }
    printf("few_quantised: %d cases, %d wrong\n", cases, wrong);
    return wrong;
}
