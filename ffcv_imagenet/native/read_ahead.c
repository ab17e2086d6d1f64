/* Asks the system for parts of a mapped file. */
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "fic.h"

void fic_will_need(const uint8_t *content, const uint64_t *starts, const uint64_t *sizes, int64_t count)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int64_t i = 0; i < count; i++) {
        const uintptr_t start = (uintptr_t)content + (uintptr_t)starts[i];
        const uintptr_t begin = start / page * page;
        madvise((void *)begin, (size_t)(start + (uintptr_t)sizes[i] - begin), MADV_WILLNEED);
    }
}
