/* A shared library for gpu_kernels_on_host.py. */
#include "gpu_on_host.h"

void launch(int32_t number, uint32_t x, uint32_t y, ARGUMENTS)
{
    run_on_host(number, x, y, staging, images, workspace, status, levels, out, element_size, out_w, out_h);
}
