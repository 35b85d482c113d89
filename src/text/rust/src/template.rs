//! Chat templates: Jinja as Hugging Face Transformers renders it, with limits.

use std::ffi::CString;
use std::io::Write;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use crate::ffi::{guard, Buffer, Code, Failure, Slice};
use crate::python_json::{dumps, Options};

const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// minijinja charges every instruction, and every 64 bytes that a template allocates: this is about 200 MB.
const FUEL: u64 = 3_000_000;
const BYTES_PER_FUEL: u64 = 64;
/// Nested macro calls and includes; each takes some stack of the caller's thread.
const MAX_RECURSION: usize = 200;
const NAME: &str = "chat_template";

pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// Collects the output and stops the rendering when it grows beyond the limit.
struct Limited<'a> {
    bytes: Vec<u8>,
    overflow: &'a std::cell::Cell<bool>,
}

impl Write for Limited<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + data.len() > MAX_OUTPUT_BYTES {
            self.overflow.set(true);
            return Err(std::io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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

/// Transformers knows `{% generation %}` … `{% endgeneration %}`, which mark the assistant's part for training and
/// change nothing in the text. minijinja has no custom tags: they become an `if` that is always true.
fn replace_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let inner = &rest[start + 2..start + length];
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replacement = match name {
            "generation" => " if true ",
            "endgeneration" => " endif ",
            _ => "",
        };
        out.push_str(&rest[..start + 2]);
        if replacement.is_empty() {
            // Only the opening is consumed: what follows may be a string that contains "{%".
            rest = &rest[start + 2..];
            continue;
        }
        let control = |c: Option<char>| {
            c.filter(|c| *c == '-' || *c == '+')
                .map_or(String::new(), String::from)
        };
        out.push_str(&control(inner.chars().next()));
        out.push_str(replacement);
        out.push_str(&control(inner.chars().last()));
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    out
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
        state.consume_fuel(bytes as u64 / BYTES_PER_FUEL)?;
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
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_unknown_method_callback(python_method);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned(NAME, replace_generation_tags(source))
            .map_err(|error| Failure::new(Code::InvalidArgument, describe(&error)))?;
        Ok(ChatTemplate { environment })
    }

    fn render(&self, context: &str) -> Result<Vec<u8>, Failure> {
        let context: serde_json::Map<String, serde_json::Value> = serde_json::from_str(context)
            .map_err(|error| {
                Failure::new(
                    Code::InvalidArgument,
                    format!("template variables: {error}"),
                )
            })?;
        let overflow = std::cell::Cell::new(false);
        let mut output = Limited {
            bytes: Vec::new(),
            overflow: &overflow,
        };
        let outcome = self.environment.get_template(NAME).and_then(|template| {
            template
                .render_captured_to(Value::from(Serde(&context)), &mut output)
                .map(|_| ())
        });
        match outcome {
            Ok(()) => Ok(output.bytes),
            Err(_) if overflow.get() => {
                let message = format!("the template writes more than {MAX_OUTPUT_BYTES} bytes");
                Err(Failure::new(Code::ResourceExhausted, message))
            }
            Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(Failure::new(
                Code::ResourceExhausted,
                "the template takes too many steps or too much memory",
            )),
            Err(error) => Err(Failure::new(Code::InvalidArgument, describe(&error))),
        }
    }
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
