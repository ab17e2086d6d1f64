/* Parses the marker segments up to the first scan. See jpeg_header.h. */
#include "jpeg_header.h"

#include <string.h>

#include "fic.h"

enum {
    MARKER_SOF0 = 0xc0,
    MARKER_SOF1 = 0xc1,
    MARKER_SOF2 = 0xc2,
    MARKER_DHT = 0xc4,
    MARKER_JPG = 0xc8,
    MARKER_DAC = 0xcc,
    MARKER_SOF15 = 0xcf,
    MARKER_RST0 = 0xd0,
    MARKER_SOI = 0xd8,
    MARKER_SOS = 0xda,
    MARKER_DQT = 0xdb,
    MARKER_DNL = 0xdc,
    MARKER_DRI = 0xdd,
    MARKER_APP0 = 0xe0,
    MARKER_APP2 = 0xe2,
    MARKER_APP13 = 0xed,
    MARKER_APP14 = 0xee,
    MARKER_APP15 = 0xef,
    MARKER_COM = 0xfe
};

/* What decides the colour space, besides the component identifiers. */
typedef struct {
    int32_t jfif, adobe, adobe_transform;
} application_markers;

/* Segments that begin with this name, of which Pillow reads at least `least` bytes whatever their length. */
static const struct {
    uint8_t marker;
    const char *name;
    int32_t name_size, least;
} needed_bytes[] = {{MARKER_APP0, "JFIF", 4, 7}, {MARKER_APP2, "ICC_PROFILE", 12, 14}, {MARKER_APP14, "Adobe", 5, 7}};

static int32_t be16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static int32_t parse_quantisers(const uint8_t *p, const uint8_t *end, fic_jpeg_header *header)
{
    while (p < end) {
        uint32_t precision = *p >> 4, number = *p & 15;
        p++;
        if (precision > 1 || number > 3 || end - p < (precision ? 128 : 64))
            return FIC_ERROR_HEADER;
        header->quantiser[number] = p;
        header->quantiser_is_16bit[number] = (uint8_t)precision;
        p += precision ? 128 : 64;
    }
    return FIC_OK;
}

static int32_t parse_huffman(const uint8_t *p, const uint8_t *end, fic_jpeg_header *header, int32_t *odd)
{
    while (p < end) {
        uint32_t class = *p >> 4, number = *p & 15;
        p++;
        if (class > 1 || number > 3 || end - p < 16)
            return FIC_ERROR_HEADER;
        int32_t values = 0;
        for (int32_t i = 0; i < 16; i++)
            values += p[i];
        if (values > 256 || end - p < 16 + values)
            return FIC_ERROR_HEADER;
        header->huffman[class][number] = p;
        p += 16;
        for (int32_t i = 0; i < values; i++)
            *odd |= class == 0 && p[i] > 15; /* libjpeg refuses such a table when it is used */
        p += values;
    }
    return FIC_OK;
}

static int32_t parse_frame(const uint8_t *p, const uint8_t *end, uint32_t marker, fic_jpeg_header *header)
{
    if (header->num_components || end - p < 6)
        return FIC_ERROR_HEADER;
    int32_t precision = p[0], components = p[5];
    header->height = be16(p + 1);
    header->width = be16(p + 3);
    if (components < 1 || components > 4 || end - p != 6 + 3 * components || !header->width || !header->height)
        return FIC_ERROR_HEADER;
    header->num_components = components;
    header->progressive = marker == MARKER_SOF2;
    header->native = marker <= MARKER_SOF1 && precision == 8;
    p += 6;
    for (int32_t i = 0; i < components; i++, p += 3) {
        fic_component *component = &header->component[i];
        component->identifier = p[0];
        component->sampling_x = p[1] >> 4;
        component->sampling_y = p[1] & 15;
        component->quantiser = p[2];
        if (component->sampling_x < 1 || component->sampling_x > 4 || component->sampling_y < 1 ||
            component->sampling_y > 4 || p[2] > 3)
            return FIC_ERROR_HEADER;
    }
    return FIC_OK;
}

