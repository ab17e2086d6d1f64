/* The GPU's kernels for the host: a loop over the threads of a block wherever they run side by side. */
#ifndef GPU_ON_HOST_H
#define GPU_ON_HOST_H

#include <stdint.h>

static _Thread_local struct {
    uint32_t x, y;
} blockIdx, gridDim;

#define KERNEL static void
#define SHARED static _Thread_local
#define EACH_THREAD(thread) for (uint32_t thread = 0; thread < THREADS; thread++)
#define MEET()
#include "gpu_kernels.cu"

/* Run a kernel, by its place in data/kernels.py's KERNELS, on x * y blocks. */
static inline void run_on_host(int32_t number, uint32_t x, uint32_t y, ARGUMENTS)
{
    static void (*const kernels[])(ARGUMENTS) = {fic_gpu_filters, fic_gpu_decode, fic_gpu_resize_down,
                                                 fic_gpu_resize_across};
    gridDim.x = x;
    gridDim.y = y;
    for (blockIdx.y = 0; blockIdx.y < y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < x; blockIdx.x++)
            kernels[number](staging, images, workspace, status, levels, out, element_size, out_w, out_h);
}

#endif
