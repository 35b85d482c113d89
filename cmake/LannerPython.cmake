# Folders of pytest as CTest tests.
#
#   lanner_python_test(NAME python_text DIR tests/text… [ENVIRONMENT "NAME=value;…"])
#
# They run with LANNER_PYTHON from the root of the sources; LANNER_BINARY names the program that was built, and
# LANNER_BUILD_DIR the folder in which the probes of the tests lie.

set(LANNER_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH
  "The Python that has scripts/requirements-test.txt")

function(lanner_python_test)
  cmake_parse_arguments(TEST "" "NAME" "DIR;ENVIRONMENT" ${ARGN})
  if(NOT LANNER_BUILD_TESTS)
    return()
  endif()
  add_test(NAME ${TEST_NAME} COMMAND ${LANNER_PYTHON} -m pytest -q -p no:cacheprovider ${TEST_DIR}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${TEST_NAME} PROPERTIES LABELS python TIMEOUT 900 ENVIRONMENT
    "LANNER_BINARY=${CMAKE_BINARY_DIR}/lanner;LANNER_BUILD_DIR=${CMAKE_BINARY_DIR};PYTHONDONTWRITEBYTECODE=1;${TEST_ENVIRONMENT}")
endfunction()
