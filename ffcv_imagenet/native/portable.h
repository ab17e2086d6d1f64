/* What the headers shared between the host compiler and NVRTC need: integer types and function qualifiers. */
#ifndef FIC_PORTABLE_H
#define FIC_PORTABLE_H

#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#else
#include <stdint.h>
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define FIC_INLINE static __device__ __forceinline__
#define FIC_CONSTANT static __device__ const
#else
#define FIC_INLINE static inline __attribute__((always_inline, unused))
#define FIC_CONSTANT static const __attribute__((unused))
#endif

#if defined(__GNUC__) && !defined(__CUDACC__)
#define FIC_LIKELY(x) __builtin_expect(!!(x), 1)
#define FIC_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define FIC_LIKELY(x) (x)
#define FIC_UNLIKELY(x) (x)
#endif

#endif