static int32_t parse_scan(const uint8_t *p, const uint8_t *end, fic_jpeg_header *header)
{
    int32_t components = header->num_components;
    if (!components || end - p < 1)
        return FIC_ERROR_HEADER;
    if (p[0] != components) {
        header->native = 0;
        return FIC_OK;
    }
    if (end - p != 1 + 2 * components + 3)
        return FIC_ERROR_HEADER;
    p++;
    for (int32_t i = 0; i < components; i++, p += 2) {
        fic_component *component = &header->component[i];
        if (p[0] != component->identifier)
            header->native = 0;
        component->dc = p[1] >> 4;
        component->ac = p[1] & 15;
        if (component->dc > 3 || component->ac > 3)
            return FIC_ERROR_HEADER;
    }
    if (p[0] != 0 || p[1] != 63 || p[2] != 0)
        header->native = 0;
    return FIC_OK;
}

/* JFIF says YCbCr; Adobe's APP14 carries a transform flag; without either, identifiers spell RGB in some files. */
static enum fic_colour three_component_colour(const fic_jpeg_header *header, const application_markers *markers)
{
    const fic_component *c = header->component;
    if (markers->jfif)
        return FIC_COLOUR_YCC;
    if (markers->adobe)
        return markers->adobe_transform ? FIC_COLOUR_YCC : FIC_COLOUR_RGB;
    return c[0].identifier == 'R' && c[1].identifier == 'G' && c[2].identifier == 'B' ? FIC_COLOUR_RGB : FIC_COLOUR_YCC;
}

static void finish(fic_jpeg_header *header, const application_markers *markers)
{
    const fic_component *c = header->component;
    if (header->num_components == 1) {
        /* A scan of one component is not interleaved: its MCU is one block, whatever the sampling factors. */
        header->colour = FIC_COLOUR_GREY;
        header->subsampling_x = header->subsampling_y = 1;
    } else if (header->num_components == 3) {
        header->colour = three_component_colour(header, markers);
        header->subsampling_x = c[0].sampling_x;
        header->subsampling_y = c[0].sampling_y;
        if (c[0].sampling_x > 2 || c[0].sampling_y > 2 || c[1].sampling_x != 1 || c[1].sampling_y != 1 ||
            c[2].sampling_x != 1 || c[2].sampling_y != 1)
            header->native = 0;
    } else {
        header->native = 0;
    }
    if (header->native) {
        int32_t mcu_width = 8 * header->subsampling_x, mcu_height = 8 * header->subsampling_y;
        header->mcus_per_row = (header->width + mcu_width - 1) / mcu_width;
        header->mcu_rows = (header->height + mcu_height - 1) / mcu_height;
    }
}

/* Whether both libjpeg and Pillow continue after this marker, which has a segment, before a scan. */
static int32_t is_known(uint32_t marker)
{
    return (marker >= MARKER_SOF0 && marker <= MARKER_SOF15 && marker != MARKER_JPG) ||
           (marker >= MARKER_SOS && marker <= MARKER_DRI) || (marker >= MARKER_APP0 && marker <= MARKER_APP15) ||
           marker == MARKER_COM;
}

static int32_t check_application(uint32_t marker, const uint8_t *p, const uint8_t *end)
{
    for (size_t i = 0; i < sizeof needed_bytes / sizeof *needed_bytes; i++) {
        int32_t named = marker == needed_bytes[i].marker && end - p >= needed_bytes[i].name_size &&
                        !memcmp(p, needed_bytes[i].name, (size_t)needed_bytes[i].name_size);
        if (named && end - p < needed_bytes[i].least)
            return FIC_ERROR_HEADER;
    }
    return FIC_OK;
}

