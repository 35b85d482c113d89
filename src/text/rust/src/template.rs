//! Chat templates: Jinja as Hugging Face Transformers renders it, with limits.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use minijinja::machinery::{eval, make_string_output, parse, CodeGenerator, Instructions};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use crate::budget::{self, Limit};
use crate::ffi::{guard, Buffer, Code, Failure, Slice};
use crate::operators::{add_operators, replace_operators, BYTES_PER_FUEL};
use crate::python_json::{dumps, Options};
use crate::python_text::write_str;
use crate::source::{rewrite, CHECK_ITERABLE};

const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// minijinja charges every instruction, and every 64 bytes that a template allocates: this is about 130 MB.
const FUEL: u64 = 2_000_000;
/// Nested macro calls and includes; each takes some stack of the caller's thread.
const MAX_RECURSION: usize = 200;
const NAME: &str = "chat_template";

/// A template that is ready to be rendered. The fields refer to those below them, and are dropped in this order.
pub struct ChatTemplate {
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
    environment: Box<Environment<'static>>,
    _source: Arc<str>,
}

/// The filter as Transformers defines it: no HTML escapes, key order kept, ASCII only on request.
fn tojson(value: Value, ensure_ascii: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let ensure_ascii = match ensure_ascii {
        Some(given) => given,
        None => kwargs
            .get::<Option<Value>>("ensure_ascii")?
            .unwrap_or_default(),
    };
    let indent = match kwargs.get::<Option<Value>>("indent")? {
        Some(given) if given.kind() == ValueKind::String => {
            Some(given.as_str().unwrap_or_default().to_owned())
        }
        Some(given) if given.kind() == ValueKind::Number => {
            Some(" ".repeat(given.as_i64().unwrap_or(0).clamp(0, 32) as usize))
        }
        _ => None,
    };
    // json.dumps leaves no blank at the end of a line.
    let mut item_separator = if indent.is_some() { "," } else { ", " }.to_owned();
    let mut key_separator = ": ".to_owned();
    if let Some(given) = kwargs
        .get::<Option<Value>>("separators")?
        .filter(|v| !v.is_none())
    {
        item_separator = given.get_item_by_index(0)?.to_string();
        key_separator = given.get_item_by_index(1)?.to_string();
    }
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let options = Options {
        ensure_ascii: ensure_ascii.is_true(),
        sort_keys,
        indent,
        item_separator,
        key_separator,
    };
    dumps(&value, &options).map(Value::from)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("the template refuses: {message}"),
    ))
}

/// `datetime.now().strftime(format)`.
fn strftime_now(format: String) -> Result<Value, Error> {
    let refuse = || Error::new(ErrorKind::InvalidOperation, "strftime_now: unusable format");
    if format.is_empty() {
        return Ok(Value::from(""));
    }
    if format.len() > 256 {
        return Err(refuse());
    }
    let format = CString::new(format).map_err(|_| refuse())?;
    let mut text = [0u8; 4096];
    // SAFETY: the pointers are valid for the sizes given; localtime_r fills `parts` or returns null.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return Err(refuse());
        }
        libc::strftime(
            text.as_mut_ptr().cast(),
            text.len(),
            format.as_ptr(),
            &parts,
        )
    };
    std::str::from_utf8(&text[..written])
        .map(Value::from)
        .map_err(|_| refuse())
}

/// What `for` iterates over, as Jinja2 takes it.
fn check_iterable(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "'NoneType' object is not iterable",
        ));
    }
    Ok(value)
}

/// `str(value)`.
fn string(value: Value) -> Result<Value, Error> {
    if value.as_str().is_some() {
        return Ok(value);
    }
    let mut text = String::new();
    write_str(&mut text, &value)?;
    Ok(Value::from(text))
}

