// The kernels that go over one row of numbers: norms, gates, caps. Part of kernels.inl.h, which says how it is
// compiled.
//
// Each element's arithmetic is the same wherever in a row it stands, but for the last n % 16 of a norm or a gate, which
// go one by one.

// No include guard: it is included once by kernels.inl.h.

#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu::LANNER_ISA {

// --- elementary functions --------------------------------------------------------------------------------------

LANNER_INLINE F32x16 exponential(F32x16 x) {
  // e^x = 2^n * e^r with |r| <= ln(2)/2, and a polynomial of degree 6 for e^r: 2 units in the last place.
  // The operand order of max and min lets a NaN through.
  const F32x16 clamped = min(set1(88.0F), max(set1(-87.0F), x));
  const F32x16 n = round(mul(clamped, set1(1.44269504F)));
  F32x16 r = fma(n, set1(-0.693359375F), clamped);
  r = fma(n, set1(2.12194440e-4F), r);
  F32x16 p = set1(1.38888889e-3F);
  p = fma(p, r, set1(8.33333333e-3F));
  p = fma(p, r, set1(4.16666667e-2F));
  p = fma(p, r, set1(1.66666667e-1F));
  p = fma(p, r, set1(0.5F));
  p = fma(p, r, set1(1.0F));
  p = fma(p, r, set1(1.0F));
  return zero_below(x, -87.0F, scale_exponent(p, n));
}

LANNER_INLINE F32x16 hyperbolic_tangent(F32x16 x) {
  // tanh(x) = m / (m + 2) with m = e^2x - 1 = 2^n * (e^r - 1) + (2^n - 1), of which nothing cancels: within 4 roundings
  // (4 * 2^-24 of the result) everywhere, also near 0. Exactly 1 or -1 from |x| = 10 on; a NaN stays one.
  const F32x16 twice = min(set1(20.0F), max(set1(-20.0F), add(x, x)));
  const F32x16 n = round(mul(twice, set1(1.44269504F)));
  F32x16 r = fma(n, set1(-0.693359375F), twice);
  r = fma(n, set1(2.12194440e-4F), r);
  F32x16 p = set1(1.98412698e-4F);
  p = fma(p, r, set1(1.38888889e-3F));
  p = fma(p, r, set1(8.33333333e-3F));
  p = fma(p, r, set1(4.16666667e-2F));
  p = fma(p, r, set1(1.66666667e-1F));
  p = fma(p, r, set1(0.5F));
  p = fma(p, mul(r, r), r);
  const F32x16 power = scale_exponent(set1(1.0F), n);
  const F32x16 m = fma(power, p, sub(power, set1(1.0F)));
  return div(m, add(m, set1(2.0F)));
}

LANNER_INLINE F32x16 gelu(F32x16 x) {
  // x * (1 + erf(x / sqrt(2))) / 2 = max(x, 0) - |x| * c with c = erfc(|x| / sqrt(2)) / 2 = e^(-x^2 / 2) * t * P(t),
  // t = 1 / (1 + 0.265 |x|). P is fitted by weighted least squares, to 0.2 * 2^-24 of c for |x| < 13.3, where e^(-x^2 /
  // 2) leaves the range. Within 4 roundings of |x|, and within 12 + x^2 of the result: the square's rounding grows with
  // it.
  const F32x16 size = abs(x);
  const F32x16 t = div(set1(1.0F), fma(set1(0.265F), size, set1(1.0F)));
  F32x16 p = set1(0.0309126265F);
  p = fma(p, t, set1(-0.144662231F));
  p = fma(p, t, set1(0.218686715F));
  p = fma(p, t, set1(-0.117334649F));
  p = fma(p, t, set1(0.138609201F));
  p = fma(p, t, set1(0.0600391403F));
  p = fma(p, t, set1(0.102769971F));
  p = fma(p, t, set1(0.105237097F));
  p = fma(p, t, set1(0.105742119F));
  const F32x16 power = exponential(mul(mul(x, set1(-0.5F)), x));
  return sub(max(zero(), x), mul(size, mul(power, mul(p, t))));
}

// --- norms -----------------------------------------------------------------------------------------------------

