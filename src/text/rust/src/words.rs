//! Cutting text into words by a regular expression, and composing characters, for tokenizers that C++ puts together.

use tokenizers::utils::SysRegex;
use tokenizers::NormalizedString;

use crate::ffi::{guard, Buffer, Code, Failure, Ids, Slice};

pub struct WordPattern {
    expression: SysRegex,
}

impl WordPattern {
    /// Where each word ends. What the expression leaves out between two matches is a word, too.
    fn ends(&self, text: &str) -> Result<Vec<i32>, Failure> {
        if i32::try_from(text.len()).is_err() {
            return Err(Failure::new(Code::InvalidArgument, "the text is too long"));
        }
        let mut ends = Vec::new();
        let mut last = 0;
        for (start, end) in self.expression.find_iter(text) {
            for stop in [start, end] {
                if stop > last {
                    ends.push(stop as i32);
                    last = stop;
                }
            }
        }
        if last < text.len() {
            ends.push(text.len() as i32);
        }
        Ok(ends)
    }
}

/// # Safety
/// As `lanner_text.h` says; this holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn lanner_words_compile(
    pattern: Slice,
    out: *mut *mut WordPattern,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let expression = SysRegex::new(pattern.text("the pattern")?)
            .map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
        out.write(Box::into_raw(Box::new(WordPattern { expression })));
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_words_free(words: *mut WordPattern) {
    if !words.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(words));
            Ok(())
        });
    }
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_words_split(
    words: *const WordPattern,
    text: Slice,
    out: *mut Ids,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let ends = (*words).ends(text.text("the text")?)?;
        out.write(ends.into());
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_text_nfc(text: Slice, out: *mut Buffer, error: *mut Buffer) -> i32 {
    guard(error, || {
        let mut normalized = NormalizedString::from(text.text("the text")?);
        normalized.nfc();
        out.write(normalized.get().as_bytes().to_vec().into());
        Ok(())
    })
}
