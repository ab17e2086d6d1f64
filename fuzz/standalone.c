/* Runs a fuzz target without libFuzzer: every given file as it is, then changed at random RUNS times over all.
 * Usage: target RUNS FILE... */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 1;

static uint32_t below(uint32_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % limit);
}

static size_t change(uint8_t *data, size_t size)
{
    for (uint32_t edits = 1 + below(6); edits > 0 && size > 1; edits--) {
        size_t at = below((uint32_t)size);
        switch (below(4)) {
        case 0:
            data[at] ^= (uint8_t)(1u << below(8));
            break;
        case 1:
            data[at] = (uint8_t)below(256);
            break;
        case 2: /* remove a byte */
            memmove(data + at, data + at + 1, size - at - 1);
            size--;
            break;
        default: /* cut, seldom */
            if (below(8) == 0)
                size = at + 1;
            else
                data[at] = data[below((uint32_t)size)];
        }
    }
    return size;
}

/* From the heap and of exactly that size, so that a sanitizer sees what is read behind the end. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

int main(int argc, char **argv)
{
    static uint8_t original[MAX_SIZE], changed[MAX_SIZE];
    int files = argc - 2;
    if (files < 1)
        return 2;
    long runs = atol(argv[1]) / files;
    for (int i = 0; i < files; i++) {
        FILE *file = fopen(argv[i + 2], "rb");
        if (!file)
            return 2;
        size_t size = fread(original, 1, MAX_SIZE, file);
        fclose(file);
        run(original, size);
        for (long j = 0; j < runs; j++) {
            memcpy(changed, original, size);
            run(changed, change(changed, size));
        }
    }
    printf("%ld executions of %d files\n", (runs + 1) * files, files);
    return 0;
}
