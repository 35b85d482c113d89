//! Strings to tokens, chat messages to prompts and grammars to masks, for the C++ side of Lanner.
//!
//! The only way in is the C header `src/text/lanner_text.h`. Rules that every `extern "C"` body here follows:
//! 1. it runs inside [`ffi::guard`], so that no panic crosses the border;
//! 2. text comes in as pointer and length, and is checked to be UTF-8;
//! 3. what it hands out is freed by the matching `lanner_*_free`.

#![feature(alloc_error_hook)] // only budget.rs uses it, and says why

mod budget;
mod ffi;
mod grammar;
mod operators;
mod python_json;
mod python_text;
mod source;
mod template;
mod tokenizer;
mod words;
