/* An empty extension module: setuptools builds it, its shared library carries the C functions of fic.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef FIC_INTERFACE /* setup.py defines it: the checksum of fic.h, for native/__init__.py to compare. */
#define FIC_INTERFACE "unknown"
#endif

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Carrier of the native crop decoder.", -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddStringConstant(module, "interface", FIC_INTERFACE) < 0)
        Py_CLEAR(module);
    return module;
}
