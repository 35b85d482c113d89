//! Errors, slices and buffers as they cross the C border.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

pub const OK: i32 = 0;

/// The codes of `lanner_text.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 1,
    Corrupt = 2,
    Unsupported = 3,
    ResourceExhausted = 4,
    Internal = 5,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    data: *const u8,
    size: usize,
}

#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    size: usize,
}

#[repr(C)]
pub struct Ids {
    data: *mut i32,
    size: usize,
}

impl Slice {
    /// # Safety
    /// `data` points to `size` readable bytes that outlive the call, or `size` is 0.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        slice_or_empty(self.data, self.size)
    }

    /// # Safety
    /// As for [`Slice::bytes`].
    pub unsafe fn text<'a>(self, what: &str) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes()).map_err(|error| {
            Failure::new(
                Code::InvalidArgument,
                format!("{what} is not UTF-8 at byte {}", error.valid_up_to()),
            )
        })
    }
}

/// # Safety
/// `data` points to `size` readable elements that outlive the call, or `size` is 0.
pub unsafe fn slice_or_empty<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        // C callers pass a null pointer for an empty slice; Rust forbids one.
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

fn leak<T>(values: Vec<T>) -> (*mut T, usize) {
    let boxed = values.into_boxed_slice();
    let size = boxed.len();
    (Box::into_raw(boxed) as *mut T, size)
}

unsafe fn reclaim<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
            data, size,
        )));
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        let (data, size) = leak(bytes);
        Buffer { data, size }
    }
}

impl From<Vec<i32>> for Ids {
    fn from(values: Vec<i32>) -> Self {
        let (data, size) = leak(values);
        Ids { data, size }
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static PANIC_MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "unknown panic"
    }
}

/// "tokenizers-0.23.2/src/decoders/mod.rs": without the folders of the machine that built the crate.
fn source_place(file: &str) -> &str {
    file.rsplit_once("/registry/src/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or(file, |(_, rest)| rest)
}

/// Panics inside a guarded call become messages instead of lines on stderr; other panics print as before.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with(Cell::get) {
                let place = info.location().map_or(String::new(), |l| {
                    format!(" ({}:{})", source_place(l.file()), l.line())
                });
                let text = format!("{}{place}", panic_text(info.payload()));
                PANIC_MESSAGE.with(|message| *message.borrow_mut() = text);
            } else {
                previous(info);
            }
        }));
    });
}

/// One line without control characters: library messages quote templates and files.
fn one_line(message: &str) -> String {
    const MAX_CHARS: usize = 600;
    message
        .chars()
        .take(MAX_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim_end()
        .into()
}

/// Runs the body of an `extern "C"` function: catches panics, writes the error text, returns the code.
///
/// # Safety
/// `error` is null or points to a writable `Buffer`.
pub unsafe fn guard(error: *mut Buffer, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    install_hook();
    let outer = GUARDED.with(|flag| flag.replace(true));
    let outcome = catch_unwind(AssertUnwindSafe(body));
    GUARDED.with(|flag| flag.set(outer));
    let failure = match outcome {
        Ok(Ok(())) => return OK,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            let text = PANIC_MESSAGE.with(|message| std::mem::take(&mut *message.borrow_mut()));
            // A payload's destructor may panic in its turn: then that second payload is leaked rather than dropped.
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            Failure::new(Code::Internal, format!("the text library panicked: {text}"))
        }
    };
    if !error.is_null() {
        error.write(one_line(&failure.message).into_bytes().into());
    }
    failure.code as i32
}

/// # Safety
/// `buffer` came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn lanner_buffer_free(buffer: Buffer) {
    reclaim(buffer.data, buffer.size);
}

/// # Safety
/// `ids` came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn lanner_ids_free(ids: Ids) {
    reclaim(ids.data, ids.size);
}
