/* Scratch memory that grows and is kept. */
#ifndef FIC_BUFFER_H
#define FIC_BUFFER_H

#include <stdlib.h>

typedef struct {
    void *data;
    size_t size;
} fic_buffer;

/* At least `size` bytes, aligned to 64; the contents are lost when it grows. NULL when out of memory. */
static inline void *fic_buffer_reserve(fic_buffer *buffer, size_t size)
{
    if (buffer->size < size || !buffer->data) {
        size_t rounded = (size + size / 4 + 4096) / 64 * 64;
        free(buffer->data);
        buffer->data = aligned_alloc(64, rounded);
        buffer->size = buffer->data ? rounded : 0;
    }
    return buffer->data;
}

static inline void fic_buffer_free(fic_buffer *buffer)
{
    free(buffer->data);
    buffer->data = NULL;
    buffer->size = 0;
}

#endif
