//! Hugging Face tokenizers behind the C border.

use std::sync::OnceLock;

use tokenizers::models::ModelWrapper;
use tokenizers::Tokenizer;

use crate::ffi::{guard, slice_or_empty, Buffer, Code, Failure, Ids, Slice};

/// The largest published tokenizer.json files have about 35 MB.
const MAX_JSON_BYTES: usize = 256 << 20;
/// An Encoding costs tens of bytes a token; one input must not be able to take gigabytes.
const MAX_TEXT_BYTES: usize = 64 << 20;
const MAX_TOKEN_ID: u32 = (1 << 24) - 1;

pub struct TextTokenizer {
    /// Text that spells a special token becomes that token.
    parsing: Tokenizer,
    /// The same, with special tokens read as ordinary text. Made at the first use: most programs never need it.
    literal: OnceLock<Tokenizer>,
    vocab_size: i32,
    joins_byte_runs: bool,
}

fn corrupt(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Corrupt, error.to_string())
}

impl TextTokenizer {
    fn from_json(json: &[u8]) -> Result<Self, Failure> {
        if json.len() > MAX_JSON_BYTES {
            return Err(corrupt(format!(
                "{} bytes are more than the {MAX_JSON_BYTES} allowed",
                json.len()
            )));
        }
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(corrupt)?;
        // What a training run left in the file must not cut or pad prompts, nor make encoding random.
        tokenizer.with_truncation(None).map_err(corrupt)?;
        tokenizer.with_padding(None);
        if let ModelWrapper::BPE(bpe) = tokenizer.get_model() {
            if bpe.dropout.is_some() {
                let mut steady = bpe.clone();
                steady.dropout = None;
                tokenizer.with_model(ModelWrapper::BPE(steady));
            }
        }
        let highest = tokenizer.get_vocab(true).values().copied().max();
        let highest = highest.ok_or_else(|| corrupt("the vocabulary is empty"))?;
        if highest > MAX_TOKEN_ID {
            return Err(corrupt(format!(
                "token id {highest} is beyond the {MAX_TOKEN_ID} allowed"
            )));
        }
        let decoder = serde_json::to_value(tokenizer.get_decoder()).map_err(corrupt)?;
        Ok(TextTokenizer {
            parsing: tokenizer,
            literal: OnceLock::new(),
            vocab_size: highest as i32 + 1,
            joins_byte_runs: mentions_byte_fallback(&decoder),
        })
    }

    fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>, Failure> {
        if text.len() > MAX_TEXT_BYTES {
            let message = format!(
                "a text of {} bytes is longer than the {MAX_TEXT_BYTES} allowed",
                text.len()
            );
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let tokenizer = if parse_special {
            &self.parsing
        } else {
            self.literal.get_or_init(|| {
                let mut literal = self.parsing.clone();
                literal.set_encode_special_tokens(true);
                literal
            })
        };
        let encoding = tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(|error| {
                Failure::new(Code::InvalidArgument, format!("cannot tokenize: {error}"))
            })?;
        Ok(encoding.get_ids().iter().map(|&id| id as i32).collect())
    }

    fn decode(&self, ids: &[i32], skip_special_tokens: bool) -> Result<String, Failure> {
        let mut known = Vec::with_capacity(ids.len());
        for &id in ids {
            known.push(u32::try_from(id).map_err(|_| {
                Failure::new(Code::InvalidArgument, format!("token id {id} is negative"))
            })?);
        }
        self.parsing
            .decode(&known, skip_special_tokens)
            .map_err(|error| Failure::new(Code::Internal, format!("cannot decode: {error}")))
    }

    fn piece(&self, id: i32) -> Option<String> {
        self.parsing.id_to_token(u32::try_from(id).ok()?)
    }

    fn is_special(&self, id: i32) -> bool {
        self.piece(id)
            .is_some_and(|piece| self.parsing.get_added_vocabulary().is_special_token(&piece))
    }
}

/// Whether the decoder, at any depth, is the one that joins <0xE4><0xBD><0xA0> into one character.
fn mentions_byte_fallback(decoder: &serde_json::Value) -> bool {
    match decoder {
        serde_json::Value::Object(map) => {
            map.get("type").and_then(|kind| kind.as_str()) == Some("ByteFallback")
                || map.values().any(mentions_byte_fallback)
        }
        serde_json::Value::Array(items) => items.iter().any(mentions_byte_fallback),
        _ => false,
    }
}

/// # Safety
/// As `lanner_text.h` says; this holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_from_json(
    json: Slice,
    out: *mut *mut TextTokenizer,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let tokenizer = TextTokenizer::from_json(json.bytes())?;
        out.write(Box::into_raw(Box::new(tokenizer)));
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_free(tokenizer: *mut TextTokenizer) {
    if !tokenizer.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(tokenizer));
            Ok(())
        });
    }
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_encode(
    tokenizer: *const TextTokenizer,
    text: Slice,
    add_special_tokens: i32,
    parse_special: i32,
    out: *mut Ids,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let text = text.text("the text")?;
        let ids = (*tokenizer).encode(text, add_special_tokens != 0, parse_special != 0)?;
        out.write(ids.into());
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_decode(
    tokenizer: *const TextTokenizer,
    ids: *const i32,
    count: usize,
    skip_special_tokens: i32,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let text = (*tokenizer).decode(slice_or_empty(ids, count), skip_special_tokens != 0)?;
        out.write(text.into_bytes().into());
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_vocab_size(tokenizer: *const TextTokenizer) -> i32 {
    (*tokenizer).vocab_size
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_token_id(
    tokenizer: *const TextTokenizer,
    piece: Slice,
) -> i32 {
    let mut id = -1;
    guard(std::ptr::null_mut(), || {
        if let Some(found) = (*tokenizer).parsing.token_to_id(piece.text("the piece")?) {
            id = found as i32;
        }
        Ok(())
    });
    id
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_piece(
    tokenizer: *const TextTokenizer,
    id: i32,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guard(error, || {
        let piece = (*tokenizer).piece(id).ok_or_else(|| {
            Failure::new(Code::InvalidArgument, format!("no token has the id {id}"))
        })?;
        out.write(piece.into_bytes().into());
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_is_special(
    tokenizer: *const TextTokenizer,
    id: i32,
) -> i32 {
    let mut special = false;
    guard(std::ptr::null_mut(), || {
        special = (*tokenizer).is_special(id);
        Ok(())
    });
    i32::from(special)
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn lanner_tokenizer_joins_byte_runs(tokenizer: *const TextTokenizer) -> i32 {
    i32::from((*tokenizer).joins_byte_runs)
}
