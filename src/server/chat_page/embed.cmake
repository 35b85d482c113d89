# Writes OUTPUT, a C++ source with the parts of the page at /chat: page.html and style.css of FOLDER, and the SCRIPTS one
# behind the other.
set(end ")lanner\"")

function(read_part path result)
  file(READ "${path}" text)
  string(FIND "${text}" "${end}" found)
  if(NOT found EQUAL -1)
    message(FATAL_ERROR "${path} must not contain ${end}")
  endif()
  set(${result} "R\"lanner(${text}${end}" PARENT_SCOPE)
endfunction()

read_part("${FOLDER}/page.html" page)
read_part("${FOLDER}/style.css" style)
set(script "")
foreach(path IN LISTS SCRIPTS)
  read_part("${path}" part)
  string(APPEND script "\n  ${part}")
endforeach()
file(WRITE "${OUTPUT}" "// Written by src/server/chat_page/embed.cmake.
#include \"server/chat_page.h\"

namespace lanner::server {

const ChatPageParts kChatPageParts{.page = ${page}, .style = ${style}, .script = ${script}};

}  // namespace lanner::server
")
