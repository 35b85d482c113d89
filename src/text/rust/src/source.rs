//! Rewrites a template's source where Jinja2, as Transformers sets it up, knows more than minijinja.
//!
//! - `{% generation %}` … `{% endgeneration %}` mark the assistant's part for training and change nothing in the text.
//!   They become an `if` that is always true.
//! - `{% for x in none %}` is an error in Jinja2 and an empty loop here: the iterated expression goes through the
//!   filter [`CHECK_ITERABLE`], which refuses it.
//!
//! It also refuses what would make the parser and the compiler, which are recursive, run out of stack: they descend one
//! level for each operator of an expression and for each `elif`.
//!
//! Only tags are touched: not comments, not expressions, not raw blocks, and not what stands in strings.

/// The filter's name; no template can have it, since it is no identifier that one would write.
pub const CHECK_ITERABLE: &str = "__lanner_iterable";

/// Each takes a few hundred bytes of stack; real templates have some dozens in their longest expression.
const MAX_OPERATORS: usize = 1500;
const MAX_ELIFS: usize = 1500;

#[derive(Clone, Copy)]
struct Tag {
    /// Where "{%" stands, and where "%}" ends.
    start: usize,
    end: usize,
}

/// `Err` says what is too much.
pub fn rewrite(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() + source.len() / 16);
    let mut copied = 0;
    let mut at = 0;
    let mut elifs = 0;
    while let Some(open) = find_open(source, at) {
        let end = end_of(source, open);
        let is_comment = source[open..].starts_with("{#");
        if !is_comment {
            check_operators(source, open, end.unwrap_or(source.len()))?;
        }
        let Some(end) = end else {
            break; // an error, which the parser words better
        };
        at = end;
        if !source[open..].starts_with("{%") {
            continue;
        }
        let tag = Tag { start: open, end };
        elifs += usize::from(name_of(source, tag) == "elif");
        if elifs > MAX_ELIFS {
            return Err(format!("more than {MAX_ELIFS} times elif"));
        }
        if let Some(body) = rewritten(source, tag) {
            out.push_str(&source[copied..open]);
            out.push_str(&body);
            copied = end;
        } else if name_of(source, tag) == "raw" {
            at = end_of_raw(source, end);
        }
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

fn check_operators(source: &str, open: usize, end: usize) -> Result<(), String> {
    let bytes = source[open..end].as_bytes();
    let mut count = 0;
    let mut at = 2;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = end_of_string(bytes, at, quote).unwrap_or(at),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'|' | b'.' | b'[' | b'(' | b'{' | b'<'
            | b'>' | b'=' | b'!' => count += 1,
            b if is_word(b) => {
                let length = word_length(&bytes[at..]);
                count += usize::from(matches!(
                    &bytes[at..at + length],
                    b"not" | b"and" | b"or" | b"if" | b"else" | b"is" | b"in"
                ));
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    if count > MAX_OPERATORS {
        let line = source[..open].matches('\n').count() + 1;
        return Err(format!(
            "more than {MAX_OPERATORS} operators in one expression (line {line} of the template)"
        ));
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Of the word at the beginning.
fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| is_word(**b)).count()
}

fn find_open(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    (from..bytes.len().saturating_sub(1))
        .find(|&i| bytes[i] == b'{' && matches!(bytes[i + 1], b'%' | b'{' | b'#'))
}

/// Behind the end of the tag, expression or comment that begins at `open`.
fn end_of(source: &str, open: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let close = match bytes[open + 1] {
        b'#' => return source[open + 2..].find("#}").map(|i| open + 2 + i + 2),
        b'%' => b"%}",
        _ => b"}}",
    };
    let mut depth = 0usize;
    let mut at = open + 2;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = end_of_string(bytes, at, quote)?,
            _ if depth == 0 && bytes[at..].starts_with(close) => return Some(at + 2),
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The closing quote of the string that opens at `at`.
fn end_of_string(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b if b == quote => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

/// Where the tag that ends a raw block begins; the end of the source without one.
fn end_of_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(i) = source[at..].find("{%") {
        let open = at + i;
        let inner = source[open + 2..]
            .trim_start_matches(is_control)
            .trim_start();
        if inner.starts_with("endraw") {
            return open;
        }
        at = open + 2;
    }
    source.len()
}

fn is_control(c: char) -> bool {
    c == '-' || c == '+'
}

/// The tag's inside without blanks and whitespace controls.
fn inside(source: &str, tag: Tag) -> &str {
    let text = &source[tag.start + 2..tag.end - 2];
    let text = text.strip_prefix(is_control).unwrap_or(text);
    text.strip_suffix(is_control).unwrap_or(text).trim()
}

fn name_of(source: &str, tag: Tag) -> &str {
    let text = inside(source, tag);
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The tag as it should stand; None: as it stands.
fn rewritten(source: &str, tag: Tag) -> Option<String> {
    let text = inside(source, tag);
    let body = match name_of(source, tag) {
        "generation" if text == "generation" => "if true".to_owned(),
        "endgeneration" if text == "endgeneration" => "endif".to_owned(),
        "for" => checked_loop(text)?,
        _ => return None,
    };
    let raw = &source[tag.start + 2..tag.end - 2];
    let control = |c: Option<char>| {
        c.filter(|c| is_control(*c))
            .map_or(String::new(), String::from)
    };
    // Lines are kept, for the numbers in error messages.
    let lines = "\n".repeat(
        raw.matches('\n')
            .count()
            .saturating_sub(body.matches('\n').count()),
    );
    Some(format!(
        "{{%{} {body} {lines}{}%}}",
        control(raw.chars().next()),
        control(raw.chars().last())
    ))
}

/// `for TARGET in (ITEMS)|check if CONDITION recursive`.
fn checked_loop(text: &str) -> Option<String> {
    let head = find_word(text, 3, &["in"])?;
    let tail = find_word(text, head + 2, &["if", "recursive"]).unwrap_or(text.len());
    let items = text[head + 2..tail].trim();
    if items.is_empty() {
        return None; // an error, which the parser words better
    }
    let rest = &text[tail..];
    Some(format!(
        "{} ({items})|{CHECK_ITERABLE} {rest}",
        &text[..head + 2]
    ))
}

/// Where one of the words stands, outside of strings and brackets.
fn find_word(text: &str, from: usize, words: &[&str]) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = end_of_string(bytes, at, quote)?,
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b if is_word(b) => {
                let length = word_length(&bytes[at..]);
                // `x.if` is an attribute.
                let free = at == 0 || bytes[at - 1] != b'.';
                if depth == 0 && free && words.contains(&&text[at..at + length]) {
                    return Some(at);
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}