static void rms_norm(const float* x, const float* gain, float eps, std::int64_t n, float* out) {
  const std::int64_t whole = n / 16 * 16;
  F32x16 squares = zero();
  for (std::int64_t i = 0; i < whole; i += 16) squares = fma(load(x + i), load(x + i), squares);
  float sum = reduce_add(squares);
  for (std::int64_t i = whole; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0F / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
  for (std::int64_t i = 0; i < whole; i += 16) {
    store(out + i, mul(load(gain + i), mul(load(x + i), set1(scale))));
  }
  for (std::int64_t i = whole; i < n; ++i) out[i] = gain[i] * (x[i] * scale);
}

/// The variance is of differences from the mean, in a second pass: with the mean of squares, a row whose mean is large
/// would lose its digits.
static void layer_norm(const float* x, const float* gain, const float* bias, float eps, std::int64_t n, float* out) {
  const std::int64_t whole = n / 16 * 16;
  F32x16 sums = zero();
  for (std::int64_t i = 0; i < whole; i += 16) sums = add(sums, load(x + i));
  float sum = reduce_add(sums);
  for (std::int64_t i = whole; i < n; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(n);
  F32x16 squares = zero();
  for (std::int64_t i = 0; i < whole; i += 16) {
    const F32x16 difference = sub(load(x + i), set1(mean));
    squares = fma(difference, difference, squares);
  }
  float variance = reduce_add(squares);
  for (std::int64_t i = whole; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0F / __builtin_sqrtf(variance / static_cast<float>(n) + eps);
  for (std::int64_t i = 0; i < whole; i += 16) {
    const F32x16 normed = mul(sub(load(x + i), set1(mean)), set1(scale));
    store(out + i, fma(load(gain + i), normed, bias != nullptr ? load(bias + i) : zero()));
  }
  for (std::int64_t i = whole; i < n; ++i) {
    out[i] = gain[i] * ((x[i] - mean) * scale) + (bias != nullptr ? bias[i] : 0.0F);
  }
}

// --- gates -----------------------------------------------------------------------------------------------------

LANNER_INLINE F32x16 activate(Gate gate, F32x16 x) {
  if (gate == Gate::kGelu) return gelu(x);
  // silu(x) = x / (1 + e^-x); gelu_tanh(x) = x / (1 + e^-2y) with y = sqrt(2/pi) (x + 0.044715 x^3)
  const F32x16 cubic = mul(x, fma(mul(x, x), set1(0.0713548162F), set1(1.59576912F)));
  const F32x16 exponent = gate == Gate::kSilu ? x : cubic;
  return div(x, add(set1(1.0F), exponential(sub(zero(), exponent))));
}

LANNER_INLINE float activate_one(Gate gate, float x) {
  switch (gate) {
    case Gate::kSilu: return x / (1.0F + __builtin_expf(-x));
    case Gate::kGelu: return 0.5F * x * __builtin_erfcf(x * -0.707106781F);
    case Gate::kGeluTanh: break;
  }
  return x / (1.0F + __builtin_expf(-x * (1.59576912F + 0.0713548162F * x * x)));
}

template <Gate kGate>
static void gate_row(const float* g, const float* u, std::int64_t n, float* out) {
  std::int64_t i = 0;
  if (u == nullptr) {
    for (; i + 16 <= n; i += 16) store(out + i, activate(kGate, load(g + i)));
    for (; i < n; ++i) out[i] = activate_one(kGate, g[i]);
    return;
  }
  for (; i + 16 <= n; i += 16) store(out + i, mul(activate(kGate, load(g + i)), load(u + i)));
  for (; i < n; ++i) out[i] = activate_one(kGate, g[i]) * u[i];
}

template <Gate kGate>
static void gate_rows_by(const float* g, const float* u, std::int64_t stride, std::int64_t rows, std::int64_t n,
                         float* out, std::int64_t out_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    gate_row<kGate>(g + r * stride, u == nullptr ? nullptr : u + r * stride, n, out + r * out_stride);
  }
}

static void gate_rows(Gate gate, const float* g, const float* u, std::int64_t stride, std::int64_t rows, std::int64_t n,
                      float* out, std::int64_t out_stride) {
  switch (gate) {
    case Gate::kSilu: return gate_rows_by<Gate::kSilu>(g, u, stride, rows, n, out, out_stride);
    case Gate::kGelu: return gate_rows_by<Gate::kGelu>(g, u, stride, rows, n, out, out_stride);
    case Gate::kGeluTanh: return gate_rows_by<Gate::kGeluTanh>(g, u, stride, rows, n, out, out_stride);
  }
}

// --- rotation ----------------------------------------------------------------------------------------------------

static void rotate(float* head, const float* angles, std::int64_t rotary_dim) {
  const std::int64_t half = rotary_dim / 2;
  const float* cosines = angles;
  const float* sines = angles + half;
  std::int64_t i = 0;
  for (; i + 16 <= half; i += 16) {
    const F32x16 a = load(head + i);
    const F32x16 b = load(head + half + i);
    store(head + i, sub(mul(a, load(cosines + i)), mul(b, load(sines + i))));
    store(head + half + i, add(mul(b, load(cosines + i)), mul(a, load(sines + i))));
  }
  for (; i < half; ++i) {
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[half + i] = b * cosines[i] + a * sines[i];
  }
}

// --- residuals -------------------------------------------------------------------------------------------------

static void add_scaled(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n, float scale, float* out,
                       std::int64_t out_stride) {
  for (std::int64_t r = 0; r < rows; ++r, x += stride, out += out_stride) {
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(out + i, add(load(out + i), mul(set1(scale), load(x + i))));
    for (; i < n; ++i) out[i] += scale * x[i];
  }
}

// --- scores and logits -----------------------------------------------------------------------------------------

static void soft_cap(float* values, std::int64_t n, float cap) {
  for (std::int64_t i = 0; i < n; i += 16) {
    store(values + i, mul(set1(cap), hyperbolic_tangent(div(load(values + i), set1(cap)))));
  }
}

static void add_slope(float* scores, std::int64_t n, float slope, std::int64_t distance) {
  static constexpr float kAscending[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const F32x16 ascending = load(kAscending);
  for (std::int64_t i = 0; i < n; i += 16) {
    const F32x16 away = add(set1(static_cast<float>(distance + i)), ascending);  // exact up to 2^24 tokens
    store(scores + i, fma(set1(slope), away, load(scores + i)));
  }
}

}  // namespace lanner::ops::cpu::LANNER_ISA