/// Python's methods on strings, lists and dicts. minijinja charges for what a method returns only afterwards; those
/// that can make a long text out of short ones are charged before.
fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let bytes = match (method, args) {
            ("replace", [from, to, ..]) => {
                let from = from.as_str().unwrap_or_default();
                let hits = if from.is_empty() {
                    text.len() + 1
                } else {
                    text.len() / from.len()
                };
                text.len()
                    .saturating_add(hits.saturating_mul(to.as_str().map_or(0, str::len)))
            }
            ("join", [items]) => items.try_iter().map_or(0, |items| {
                items.fold(0usize, |sum, item| {
                    sum.saturating_add(text.len())
                        .saturating_add(item.as_str().map_or(0, str::len))
                })
            }),
            _ => text.len(),
        };
        state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn describe(error: &Error) -> String {
    let mut text = error
        .detail()
        .map_or_else(|| error.to_string(), str::to_owned);
    if let Some(line) = error.line() {
        text.push_str(&format!(" (line {line} of the template)"));
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn words(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory => "the template takes too much memory",
        Limit::Steps => "the template takes too many steps",
        Limit::Time => "the template takes too long",
        Limit::Depth => "the template nests values or calls too deeply",
    }
}

impl ChatTemplate {
    fn compile(source: &str) -> Result<Self, Failure> {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!(
                "{} bytes are more than the {MAX_SOURCE_BYTES} allowed",
                source.len()
            );
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        let syntax = syntax.map_err(|error| Failure::new(Code::Internal, describe(&error)))?;
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_unknown_method_callback(python_method);
        environment.set_formatter(|out, _, value| Ok(write_str(out, value)?));
        environment.add_filter("tojson", tojson);
        environment.add_filter("string", string);
        environment.add_filter(CHECK_ITERABLE, check_iterable);
        // In Python nothing can be iterated over in None.
        environment.add_test("iterable", |value: Value| {
            !value.is_none() && value.try_iter().is_ok()
        });
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        // Jinja2 has none of these. The lists that chain() makes are also walked by a recursion without a limit.
        for name in ["bool", "chain", "lines", "pprint", "split", "zip"] {
            environment.remove_filter(name);
        }
        add_operators(&mut environment);
        let source = rewrite(source).map_err(|cause| Failure::new(Code::InvalidArgument, cause))?;
        let source: Arc<str> = source.into();
        // SAFETY: the text lives on the heap, unchanged, as long as the ChatTemplate, in which whatever refers to it is
        // dropped before it.
        let text: &'static str = unsafe { &*std::ptr::from_ref::<str>(&source) };
        let (mut instructions, mut blocks) =
            budget::within(&budget::RENDERING, || compile_source(text, syntax))
                .map_err(|limit| Failure::new(Code::ResourceExhausted, words(limit)))?
                .map_err(|error| Failure::new(Code::InvalidArgument, describe(&error)))?;
        for code in std::iter::once(&mut instructions).chain(blocks.values_mut()) {
            replace_operators(code).map_err(|what| Failure::new(Code::Unsupported, what))?;
        }
        Ok(ChatTemplate {
            instructions,
            blocks,
            environment: Box::new(environment),
            _source: source,
        })
    }

    fn render(&self, context: &str) -> Result<Vec<u8>, Failure> {
        let context: serde_json::Map<String, serde_json::Value> = serde_json::from_str(context)
            .map_err(|error| {
                Failure::new(
                    Code::InvalidArgument,
                    format!("template variables: {error}"),
                )
            })?;
        let root = Value::from(Serde(&context));
        // SAFETY: the environment lives on the heap as long as `self`, and nothing of the rendering outlives this call.
        let environment: &'static Environment<'static> =
            unsafe { &*std::ptr::from_ref::<Environment<'static>>(&self.environment) };
        let outcome = budget::within(&budget::RENDERING, || -> Result<String, Error> {
            let mut text = String::new();
            let mut output = make_string_output(&mut text);
            eval(
                environment,
                &self.instructions,
                root,
                &self.blocks,
                &mut output,
                AutoEscape::None,
            )?;
            Ok(text)
        });
        let exhausted = |message: &str| Failure::new(Code::ResourceExhausted, message);
        match outcome.map_err(|limit| exhausted(words(limit)))? {
            Ok(text) if text.len() > MAX_OUTPUT_BYTES => Err(exhausted(&format!(
                "the template writes more than {MAX_OUTPUT_BYTES} bytes"
            ))),
            Ok(text) => Ok(text.into_bytes()),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(exhausted(
                "the template takes too many steps or too much memory",
            )),
            Err(error) => Err(Failure::new(Code::InvalidArgument, describe(&error))),
        }
    }
}

type Compiled = (
    Instructions<'static>,
    BTreeMap<&'static str, Instructions<'static>>,
);

fn compile_source(source: &'static str, syntax: SyntaxConfig) -> Result<Compiled, Error> {
    let parsed = parse(source, NAME, syntax)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&parsed);
    Ok(generator.finish())
}

/// # Safety
/// As `lanner_text.h` says; this holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn lanner_template_compile(
    source: Slice,
    out: *mut *mut ChatTemplate,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let compiled = ChatTemplate::compile(source.text("the template")?)?;
        out.write(Box::into_raw(Box::new(compiled)));
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_template_free(compiled: *mut ChatTemplate) {
    if !compiled.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(compiled));
            Ok(())
        });
    }
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_template_render(
    compiled: *const ChatTemplate,
    context: Slice,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let text = (*compiled).render(context.text("the template's input")?)?;
        out.write(text.into());
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_json_as_python(
    json: Slice,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let value: serde_json::Value = serde_json::from_slice(json.bytes())
            .map_err(|error| Failure::new(Code::InvalidArgument, format!("not JSON: {error}")))?;
        let options = Options {
            ensure_ascii: false,
            sort_keys: false,
            indent: None,
            item_separator: ", ".into(),
            key_separator: ": ".into(),
        };
        let text = dumps(&Value::from(Serde(&value)), &options)
            .map_err(|error| Failure::new(Code::InvalidArgument, describe(&error)))?;
        out.write(text.into_bytes().into());
        Ok(())
    })
}

/// The header promises that const handles may be used from any thread.
const fn assert_shareable<T: Send + Sync>() {}
const _: () = assert_shareable::<ChatTemplate>();
const _: () = assert_shareable::<crate::tokenizer::TextTokenizer>();
