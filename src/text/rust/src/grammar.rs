//! Grammars: which tokens may come next, as llguidance says.
//!
//! A vocabulary is built once for a model; a grammar is compiled against it and then followed, token by token. Neither a
//! schema nor what a model makes of it is trusted: sizes are limited before anything is compiled, llguidance has limits of
//! its own, and every call has an account of memory and time (budget.rs).

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::INVALID_TOKEN;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{json, Value};

use crate::budget::{self, Limit, Limits};
use crate::ffi::{guard, slice_or_empty, Buffer, Code, Failure, Slice};

const MAX_TEXT_BYTES: usize = 1 << 20;
/// Of one answer; each takes 1 to 2 KB.
const MAX_LEXER_STATES: usize = 20_000;
/// JSON has at most this much blank between two of its parts: a line end with an indentation, or two blanks. Models
/// that are left free here may go on with blanks for ever.
const JSON_BLANKS: &str = r"(\r?\n[\x20\x09]{0,40}|[\x20\x09]{1,2})";

/// A client with a bad schema is told so within a second.
const COMPILING: Limits = Limits {
    bytes: 256 << 20,
    allocations: 20_000_000,
    nanoseconds: 800_000_000,
    stack_bytes: 4 << 20,
};
const STEPPING: Limits = Limits {
    bytes: 64 << 20,
    allocations: 6_000_000,
    nanoseconds: 1_000_000_000,
    stack_bytes: 4 << 20,
};

pub struct Vocabulary {
    factory: ParserFactory,
}

/// A grammar, and how far it has been followed.
pub struct Grammar {
    matcher: Matcher,
}

const fn is_shared_between_threads<T: Send + Sync>() {}
const _: () = is_shared_between_threads::<Vocabulary>();
const fn goes_to_other_threads<T: Send>() {}
const _: () = goes_to_other_threads::<Grammar>();

fn passed(limit: Limit) -> Failure {
    let what = match limit {
        Limit::Memory | Limit::Steps => "memory",
        Limit::Time => "time",
        Limit::Depth => "depth",
    };
    Failure::new(
        Code::ResourceExhausted,
        format!("the grammar is too complex: it passed the limit of {what}"),
    )
}

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::InvalidArgument, error.to_string())
}

fn within<T>(limits: &Limits, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    budget::within(limits, body).unwrap_or_else(|limit| Err(passed(limit)))
}

/// llguidance 1.9.1 counts in 64 bits without looking: it refuses bounds of 19 digits, and goes on for ever where the
/// least number of 64 bits is both bounds of an integer.
const MOST_DIGITS: i64 = 999_999_999_999_999_999;

fn is_too_low(number: f64) -> bool {
    number <= i64::MIN as f64
}

/// Bounds of more digits become those of 18, beyond which few answers lie; other numbers as low are refused.
fn tame_numbers(key: &str, value: &mut Value) -> Result<(), Failure> {
    match value {
        Value::Number(number) => {
            let size = number.as_f64().unwrap_or(0.0);
            if matches!(key, "minimum" | "exclusiveMinimum") && size <= -1e18 {
                *value = (-MOST_DIGITS).into();
            } else if matches!(key, "maximum" | "exclusiveMaximum") && size >= 1e18 {
                *value = MOST_DIGITS.into();
            } else if is_too_low(size) {
                return Err(wrong(format!("the number {number} is too low")));
            }
            Ok(())
        }
        Value::Array(list) => list.iter_mut().try_for_each(|one| tame_numbers("", one)),
        Value::Object(members) => members
            .iter_mut()
            .try_for_each(|(name, one)| tame_numbers(name, one)),
        _ => Ok(()),
    }
}

/// Refuses such numbers in a grammar, in which schemas may stand.
fn check_numbers(text: &str) -> Result<(), Failure> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = text[at..].find('-') {
        let begin = at + found;
        let belongs = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
        let mut end = begin + 1 + bytes[begin + 1..].iter().take_while(|b| belongs(b)).count();
        at = end;
        // As much of it as is a number.
        while end > begin + 1 {
            if let Ok(number) = text[begin..end].parse::<f64>() {
                if is_too_low(number) {
                    return Err(wrong(format!(
                        "the number {} is too low",
                        &text[begin..end]
                    )));
                }
                break;
            }
            end -= 1;
        }
    }
    Ok(())
}

/// With our own rule for blanks.
fn schema_of(text: &str) -> Result<Value, Failure> {
    let mut schema: Value = serde_json::from_str(text)
        .map_err(|error| wrong(format!("the schema is no JSON: {error}")))?;
    tame_numbers("", &mut schema)?;
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    match schema.as_object_mut() {
        Some(members) if members.contains_key("x-guidance") => {
            return Err(wrong("\"x-guidance\" is no keyword of JSON Schema"))
        }
        Some(members) => members.insert(
            "x-guidance".into(),
            json!({ "whitespace_pattern": JSON_BLANKS }),
        ),
        None => return Err(wrong("a JSON schema is an object")),
    };
    Ok(schema)
}

