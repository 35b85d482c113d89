# One static library a room, with downward links only, and one test program beside it.
#
#   lanner_room(NAME core SOURCES a.cpp b.cpp DEPENDS fmt::fmt)
#   lanner_room_test(NAME core SOURCES a_test.cpp)

add_library(lanner_warnings INTERFACE)
target_compile_options(lanner_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual -Wunused
  -Woverloaded-virtual -Wdouble-promotion -Wimplicit-fallthrough -Werror
  -Wno-missing-field-initializers)  # a designated initializer names what differs from the defaults

add_library(lanner_options INTERFACE)
target_include_directories(lanner_options INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(lanner_options INTERFACE _GLIBCXX_ASSERTIONS)
target_compile_options(lanner_options INTERFACE -fstack-protector-strong -fno-omit-frame-pointer)
if(LANNER_SANITIZE)
  target_compile_options(lanner_options INTERFACE -fsanitize=${LANNER_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(lanner_options INTERFACE -fsanitize=${LANNER_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(lanner_options INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  target_link_options(lanner_options INTERFACE -Wl,-z,relro,-z,now -Wl,--gc-sections)
  target_compile_options(lanner_options INTERFACE -ffunction-sections -fdata-sections)
endif()

function(lanner_room)
  cmake_parse_arguments(ROOM "" "NAME" "SOURCES;DEPENDS" ${ARGN})
  add_library(lanner_${ROOM_NAME} STATIC ${ROOM_SOURCES})
  target_link_libraries(lanner_${ROOM_NAME} PUBLIC lanner_options ${ROOM_DEPENDS} PRIVATE lanner_warnings)
endfunction()

function(lanner_room_test)
  cmake_parse_arguments(ROOM "" "NAME" "SOURCES;DEPENDS;LABELS" ${ARGN})
  if(NOT LANNER_BUILD_TESTS)
    return()
  endif()
  add_executable(${ROOM_NAME}_test ${ROOM_SOURCES})
  target_link_libraries(${ROOM_NAME}_test PRIVATE lanner_${ROOM_NAME} lanner_warnings ${ROOM_DEPENDS}
    GTest::gtest GTest::gtest_main)
  add_test(NAME ${ROOM_NAME} COMMAND ${ROOM_NAME}_test)
  set_tests_properties(${ROOM_NAME} PROPERTIES LABELS "unit;${ROOM_LABELS}" TIMEOUT 900)
endfunction()
