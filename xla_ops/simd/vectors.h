// Vectors of floats on GCC/Clang vector extensions: one source for SSE2, AVX2, AVX-512,
// NEON and WebAssembly.
//
// SPARSEJAX_TARGET names the instruction set (it becomes a namespace, so that no inline function
// compiled with wider instructions is ever merged into another target's code) and SPARSEJAX_LANES
// its vector width. For the same reason kernel sources use no templates of the standard library.
#pragma once
#include <cstdint>
#ifdef __aarch64__
#include <arm_neon.h>
#endif

#define SPARSEJAX_INLINE inline __attribute__((always_inline))
#ifndef SPARSEJAX_REGISTERS
#if defined(__AVX512F__) || defined(__aarch64__)
#define SPARSEJAX_REGISTERS 32
#else
#define SPARSEJAX_REGISTERS 16
#endif
#endif

namespace sparsejax::SPARSEJAX_TARGET {

typedef float Vec4 __attribute__((vector_size(16)));
typedef float Vec8 __attribute__((vector_size(32)));
typedef float Vec16 __attribute__((vector_size(64)));
typedef int32_t Ints16 __attribute__((vector_size(64)));

template <int lanes>
struct VecOf;
template <>
struct VecOf<4> {
  typedef Vec4 type;
};
template <>
struct VecOf<8> {
  typedef Vec8 type;
};
template <>
struct VecOf<16> {
  typedef Vec16 type;
};

constexpr int kLanes = SPARSEJAX_LANES;
typedef VecOf<kLanes>::type Vec;

template <class V>
constexpr int lanes_of = sizeof(V) / sizeof(float);

// Loads and stores take any address: on every CPU in question an unaligned move of aligned data
// costs nothing.
template <class V>
SPARSEJAX_INLINE V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <class V>
SPARSEJAX_INLINE void store(float* p, V v) {
  __builtin_memcpy(p, &v, sizeof(V));
}

// A loaded value that stays in a register: GCC would rather load it again in each product that
// reads it, and a load of a vector that lies in two lines takes as long as two products.
template <class V>
SPARSEJAX_INLINE V in_register(V x) {
#if defined(__AVX512F__) || (defined(__x86_64__) && SPARSEJAX_LANES < 16)
  asm("" : "+v"(x));
#endif
  return x;
}

// The first `count` lanes, or all.
template <class V>
SPARSEJAX_INLINE void store_first(float* p, V v, int64_t count) {
  if (count >= lanes_of<V>) return store(p, v);
  float part[lanes_of<V>];
  store(part, v);
  for (int64_t i = 0; i < count; i++) p[i] = part[i];
}

// x - 0 keeps every x, -0.0 and NaN included, and compiles to a bare broadcast.
template <class V>
SPARSEJAX_INLINE V splat(float x) {
  return x - V{};
}

// `yes` where x has these very bits, else `no`.
template <class V>
SPARSEJAX_INLINE V where_bits(V x, int32_t bits, V yes, V no) {
  typedef int32_t Ints __attribute__((vector_size(sizeof(V))));
  return (Ints)x == bits ? yes : no;
}

// Comparisons are written so that NaN stays NaN.
template <class V>
SPARSEJAX_INLINE V clamp(V x, V low, V high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}
// These keep NaN (maxps gives its second operand then), and GCC does not find them.
#ifdef __SSE2__
SPARSEJAX_INLINE Vec4 clamp(Vec4 x, Vec4 low, Vec4 high) {
  return __builtin_ia32_minps(high, __builtin_ia32_maxps(low, x));
}
#endif
#ifdef __AVX__
SPARSEJAX_INLINE Vec8 clamp(Vec8 x, Vec8 low, Vec8 high) {
  return __builtin_ia32_minps256(high, __builtin_ia32_maxps256(low, x));
}
#endif
#ifdef __AVX512F__
SPARSEJAX_INLINE Vec16 clamp(Vec16 x, Vec16 low, Vec16 high) {
#ifdef __clang__
  return __builtin_ia32_minps512(high, __builtin_ia32_maxps512(low, x, 4), 4);
#else
  x = __builtin_ia32_maxps512_mask(low, x, x, -1, 4);
  return __builtin_ia32_minps512_mask(high, x, x, -1, 4);
#endif
}
#endif
#ifdef __AVX512F__
// Lane i is that of the two which the low five bits of at[i] name.
SPARSEJAX_INLINE Vec16 lanes_at(Vec16 low, Vec16 high, Ints16 at) {
#ifdef __clang__
  return __builtin_ia32_vpermi2varps512(low, at, high);
#else
  return __builtin_ia32_vpermt2varps512_mask(at, low, high, -1);
#endif
}
// Numbers as wide as floats; GCC converts halves, and joins them.
SPARSEJAX_INLINE Ints16 widened(const uint16_t* numbers) {
  typedef int16_t Shorts __attribute__((vector_size(32)));
  Shorts shorts;
  __builtin_memcpy(&shorts, numbers, sizeof(shorts));
#ifdef __clang__
  typedef uint16_t Numbers __attribute__((vector_size(32)));
  return __builtin_convertvector((Numbers)shorts, Ints16);
#else
  return (Ints16)__builtin_ia32_pmovzxwd512_mask(shorts, Ints16{}, -1);
#endif
}
// min(max(x, -most), most); either, where x is NaN.
SPARSEJAX_INLINE Vec16 within(Vec16 x, Vec16 most) {
  return __builtin_ia32_rangeps512_mask(x, most, 2, x, -1, 4);
}
// x 2^floor(n), 0 and inf included.
SPARSEJAX_INLINE Vec16 times_power_of_two(Vec16 x, Vec16 n) {
  return __builtin_ia32_scalefps512_mask(x, n, x, -1, 4);
}
#endif
#ifdef __aarch64__
SPARSEJAX_INLINE Vec4 clamp(Vec4 x, Vec4 low, Vec4 high) {
  return (Vec4)vminq_f32(vmaxq_f32((float32x4_t)x, (float32x4_t)low), (float32x4_t)high);
}
#endif

// The lanes 0, 2, 4, ... of a and b one behind the other, and the lanes 1, 3, 5, ...
SPARSEJAX_INLINE Vec4 even_lanes(Vec4 a, Vec4 b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
}
SPARSEJAX_INLINE Vec4 odd_lanes(Vec4 a, Vec4 b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
SPARSEJAX_INLINE Vec8 even_lanes(Vec8 a, Vec8 b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
}
SPARSEJAX_INLINE Vec8 odd_lanes(Vec8 a, Vec8 b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
SPARSEJAX_INLINE Vec16 even_lanes(Vec16 a, Vec16 b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
SPARSEJAX_INLINE Vec16 odd_lanes(Vec16 a, Vec16 b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

// Lanes 1, 2, ... of a and lane 0 of b.
SPARSEJAX_INLINE Vec16 next_lanes(Vec16 a, Vec16 b) {
  return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
}

// Halves of a vector are added until one lane is left.
SPARSEJAX_INLINE float sum_lanes(float v) { return v; }
SPARSEJAX_INLINE float sum_lanes(Vec4 v) {
  const Vec4 two = v + __builtin_shufflevector(v, v, 2, 3, 2, 3);
  return two[0] + two[1];
}
SPARSEJAX_INLINE float sum_lanes(Vec8 v) {
  return sum_lanes(__builtin_shufflevector(v, v, 0, 1, 2, 3) +
                   __builtin_shufflevector(v, v, 4, 5, 6, 7));
}
SPARSEJAX_INLINE float sum_lanes(Vec16 v) {
  return sum_lanes(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                   __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}

}  // namespace sparsejax::SPARSEJAX_TARGET