fn grammar_of(kind: i32, text: &str) -> Result<TopLevelGrammar, Failure> {
    match kind {
        0 => Ok(TopLevelGrammar::from_json_schema(schema_of(text)?)),
        1 => Ok(TopLevelGrammar::from_regex(text)),
        2 => {
            check_numbers(text)?;
            Ok(TopLevelGrammar::from_lark(text.to_owned()))
        }
        _ => Err(wrong("unknown kind of grammar")),
    }
}

fn compile(factory: &ParserFactory, kind: i32, text: &str) -> Result<Grammar, Failure> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(wrong(format!(
            "it has {} bytes, more than {MAX_TEXT_BYTES}",
            text.len()
        )));
    }
    let compiling = || {
        let grammar = grammar_of(kind, text)?;
        let parser = factory.create_parser(grammar).map_err(wrong)?;
        let mut matcher = Matcher::new(Ok(parser));
        // Nothing may follow at once: an empty answer is no answer. And what is too complex shows here.
        if matcher.is_stopped() {
            return Err(wrong(matcher.get_error().unwrap_or_else(|| {
                "nothing but an empty text fits the grammar".into()
            })));
        }
        matcher.compute_mask().map_err(wrong)?;
        Ok(Grammar { matcher })
    };
    // Where the library trips over a text, that is the text's fault: nothing else is lost.
    catch_unwind(AssertUnwindSafe(|| within(&COMPILING, compiling))).unwrap_or_else(|_| {
        Err(wrong(
            "the compiler of grammars does not know what to do with it",
        ))
    })
}

/// # Safety
/// `bytes` holds the tokens one behind the other, whose `count` lengths are `sizes`; `ends` has `end_count` ids.
#[no_mangle]
pub unsafe extern "C" fn lanner_vocabulary_new(
    bytes: Slice,
    sizes: *const u32,
    count: usize,
    ends: *const i32,
    end_count: usize,
    out: *mut *mut Vocabulary,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let mut rest = bytes.bytes();
        let mut words = Vec::with_capacity(count);
        for size in slice_or_empty(sizes, count) {
            let size = *size as usize;
            if size > rest.len() {
                return Err(wrong("the sizes of tokens exceed their bytes"));
            }
            let (word, behind) = rest.split_at(size);
            words.push(word.to_vec());
            rest = behind;
        }
        let ends: Vec<u32> = slice_or_empty(ends, end_count)
            .iter()
            .map(|id| *id as u32)
            .collect();
        if ends.iter().any(|id| *id as usize >= count) {
            return Err(wrong("a token that ends answers is outside the vocabulary"));
        }
        let mut trie = TokTrie::from(&TokRxInfo::new(count as u32, INVALID_TOKEN), &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(&ends);
        }
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new(
            &environment,
            InferenceCapabilities::default(),
            &llguidance::earley::SlicedBiasComputer::json_slices(),
        )
        .map_err(wrong)?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = MAX_LEXER_STATES;
        out.write(Box::into_raw(Box::new(Vocabulary { factory })));
        Ok(())
    })
}

/// # Safety
/// `vocabulary` is null, or came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn lanner_vocabulary_free(vocabulary: *mut Vocabulary) {
    if !vocabulary.is_null() {
        drop(Box::from_raw(vocabulary));
    }
}

/// # Safety
/// Pointers as `lanner_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn lanner_grammar_compile(
    vocabulary: *const Vocabulary,
    kind: i32,
    text: Slice,
    out: *mut *mut Grammar,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let text = text.text("the grammar")?;
        let grammar = compile(&(*vocabulary).factory, kind, text)?;
        out.write(Box::into_raw(Box::new(grammar)));
        Ok(())
    })
}

/// # Safety
/// Pointers as `lanner_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn lanner_grammar_copy(
    grammar: *const Grammar,
    out: *mut *mut Grammar,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let matcher = (*grammar).matcher.deep_clone();
        out.write(Box::into_raw(Box::new(Grammar { matcher })));
        Ok(())
    })
}

/// # Safety
/// `grammar` is null, or came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn lanner_grammar_free(grammar: *mut Grammar) {
    if !grammar.is_null() {
        drop(Box::from_raw(grammar));
    }
}

/// # Safety
/// `words` points to `count` writable words; the others as `lanner_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn lanner_grammar_mask(
    grammar: *mut Grammar,
    words: *mut u32,
    count: usize,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let matcher = &mut (*grammar).matcher;
        let mask = within(&STEPPING, || matcher.compute_mask_or_eos().map_err(wrong))?;
        let out = std::slice::from_raw_parts_mut(words, count);
        let known = mask.as_slice();
        let shared = known.len().min(count);
        out[..shared].copy_from_slice(&known[..shared]);
        out[shared..].fill(0);
        Ok(())
    })
}

/// # Safety
/// Pointers as `lanner_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn lanner_grammar_accept(
    grammar: *mut Grammar,
    token: i32,
    ended: *mut i32,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let matcher = &mut (*grammar).matcher;
        within(&STEPPING, || {
            matcher.consume_token(token as u32).map_err(wrong)
        })?;
        ended.write(i32::from(matcher.is_stopped()));
        Ok(())
    })
}
