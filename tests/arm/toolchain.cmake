# Cross-builds xla_ops for aarch64 with the emulated Python of run.sh, which passes EMULATED_PYTHON (a program) and
# PYTHON_INCLUDE (the directory of Python.h).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EMULATED_PYTHON PYTHON_INCLUDE)

set(Python_EXECUTABLE "${EMULATED_PYTHON}")
set(Python_INCLUDE_DIR "${PYTHON_INCLUDE}")
# Debian's pyconfig.h includes <aarch64-linux-gnu/python3.N/pyconfig.h>.
cmake_path(GET PYTHON_INCLUDE PARENT_PATH include_root)
set(CMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES "${include_root}")
