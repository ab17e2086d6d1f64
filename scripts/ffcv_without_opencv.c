/*
 * What this project's loaders need of ffcv/_libffcv, for machines without OpenCV (pack_gpu_machine.sh). FFCV's own
 * decoders, which nothing of ours calls, end the process and say why.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

__attribute__((visibility("default"))) void my_memcpy(void *source, void *destination, uint64_t size)
{
    memcpy(destination, source, size);
}

static void refuse(const char *name)
{
    fprintf(stderr, "error: ffcv's %s is not in this copy of FFCV, which was packed without OpenCV\n", name);
    exit(2);
}

__attribute__((visibility("default"))) void resize(void)
{
    refuse("resize");
}

__attribute__((visibility("default"))) int imdecode(void)
{
    refuse("imdecode");
    return -1;
}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_libffcv", .m_size = -1};

PyMODINIT_FUNC PyInit__libffcv(void)
{
    return PyModule_Create(&module);
}
