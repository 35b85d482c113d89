//! `json.dumps` of Python, for Jinja values.
//!
//! Chat templates are written and trained with Python's rendering: ", " and ": " as separators, `1.0` for a float,
//! `1e+16` for a large one. A model sees every byte, so ours has to be the same.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Deeper input is refused: the walk is recursive.
const MAX_DEPTH: usize = 100;
/// A list that contains one list many times can be small in memory and endless in print.
const MAX_BYTES: usize = 16 << 20;

pub struct Options {
    pub ensure_ascii: bool,
    pub sort_keys: bool,
    /// What one level is indented with; None: all on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

pub fn dumps(value: &Value, options: &Options) -> Result<String, Error> {
    let mut writer = Writer {
        out: String::new(),
        options,
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    options: &'a Options,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("tojson: the value is nested too deeply"));
        }
        if self.out.len() > MAX_BYTES {
            return Err(Error::new(
                ErrorKind::OutOfFuel,
                "tojson: the text grows too long",
            ));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push_str(&scalar(value))
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.container('[', ']', items.len(), depth, |writer, index| {
                    writer.value(&items[index], depth + 1)
                })?;
            }
            ValueKind::Map => self.map(value, depth)?,
            other => return Err(invalid(format!("tojson: {other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut entries = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                ValueKind::None | ValueKind::Bool | ValueKind::Number => scalar(&key),
                other => return Err(invalid(format!("tojson: keys must not be {other}"))),
            };
            entries.push((name, item));
        }
        if self.options.sort_keys {
            entries.sort_by(|left, right| left.0.cmp(&right.0));
        }
        let separator = self.options.key_separator.clone();
        self.container('{', '}', entries.len(), depth, |writer, index| {
            writer.string(&entries[index].0);
            writer.out.push_str(&separator);
            writer.value(&entries[index].1, depth + 1)
        })
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        count: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for index in 0..count {
            if index > 0 {
                self.out.push_str(&self.options.item_separator);
            }
            self.new_line(depth + 1);
            item(self, index)?;
        }
        if count > 0 {
            self.new_line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.options.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20 => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c if self.options.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn scalar(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => {
            if value.is_true() {
                "true".into()
            } else {
                "false".into()
            }
        }
        _ if value.is_integer() => value.to_string(),
        _ => f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float),
    }
}

/// `float.__repr__`: the shortest digits that read back as the same number, as JSON writes NaN and infinity.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        };
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        // Debug keeps ".0" on whole numbers, as Python does, and stays positional in this range.
        let positional = format!("{number}");
        if positional.contains('.') {
            positional
        } else {
            positional + ".0"
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}
