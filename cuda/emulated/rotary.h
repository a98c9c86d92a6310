// Rotary positions, half-split, in f64.
#pragma once
#include <cmath>
#include <vector>

// Cosines and then sines of each position.
inline std::vector<float> angles_of(size_t positions, size_t width) {
    std::vector<float> angles(positions * width);
    const size_t half = width / 2;
    for (size_t n = 0; n < positions * half; n++) {
        float angle = n / half * std::pow(10000.f, -float(n % half) / half);
        float *cosine = &angles[n / half * width + n % half];
        cosine[0] = std::cos(angle), cosine[half] = std::sin(angle);
    }
    return angles;
}

// A head at the position of these angles.
template <typename Number> std::vector<double> turned(const Number *head, const float *angles, size_t width) {
    std::vector<double> y(width);
    const size_t half = width / 2;
    for (size_t n = 0; n < half; n++) {
        double low = head[n], high = head[n + half];
        y[n] = low * angles[n] - high * angles[n + half], y[n + half] = high * angles[n] + low * angles[n + half];
    }
    return y;
}