int32_t fic_parse_header(const uint8_t *jpeg, int64_t size, fic_jpeg_header *header)
{
    memset(header, 0, sizeof *header);
    if (size < 4 || jpeg[0] != 0xff || jpeg[1] != MARKER_SOI || jpeg[2] != 0xff)
        return FIC_ERROR_NOT_JPEG;
    const uint8_t *p = jpeg + 2, *file_end = jpeg + size;
    application_markers markers = {0, 0, 0};
    int32_t odd = 0;
    for (;;) {
        /* Like libjpeg, look past stray bytes for the next marker. */
        while (p < file_end && *p != 0xff)
            p++;
        while (p < file_end && *p == 0xff)
            p++;
        if (p == file_end)
            return FIC_ERROR_HEADER;
        uint32_t marker = *p++;
        if (marker == 0 || (marker >= MARKER_RST0 && marker < MARKER_SOI))
            continue;
        if (!is_known(marker) || file_end - p < 2)
            return FIC_ERROR_HEADER;
        int32_t length = be16(p);
        if (length < 2 || file_end - p < length)
            return FIC_ERROR_HEADER;
        const uint8_t *end = p + length;
        p += 2;
        int32_t code = check_application(marker, p, end);
        if (code != FIC_OK)
            return code;
        if (marker == MARKER_DQT) {
            code = parse_quantisers(p, end, header);
        } else if (marker == MARKER_DHT) {
            code = parse_huffman(p, end, header, &odd);
        } else if (marker == MARKER_DRI) {
            if (length != 4)
                return FIC_ERROR_HEADER;
            header->restart_interval = be16(p);
        } else if (marker == MARKER_DAC || marker == MARKER_DNL) {
            odd = 1;
        } else if (marker >= MARKER_SOF0 && marker <= MARKER_SOF15) {
            code = parse_frame(p, end, marker, header);
        } else if (marker == MARKER_APP0) {
            if (length >= 16 && !memcmp(p, "JFIF", 5)) /* libjpeg ignores a shorter one */
                markers.jfif = 1;
        } else if (marker == MARKER_APP2) { /* several pictures: it looks for the others */
            header->pillow_decides |= end - p >= 4 && !memcmp(p, "MPF", 4);
        } else if (marker == MARKER_APP13) { /* Photoshop's block ends where the length of a name is due */
            header->pillow_decides |= end - p >= 20 && !memcmp(p, "Photoshop 3.0", 14) && !memcmp(end - 6, "8BIM", 4);
        } else if (marker == MARKER_APP14) {
            if (length >= 14 && !memcmp(p, "Adobe", 5)) {
                markers.adobe = 1;
                markers.adobe_transform = p[11];
            }
        } else if (marker == MARKER_SOS) {
            code = parse_scan(p, end, header);
            if (code == FIC_OK) {
                header->scan_start = end - jpeg;
                header->native &= !odd;
                finish(header, &markers);
            }
            return code;
        }
        if (code != FIC_OK)
            return code;
        p = end;
    }
}

int32_t fic_is_plain(const fic_jpeg_header *header)
{
    if (!header->native || header->pillow_decides || header->colour == FIC_COLOUR_RGB)
        return 0;
    return header->subsampling_x == 1 ? header->subsampling_y == 1 : header->width > 4;
}

int32_t fic_probe(const uint8_t *jpeg, int64_t jpeg_size, fic_jpeg_info *info)
{
    if (!jpeg || jpeg_size < 0 || !info)
        return FIC_ERROR_ARGUMENT;
    fic_jpeg_header header;
    int32_t code = fic_parse_header(jpeg, jpeg_size, &header);
    if (code != FIC_OK)
        return code;
    *info = (fic_jpeg_info){
        .width = header.width,
        .height = header.height,
        .components = header.num_components,
        .subsampling_x = header.num_components == 1,
        .subsampling_y = header.num_components == 1,
        .progressive = header.progressive,
        .indexable = header.native,
        .restart_interval = header.restart_interval,
        .plain = fic_is_plain(&header),
    };
    const fic_component *luma = &header.component[0], *chroma = &header.component[1];
    if (header.num_components >= 3 && luma->sampling_x % chroma->sampling_x == 0 &&
        luma->sampling_y % chroma->sampling_y == 0 && luma->sampling_x / chroma->sampling_x <= 2 &&
        luma->sampling_y / chroma->sampling_y <= 2) {
        info->subsampling_x = luma->sampling_x / chroma->sampling_x;
        info->subsampling_y = luma->sampling_y / chroma->sampling_y;
    }
    return FIC_OK;
}
