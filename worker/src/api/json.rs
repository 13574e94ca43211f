//! Strict JSON: what a lenient reader would pass over in silence is refused by name. Of a field given twice, readers
//! between a client and the database take one or the other; a misspelt field is an option that does nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::codes::Code;
use super::problem::{FieldError, Problem};

/// Deeper than any honest document, and far from any stack's end.
const DEEPEST: usize = 32;

/// Longest name that is repeated in an error.
const LONGEST_NAME: usize = 64;

/// The text of a body that is JSON through and through: UTF-8, no name twice in an object, no NUL, no depth without end.
pub(super) fn checked(body: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| not_json(format!("The body is not UTF-8, from byte {} on.", error.valid_up_to())))?;
    let found = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Check { found: &found, place: &Place::Body, depth: 0 }.deserialize(&mut reader);
    match (found.into_inner(), read.and_then(|()| reader.end())) {
        (Some(problem), _) => Err(problem),
        (None, Ok(())) => Ok(text),
        // The parser's words name a place and a fault, and quote nothing.
        (None, Err(error)) => Err(not_json(format!("The body is not JSON: {error}."))),
    }
}

fn not_json(detail: String) -> Problem {
    Problem::new(Code::NotJson).with_detail(detail)
}

/// Where in the body a value stands; written out for an error alone, since a batch has thousands of values.
enum Place<'a> {
    Body,
    Field(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn text(&self) -> String {
        match self {
            Self::Body => String::new(),
            Self::Field(object, name) => joined(&object.text(), name),
            Self::Element(array, index) => format!("{}[{index}]", array.text()),
        }
    }
}

/// Walks a value and keeps nothing of it.
struct Check<'a> {
    found: &'a RefCell<Option<Problem>>,
    place: &'a Place<'a>,
    depth: usize,
}

impl Check<'_> {
    fn refuse<E: Error>(&self, code: Code, place: &Place<'_>, fault: &str) -> E {
        self.found.replace(Some(Problem::of_field(code, place.text(), fault)));
        E::custom("refused")
    }

    fn text<E: Error>(&self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            return Err(self.refuse(Code::InvalidField, self.place, "holds the character NUL (\\u0000)"));
        }
        Ok(())
    }

    fn below<'b>(&'b self, place: &'b Place<'b>) -> Check<'b> {
        Check { found: self.found, place, depth: self.depth + 1 }
    }

    fn deep<E: Error>(&self) -> Result<(), E> {
        if self.depth >= DEEPEST {
            return Err(self.refuse(Code::InvalidField, self.place, "is nested deeper than 32 levels"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.deep()?;
        let mut index = 0usize;
        while items.next_element_seed(self.below(&Place::Element(self.place, index)))?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.deep()?;
        let mut seen = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            let place = Place::Field(self.place, &name);
            if name.contains('\0') {
                return Err(self.refuse(Code::InvalidField, &place, "has the character NUL (\\u0000) in its name"));
            }
            if seen.contains(&name) {
                return Err(self.refuse(Code::DuplicateField, &place, "is given twice"));
            }
            fields.next_value_seed(self.below(&place))?;
            seen.insert(name);
        }
        Ok(())
    }
}

/// `meta.order_id`. A name is the caller's own text: shortened, and without what a terminal would obey.
fn joined(place: &str, name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    if place.is_empty() { name } else { format!("{place}.{name}") }
}

/// The fields of an object. Whoever reads it takes each by its name and kind, and then asks what was wrong with any.
pub(super) struct Fields<'a> {
    values: BTreeMap<String, &'a RawValue>,
    place: String,
    errors: Vec<FieldError>,
    unknown: bool,
}

impl<'a> Fields<'a> {
    /// Reads an object of a [`checked`] text with no other fields than these. `place` is where in the body it stands.
    pub(super) fn read(json: &'a str, known: &[&str], place: &str) -> Result<Self, Problem> {
        let named = if place.is_empty() { "body" } else { place };
        let mut values: BTreeMap<String, &'a RawValue> =
            serde_json::from_str(json).map_err(|_| Problem::invalid(named, "is not a JSON object"))?;
        let mut errors = Vec::new();
        let is_known = |name: &String| known.contains(&name.as_str());
        for name in values.keys().filter(|name| !is_known(name)).take(10) {
            let near = known.iter().find(|near| strsim::damerau_levenshtein(near, name) <= 2);
            let message = match near {
                Some(near) => format!("is no field here; did you mean {near}?"),
                None => format!("is no field here; there are {}", known.join(", ")),
            };
            errors.push(FieldError { field: joined(place, name), message });
        }
        let unknown = !errors.is_empty();
        values.retain(|name, value| is_known(name) && value.get() != "null");
        Ok(Self { values, place: place.to_owned(), errors, unknown })
    }

    /// A string.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let json = self.values.remove(name)?;
        let text = serde_json::from_str(json.get()).ok();
        self.or_fault(name, "is not a string", text)
    }

    /// A whole number; an empty string is none, as forms send it.
    pub(super) fn integer(&mut self, name: &str) -> Option<i32> {
        let json = self.values.remove(name)?.get();
        if json == "\"\"" {
            return None;
        }
        // 1.0 is an integer to JSON Schema.
        let whole =
            |number: f64| (number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX)).then_some(number as i32);
        let number = serde_json::from_str(json).ok().or_else(|| whole(serde_json::from_str(json).ok()?));
        self.or_fault(name, "is not a whole number", number)
    }

    /// An object, as it was written.
    pub(super) fn object(&mut self, name: &str) -> Option<&'a str> {
        let json = self.values.remove(name)?.get();
        let object = json.starts_with('{').then_some(json);
        self.or_fault(name, "is not a JSON object", object)
    }

    /// An array; its elements as they were written.
    pub(super) fn array(&mut self, name: &str) -> Option<Vec<&'a RawValue>> {
        let json = self.values.remove(name)?.get();
        let array = serde_json::from_str(json).ok();
        self.or_fault(name, "is not an array", array)
    }

    fn or_fault<T>(&mut self, name: &str, fault: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.errors.push(FieldError { field: joined(&self.place, name), message: fault.to_owned() });
        }
        value
    }

    /// Whether all was well.
    pub(super) fn end(self) -> Result<(), Problem> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let code = if self.unknown { Code::UnknownField } else { Code::InvalidField };
        Err(Problem::new(code).with_errors(self.errors))
    }
}

#[cfg(test)]
mod tests;
