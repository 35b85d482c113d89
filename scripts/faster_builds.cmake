# Uses ccache and mold where they are installed. The presets have project() include this file, so that a plain
# `cmake -B somewhere` stays free of it.
find_program(LANNER_CCACHE ccache)
if(LANNER_CCACHE)
  foreach(language C CXX CUDA)
    if(NOT CMAKE_${language}_COMPILER_LAUNCHER)
      set(CMAKE_${language}_COMPILER_LAUNCHER ${LANNER_CCACHE})
    endif()
  endforeach()
endif()

# g++ knows -fuse-ld=mold since 12.1; CMake 3.25 has no CMAKE_LINKER_TYPE yet.
find_program(LANNER_MOLD mold)
if(LANNER_MOLD AND NOT (CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12.1))
  add_link_options(-fuse-ld=mold)
endif()
