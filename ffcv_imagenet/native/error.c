/* What the error codes mean. */
#include "fic.h"

static const char *const messages[] = {
    [FIC_OK] = "success",
    [-FIC_ERROR_ARGUMENT] =
        "invalid argument: null pointer, crop outside the image, output size outside 1..16384, or unknown filter",
    [-FIC_ERROR_MEMORY] = "out of memory",
    [-FIC_ERROR_NOT_JPEG] = "not a JPEG file",
    [-FIC_ERROR_HEADER] = "malformed JPEG header",
    [-FIC_ERROR_SIZE_MISMATCH] = "the stored width and height differ from the JPEG's",
    [-FIC_ERROR_HUFFMAN_TABLE] = "invalid or missing Huffman table",
    [-FIC_ERROR_TRUNCATED] = "truncated JPEG data",
    [-FIC_ERROR_CODE] = "corrupt JPEG data: invalid Huffman code",
    [-FIC_ERROR_COEFFICIENT] = "corrupt JPEG data: coefficient out of range",
    [-FIC_ERROR_RESTART] = "corrupt JPEG data: restart marker missing or out of order",
    [-FIC_ERROR_INDEX] = "the entry-point index does not fit the JPEG",
    [-FIC_ERROR_UNSUPPORTED] = "unsupported kind of JPEG",
    [-FIC_ERROR_FALLBACK] = "libturbojpeg cannot decode the JPEG",
    [-FIC_ERROR_CAPACITY] = "the output buffer is too small",
};

_Static_assert(sizeof messages / sizeof *messages == 1u - FIC_LAST_ERROR, "one text per error code");

const char *fic_error_message(int32_t code)
{
    if (code > 0)
        return messages[FIC_OK];
    return code >= FIC_LAST_ERROR ? messages[-code] : "unknown error";
}
