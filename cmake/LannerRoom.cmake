# One static library a room, with downward links only, and one test program beside it.
#
#   lanner_room(NAME core SOURCES a.cpp b.cpp DEPENDS fmt::fmt)
#   lanner_room_test(NAME core SOURCES a_test.cpp)          MAIN main.cpp in the place of GoogleTest's own

add_library(lanner_warnings INTERFACE)
# nvcc hands what it makes of a .cu file to the same compiler, which would warn of that.
target_compile_options(lanner_warnings INTERFACE
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wnon-virtual-dtor;-Wold-style-cast;-Wcast-qual>"
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wunused;-Woverloaded-virtual;-Wdouble-promotion;-Wimplicit-fallthrough;-Werror>"
  # a designated initializer names what differs from the defaults
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wno-missing-field-initializers>"
  "$<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings;-Xcompiler=-Wall>")

add_library(lanner_options INTERFACE)
target_include_directories(lanner_options INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(lanner_options INTERFACE _GLIBCXX_ASSERTIONS)
target_compile_options(lanner_options INTERFACE
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-fstack-protector-strong;-fno-omit-frame-pointer>")
if(LANNER_SANITIZE)
  target_compile_options(lanner_options INTERFACE
    "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-fsanitize=${LANNER_SANITIZE};-fno-sanitize-recover=all>")
  target_link_options(lanner_options INTERFACE -fsanitize=${LANNER_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(lanner_options INTERFACE
    "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2;-ffunction-sections;-fdata-sections>")
  target_link_options(lanner_options INTERFACE -Wl,-z,relro,-z,now -Wl,--gc-sections)
endif()

function(lanner_room)
  cmake_parse_arguments(ROOM "" "NAME" "SOURCES;DEPENDS" ${ARGN})
  add_library(lanner_${ROOM_NAME} STATIC ${ROOM_SOURCES})
  target_link_libraries(lanner_${ROOM_NAME} PUBLIC lanner_options ${ROOM_DEPENDS} PRIVATE lanner_warnings)
endfunction()

function(lanner_room_test)
  cmake_parse_arguments(ROOM "" "NAME;MAIN" "SOURCES;DEPENDS;LABELS" ${ARGN})
  if(NOT LANNER_BUILD_TESTS)
    return()
  endif()
  add_executable(${ROOM_NAME}_test ${ROOM_SOURCES} ${ROOM_MAIN})
  target_link_libraries(${ROOM_NAME}_test PRIVATE lanner_${ROOM_NAME} lanner_warnings ${ROOM_DEPENDS} GTest::gtest)
  if(NOT ROOM_MAIN)
    target_link_libraries(${ROOM_NAME}_test PRIVATE GTest::gtest_main)
  endif()
  add_test(NAME ${ROOM_NAME} COMMAND ${ROOM_NAME}_test)
  set_tests_properties(${ROOM_NAME} PROPERTIES LABELS "unit;${ROOM_LABELS}" TIMEOUT 900)
endfunction()

# A test program run on the CUDA device, in builds with CUDA. Where there is no device it says so and counts as skipped.
#
#   lanner_gpu_test(NAME ops_cuda COMMAND ops_test --gtest_filter=… [DETERMINISTIC])
function(lanner_gpu_test)
  cmake_parse_arguments(TEST "DETERMINISTIC" "NAME" "COMMAND" ${ARGN})
  if(NOT LANNER_CUDA)
    return()
  endif()
  add_test(NAME ${TEST_NAME} COMMAND ${TEST_COMMAND})
  set(device cuda)
  if(TEST_DETERMINISTIC)
    set(device cuda-deterministic)
  endif()
  set_tests_properties(${TEST_NAME} PROPERTIES
    ENVIRONMENT "LANNER_TEST_DEVICE=${device}" SKIP_RETURN_CODE 77 LABELS gpu TIMEOUT 900 RUN_SERIAL ON)
endfunction()
