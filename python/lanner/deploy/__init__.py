"""The verb ``lanner deploy``: a folder that a host of demos takes as it is, with a page to chat on."""
