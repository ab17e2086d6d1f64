/* The intrinsics of AVX2: an x86's own; on ARM those of SIMDe, which computes the same with NEON, if its headers are
 * there (Debian: libsimde-dev). FIC_SIMD says that there are some. */
#ifndef FIC_SIMD_H
#define FIC_SIMD_H

#if defined(__x86_64__)
#include <immintrin.h>
#define FIC_SIMD
/* Of functions that are called where the processor has all of these. */
#define FIC_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2")))
#elif defined(__aarch64__) && defined(__has_include)
#if __has_include(<simde/x86/avx2.h>)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#define FIC_SIMD
#define FIC_TARGET_AVX2
#endif
#endif

/* A pair of 16-bit constants for pmaddwd. */
#define FIC_PAIR(a, b) _mm256_set1_epi32((int32_t)((uint32_t)(uint16_t)(a) | (uint32_t)(b) << 16))

#endif
