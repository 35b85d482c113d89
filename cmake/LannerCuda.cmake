# The CUDA language, for src/ops/cuda. nvcc is CMAKE_CUDA_COMPILER where that is given, else what scripts/setup_cuda.sh finds
# or installs. CMake's FindCUDAToolkit is not used: CMake 3.25's looks for a library that CUDA 13 no longer has.

set(LANNER_CUDA_ARCHITECTURES "80-real;90a-real;90-virtual" CACHE STRING
  "What kernels are compiled for: Ampere, Hopper, and PTX for newer devices. One alone, such as 90a-real, builds faster")

if(NOT CMAKE_CUDA_COMPILER)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/setup_cuda.sh
    OUTPUT_VARIABLE nvcc OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "LANNER_CUDA is on, but there is no CUDA compiler (see above)")
  endif()
  set(CMAKE_CUDA_COMPILER ${nvcc} CACHE FILEPATH "The CUDA compiler" FORCE)
endif()
set(CMAKE_CUDA_ARCHITECTURES ${LANNER_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
# CMake 3.25.1 does not know nvcc's flag for it.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)

# Programs find shared libraries that lie beside them, and so do those libraries (scripts/make_gpu_bundle.sh).
set(CMAKE_BUILD_RPATH "$ORIGIN")
add_link_options(-Wl,--disable-new-dtags)
