#ifndef FIC_HUFFMAN_BUILD_H
#define FIC_HUFFMAN_BUILD_H

#include "huffman.h"

/*
 * Build the table from a DHT specification: 16 counts, then the values (T.81 B.2.4.2). What blocks are skipped with is
 * left out unless `skips`. Nothing is done when the table was built from the same specification already. Returns
 * FIC_OK, or FIC_ERROR_HUFFMAN_TABLE where fic_huffman_ranges refuses the codes.
 */
int32_t fic_huffman_build(fic_huffman_table *table, const uint8_t *spec, int32_t is_ac, int32_t skips);

#endif
