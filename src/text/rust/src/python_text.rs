//! `str` and `repr` of Python, for what a template prints.
//!
//! minijinja prints nearly everything as Python does, but not numbers with exponents (`1e-07`) and not every character
//! in a string that stands inside a list. Models are trained on Python's bytes.

use std::fmt::{self, Write};

use minijinja::value::ValueKind;
use minijinja::Value;

use crate::python_json::float;

/// Deeper values are refused: the walk is recursive.
const MAX_DEPTH: usize = 200;

/// `str(value)`; undefined is nothing.
pub fn write_str(out: &mut impl Write, value: &Value) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value, 0),
    }
}

fn write_repr(out: &mut impl Write, value: &Value, depth: usize) -> fmt::Result {
    if depth > MAX_DEPTH {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => out.write_str(&float(number)),
            Ok(number) if number.is_nan() => out.write_str("nan"),
            Ok(number) => out.write_str(if number > 0.0 { "inf" } else { "-inf" }),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::Seq | ValueKind::Iterable if !value.is_tuple() => {
            write_items(out, value, ['[', ']'], |out, item| {
                write_repr(out, item, depth + 1)
            })
        }
        ValueKind::Map => write_items(out, value, ['{', '}'], |out, key| {
            write_repr(out, key, depth + 1)?;
            out.write_str(": ")?;
            let item = value.get_item(key).map_err(|_| fmt::Error)?;
            write_repr(out, &item, depth + 1)
        }),
        _ => write!(out, "{value}"),
    }
}

fn write_items<W: Write>(
    out: &mut W,
    value: &Value,
    [open, close]: [char; 2],
    item: impl Fn(&mut W, &Value) -> fmt::Result,
) -> fmt::Result {
    // What is an object of minijinja's own, such as a loop or a namespace, has no items to print.
    let Ok(items) = value.try_iter() else {
        return write!(out, "{value}");
    };
    out.write_char(open)?;
    for (index, one) in items.enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        item(out, &one)?;
    }
    out.write_char(close)
}

/// The quote is ' unless the text has one and no ".
fn write_quoted(out: &mut impl Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if is_printable(c) => out.write_char(c)?,
            c if (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32)?,
            c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32)?,
            c => write!(out, "\\U{:08x}", c as u32)?,
        }
    }
    out.write_char(quote)
}

/// `str.isprintable`: Rust's debug form escapes the same classes of characters, besides quotes, and marks that would
/// join the opening quote, which it leaves alone behind another character.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().eq(['a', c])
}
