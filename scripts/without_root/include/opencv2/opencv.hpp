/* Stands in for OpenCV's header where FFCV is compiled without OpenCV: all of FFCV is there but its resizing, which
 * this project does not call. It ends the process and says why. */
#include <cstdint>
#include <cstdio>
#include <cstdlib>

enum { CV_8UC3 };

namespace cv
{
enum { INTER_AREA };

struct Mat {
    Mat(int64_t, int64_t, int, uint8_t *)
    {
    }
    Mat colRange(int64_t, int64_t) const
    {
        return *this;
    }
    Mat rowRange(int64_t, int64_t) const
    {
        return *this;
    }
    int size() const
    {
        return 0;
    }
};

inline void resize(const Mat &, const Mat &, int, int, int, int)
{
    std::fprintf(stderr, "error: this copy of FFCV was compiled without OpenCV, with which it resizes images\n");
    std::exit(2);
}
} // namespace cv
