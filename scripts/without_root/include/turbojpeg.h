/* What this project and FFCV use of libjpeg-turbo's TurboJPEG library, whose interface has kept since its version 2.0;
 * for machines that have no headers of it. */
#ifndef TURBOJPEG_H
#define TURBOJPEG_H

#ifdef __cplusplus
extern "C" {
#endif

typedef void *tjhandle;

enum { TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_GRAY, TJSAMP_440, TJSAMP_411 };
enum { TJCS_RGB, TJCS_YCbCr, TJCS_GRAY, TJCS_CMYK, TJCS_YCCK };
enum { TJPF_RGB = 0, TJPF_CMYK = 11 };
enum { TJFLAG_NOREALLOC = 1024, TJFLAG_FASTDCT = 2048, TJFLAG_ACCURATEDCT = 4096 };
enum { TJXOP_HFLIP = 1 };
enum { TJXOPT_CROP = 4 };

typedef struct {
    int num, denom;
} tjscalingfactor;

#define TJSCALED(size, factor) (((size) * (factor).num + (factor).denom - 1) / (factor).denom)

typedef struct {
    int x, y, w, h;
} tjregion;

typedef struct tjtransform {
    tjregion r;
    int op, options;
    void *data;
    int (*customFilter)(short *coefficients, tjregion array, tjregion plane, int component, int transform,
                        struct tjtransform *self);
} tjtransform;

tjhandle tjInitDecompress(void);
tjhandle tjInitCompress(void);
tjhandle tjInitTransform(void);
int tjDestroy(tjhandle handle);
void tjFree(unsigned char *buffer);

int tjDecompressHeader3(tjhandle handle, const unsigned char *jpeg, unsigned long size, int *width, int *height,
                        int *subsampling, int *colourspace);
int tjDecompress2(tjhandle handle, const unsigned char *jpeg, unsigned long size, unsigned char *out, int width,
                  int pitch, int height, int format, int flags);
int tjDecompressToYUVPlanes(tjhandle handle, const unsigned char *jpeg, unsigned long size, unsigned char **planes,
                            int width, int *strides, int height, int flags);
int tjPlaneWidth(int component, int width, int subsampling);
int tjPlaneHeight(int component, int height, int subsampling);

unsigned long tjBufSize(int width, int height, int subsampling);
int tjCompress2(tjhandle handle, const unsigned char *pixels, int width, int pitch, int height, int format,
                unsigned char **jpeg, unsigned long *size, int subsampling, int quality, int flags);
int tjTransform(tjhandle handle, const unsigned char *jpeg, unsigned long size, int count, unsigned char **out,
                unsigned long *out_sizes, tjtransform *transforms, int flags);

#ifdef __cplusplus
}
#endif

#endif
