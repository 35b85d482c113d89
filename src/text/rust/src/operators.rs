//! Operators that take the place of minijinja's: instructions of a compiled template become calls of the functions here.
//!
//! Why: minijinja's fuel does not pay for comparing, indexing and slicing long texts, so a loop of these would run for
//! hours; `~` has to write numbers as Python does; and Python refuses to order values of different kinds.
//! The functions' names are no identifiers, so no template can call or redefine them.

use std::sync::LazyLock;

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::ValueKind;
use minijinja::{context, Environment, Error, ErrorKind, Expression, State, Value};

use crate::python_text::write_str;

pub const BYTES_PER_FUEL: usize = 64;
const ITEMS_PER_FUEL: usize = 2;

static SLICE: LazyLock<Expression<'static, 'static>> = LazyLock::new(|| {
    let environment: &'static Environment<'static> = Box::leak(Box::default());
    let compiled = environment.compile_expression("value[start:stop:step]");
    compiled.expect("the expression is valid")
});

/// Replaces the instructions. `Err` names what cannot be replaced.
pub fn replace_operators(instructions: &mut Instructions<'_>) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some(instruction) = instructions.get_mut(at) {
        let (name, arguments) = match instruction {
            Instruction::Eq => ("==", 2),
            Instruction::Ne => ("!=", 2),
            Instruction::Lt => ("<", 2),
            Instruction::Lte => ("<=", 2),
            Instruction::Gt => (">", 2),
            Instruction::Gte => (">=", 2),
            Instruction::GetItem => ("[]", 2),
            Instruction::Slice => ("[:]", 4),
            Instruction::StringConcat => ("~", 2),
            Instruction::CompareAndPreserve(_) => return Err("a < b < c: write a < b and b < c"),
            _ => ("", 0),
        };
        if !name.is_empty() {
            *instruction = Instruction::CallFunction(name, Some(arguments));
        }
        at += 1;
    }
    Ok(())
}

pub fn add_operators(environment: &mut Environment<'_>) {
    // Now, and not within the limits of a rendering, one of which could break off the making.
    LazyLock::force(&SLICE);
    environment.add_function("==", equal);
    environment.add_function("!=", |state: &State, a: Value, b: Value| {
        equal(state, a, b).map(|same| !same)
    });
    environment.add_function("<", |state: &State, a: Value, b: Value| {
        ordered(state, &a, &b).map(|()| a < b)
    });
    environment.add_function("<=", |state: &State, a: Value, b: Value| {
        ordered(state, &a, &b).map(|()| a <= b)
    });
    environment.add_function(">", |state: &State, a: Value, b: Value| {
        ordered(state, &a, &b).map(|()| a > b)
    });
    environment.add_function(">=", |state: &State, a: Value, b: Value| {
        ordered(state, &a, &b).map(|()| a >= b)
    });
    environment.add_function("[]", item);
    environment.add_function("[:]", slice);
    environment.add_function("~", concatenate);
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, equal);
    }
    for name in ["ne", "!="] {
        environment.add_test(name, |state: &State, a: Value, b: Value| {
            equal(state, a, b).map(|same| !same)
        });
    }
    // Jinja2 has neither.
    environment.remove_test("startingwith");
    environment.remove_test("endingwith");
}

fn pay_for_comparing(state: &State, a: &Value, b: &Value) -> Result<(), Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return state.consume_fuel((a.len().min(b.len()) / BYTES_PER_FUEL) as u64);
    }
    let items = a.len().unwrap_or(0).min(b.len().unwrap_or(0));
    state.consume_fuel((items / ITEMS_PER_FUEL) as u64)
}

fn equal(state: &State, a: Value, b: Value) -> Result<bool, Error> {
    pay_for_comparing(state, &a, &b)?;
    Ok(a == b)
}

/// Fails where Python knows no order.
fn ordered(state: &State, a: &Value, b: &Value) -> Result<(), Error> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let comparable = match (a.kind(), b.kind()) {
        (ValueKind::String, ValueKind::String) => true,
        (
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Plain,
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Plain,
        ) => true,
        _ => is_number(a) && is_number(b),
    };
    if !comparable {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("no order between {} and {}", a.kind(), b.kind()),
        ));
    }
    pay_for_comparing(state, a, b)
}

fn item(state: &State, container: Value, key: Value) -> Result<Value, Error> {
    let bytes = container.as_str().map_or(0, str::len) + key.as_str().map_or(0, str::len);
    let mut fuel = bytes / BYTES_PER_FUEL;
    if container.kind() == ValueKind::Iterable {
        // Its items can only be reached one behind the other.
        fuel += container.len().unwrap_or(0) / ITEMS_PER_FUEL;
    }
    state.consume_fuel(fuel as u64)?;
    let value = container.get_item(&key)?;
    if value.kind() == ValueKind::Invalid {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "an item cannot be read",
        ));
    }
    Ok(value)
}

fn slice(
    state: &State,
    value: Value,
    start: Value,
    stop: Value,
    step: Value,
) -> Result<Value, Error> {
    let bytes = value.as_str().map_or(0, str::len);
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)?;
    SLICE.eval(context! { value, start, stop, step })
}

fn concatenate(left: Value, right: Value) -> Result<Value, Error> {
    let mut text = String::new();
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        text.reserve(left.len() + right.len());
    }
    write_str(&mut text, &left)?;
    write_str(&mut text, &right)?;
    Ok(Value::from(text))
}
