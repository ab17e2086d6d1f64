/* The context of a thread: its life, and the tables and scan of the JPEG at hand. See decoder.h. */
#include "decoder.h"
#include "islow.h"
#include "simd.h"

#include <string.h>

static int32_t simd_available(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#elif defined(FIC_SIMD)
    return 1;
#else
    return 0;
#endif
}

fic_decoder *fic_decoder_new(void)
{
    fic_decoder *decoder = aligned_alloc(64, (sizeof *decoder + 63) / 64 * 64);
    if (!decoder)
        return NULL;
    memset(decoder, 0, sizeof *decoder);
    decoder->simd = simd_available();
    return decoder;
}

void fic_decoder_free(fic_decoder *decoder)
{
    if (!decoder)
        return;
    fic_jpeg_encoder_free(&decoder->encoder);
    fic_filter *filters[4] = {&decoder->horizontal[0], &decoder->horizontal[1], &decoder->vertical[0],
                              &decoder->vertical[1]};
    for (int32_t i = 0; i < 4; i++)
        fic_buffer_free(&filters[i]->table);
    fic_buffer_free(&decoder->scratch.rows);
    fic_buffer_free(&decoder->scratch.columns);
    fic_buffer_free(&decoder->planes);
    fic_buffer_free(&decoder->fallback);
    fic_buffer_free(&decoder->scan.buffer);
    fic_buffer_free(&decoder->below.buffer);
    free(decoder);
}

int32_t fic_set_simd(fic_decoder *decoder, int32_t enable)
{
    decoder->simd = enable && simd_available();
    return decoder->simd;
}

void fic_order_quantisers(const uint8_t *values, int32_t wide, const uint8_t order[64], uint16_t ordered[64])
{
    for (int32_t i = 0; i < 64; i++)
        ordered[order[i]] = (uint16_t)(wide ? values[2 * i] << 8 | values[2 * i + 1] : values[i]);
}

int32_t fic_prepare_scan(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, int32_t exact)
{
    const uint8_t *order = exact ? fic_islow_order : fic_coefficient_order;
    const fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan;
    for (int32_t c = 0; c < header->num_components; c++) {
        const fic_component *component = &header->component[c];
        const uint8_t *quantiser = header->quantiser[component->quantiser];
        const uint8_t *dc = header->huffman[0][component->dc], *ac = header->huffman[1][component->ac];
        if (!quantiser)
            return FIC_ERROR_HEADER;
        if (!dc || !ac)
            return FIC_ERROR_HUFFMAN_TABLE;
        fic_huffman_table *dc_table = &decoder->huffman[0][component->dc];
        fic_huffman_table *ac_table = &decoder->huffman[1][component->ac];
        int32_t code = fic_huffman_build(dc_table, dc, 0, 0);
        if (code == FIC_OK)
            code = fic_huffman_build(ac_table, ac, 1, !exact);
        if (code != FIC_OK)
            return code;
        uint16_t *values = decoder->quantisers[component->quantiser];
        fic_order_quantisers(quantiser, header->quantiser_is_16bit[component->quantiser], order, values);
        scan->dc_table[c] = dc_table;
        scan->ac_table[c] = ac_table;
        scan->plane[c].quantisers = values;
    }
    scan->simd = decoder->simd;
    scan->exact = exact;
    fic_scan_describe(scan, jpeg, size, header);
    return FIC_OK;
}
