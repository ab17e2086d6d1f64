/* Tells the system what will be needed of a file, and that what was written to it can go to the disk. */
#define _GNU_SOURCE
#include <fcntl.h>
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

void fic_begin_to_store(int32_t descriptor, int64_t start, int64_t size)
{
#if defined(SYNC_FILE_RANGE_WRITE)
    /* What fails here fails again when the file is synchronised, and is told there. */
    (void)!sync_file_range(descriptor, start, size, SYNC_FILE_RANGE_WRITE);
#else
    (void)descriptor, (void)start, (void)size;
#endif
}
